"""Which evaluations a comparison takes, and what it knows of them."""

from datetime import UTC, datetime

import pytest

from medexp.errors import ConfigurationError, UnknownOptionError, UpstreamMissingError
from medexp.runs.choice import Choice, chosen, describe
from medexp.runs.files import write_json
from medexp.runs.lineage import Recipe, address, all_runs, open_run
from tests.synthetic.comparisons import evaluation, recorded

SCORES = {"a": 0.5, "b": 0.6}


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    """Two models in two folds, one of them also with another rate and tagged, one evaluation of foreign files."""
    folder = tmp_path_factory.mktemp("ledger")
    for fold in (0, 1):
        evaluation(folder, SCORES, model="unet3d", fold=fold)
        evaluation(folder, SCORES, model="monai_ft", fold=fold, stage="2")
    evaluation(folder, SCORES, model="unet3d", rate=0.1, user_tags=["paper"])
    evaluation(folder, SCORES, model=None, predictions="/data/nnunet/fold_0")
    recorded(folder, "evaluate", {}, {"model": "unet3d", "fold": 4, "seed": 0}, {}).end("failed")
    return folder


def select(output_dir, *filters):
    return chosen(Choice("evaluate", filters, "compare.select"), all_runs(output_dir), output_dir)


def names(runs):
    return [run.folder.name.rpartition("-")[0] for run in runs]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), 6),
        (("dataset=brats",), 6),
        (("model=unet3d",), 3),
        (("model=unet3d", "model=monai_ft"), 5),
        (("stage=2",), 2),
        (("fold=1",), 2),
        (("tag=paper",), 1),
        (("model.optimizer.lr=0.1",), 1),
        (("name=evaluate-monai*",), 2),
        (("evaluate.predictions=/data/nnunet/fold_0",), 1),
        (("predict.source=validation",), 5),
    ],
)
def test_evaluations_are_chosen_by_what_they_are(output_dir, filters, expected):
    assert len(select(output_dir, *filters)) == expected


def test_a_run_behind_them_chooses_too(output_dir):
    trained = next(run for run in all_runs(output_dir) if run.record["stage"] == "2")
    found = select(output_dir, f"run={trained.identity[:10]}")
    assert [run.record["tags"]["fold"] for run in found] == [trained.record["tags"]["fold"]]
    assert names(found) == [f"evaluate-monai_ft-fold{trained.record['tags']['fold']}-seed0"]
    assert select(output_dir, f"run={trained.folder.name}") == found


def test_a_sweep_chooses_what_it_ran_and_what_it_found_finished(output_dir, tmp_path):
    runs = select(output_dir, "model=unet3d")[:2]
    jobs = [{"run": str(run.folder.relative_to(output_dir))} for run in runs]
    path = output_dir / "sweeps" / "1-evaluate-0123456789" / "sweep.json"
    write_json(path, {"identity": "0123456789" * 6, "jobs": jobs})
    assert select(output_dir, "sweep=0123456789") == runs
    path.unlink()


def test_only_finished_evaluations_and_of_each_the_newest_attempt(tmp_path):
    evaluation(tmp_path, SCORES)
    run = evaluation(tmp_path, SCORES)
    again = run.folder.with_name(f"{run.folder.name}.2")
    run.folder.rename(again)
    run = evaluation(tmp_path, SCORES)
    record = dict(run.record) | {"created": datetime.now(UTC).isoformat()}
    write_json(again / "run.json", record)
    assert [one.folder.name for one in select(tmp_path)] == [again.name]


def test_nothing_found_says_what_there_is(output_dir):
    with pytest.raises(UpstreamMissingError, match=r"compare.select.*model=unet3d fold=1 tag=paper, found 6 others"):
        select(output_dir, "model=unet3d", "fold=1", "tag=paper")


def test_an_empty_ledger_says_so(tmp_path):
    with pytest.raises(UpstreamMissingError, match="found none at all"):
        select(tmp_path)


def test_misspelt_filters_name_the_nearest(output_dir):
    with pytest.raises(UnknownOptionError, match=r"compare.select: no run has a key modl; did you mean model"):
        select(output_dir, "modl=unet3d")
    with pytest.raises(UnknownOptionError, match="did you mean monai_ft"):
        select(output_dir, "model=monai_tf")


def test_what_is_no_filter_is_refused(output_dir):
    with pytest.raises(ConfigurationError, match="expected filters like model=unet3d"):
        select(output_dir, "unet3d")


def test_the_facts_are_the_keys_of_the_command_line(output_dir):
    [run] = select(output_dir, "tag=paper")
    facts = describe(run).facts
    wanted = {
        "dataset": "brats",
        "model": "unet3d",
        "stage": "1",
        "fold": "0",
        "seed": "0",
        "ensemble": 1,
        "tag": ["paper"],
        "model.optimizer.lr": 0.1,
        "model.network._target_": "networks.unet3d",
        "predict.source": "validation",
    }
    assert {key: facts[key] for key in wanted} == wanted


def test_an_ensemble_has_the_folds_of_all_its_models(tmp_path):
    trained = [
        recorded(tmp_path, "1", {"model": {}, "fold": fold}, {"model": "unet3d", "fold": fold, "seed": 0}, {})
        for fold in (0, 1, 10, 2)
    ]
    run = recorded(tmp_path, "evaluate", {}, {"model": "unet3d"}, {"predicted": trained})
    facts = describe(run).facts
    assert (facts["fold"], facts["seed"], facts["ensemble"]) == ("0,1,2,10", "0", 4)


def test_an_earlier_stages_own_value_stands_under_its_stage(tmp_path):
    tags = {"model": "unet3d", "fold": 0, "seed": 0}
    first = recorded(tmp_path, "1", {"trainer": {"max_epochs": 5}}, tags, {})
    second = recorded(tmp_path, "2", {"trainer": {"max_epochs": 7}}, tags, {"initial": [first]})
    facts = describe(recorded(tmp_path, "evaluate", {}, tags, {"predicted": [second]})).facts
    assert (facts["trainer.max_epochs"], facts["stage 1: trainer.max_epochs"], facts["stage"]) == (7, 5, "2")


def test_the_choice_decides_the_identity_through_what_it_finds(tmp_path):
    recipe = Recipe("compare", "brats", "compare", {}, {}, (), chosen={"evaluated": Choice("evaluate", (), "key")})
    evaluation(tmp_path, SCORES, fold=0)
    before = address(recipe, tmp_path)
    assert address(recipe, tmp_path).identity == before.identity
    evaluation(tmp_path, SCORES, fold=1)
    after = address(recipe, tmp_path)
    assert after.identity != before.identity
    assert [run.record["tags"]["fold"] for run in after.upstream["evaluated"]] == [0, 1]


def test_tags_are_added_to_a_finished_run_and_do_not_decide_which_it_is(tmp_path):
    recipe = Recipe("1", "brats", "1", {}, {}, (), user_tags=("first",))
    run, _ = open_run(address(recipe, tmp_path), tmp_path, resume="auto", run_id=None)
    run.begin()
    run.write_outputs({}, digest=None)
    run.end("finished")
    again = Recipe("1", "brats", "1", {}, {}, (), user_tags=("second", "first"))
    open_run(address(again, tmp_path), tmp_path, resume="auto", run_id=None)
    [found] = all_runs(tmp_path)
    assert found.record["user_tags"] == ["first", "second"]

"""Which run a command addresses: start, continue, reuse, and every refusal."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from medexp.errors import (
    CheckpointMismatchError,
    ManifestError,
    ResumeError,
    RunBusyError,
    UpstreamMissingError,
)
from medexp.runs.ledger import Run
from medexp.runs.lineage import Action, Recipe, address, all_runs, ancestry, find, finished, open_run, weights_of

PREPARE = Recipe("prepare", "brats", "prepare", {"num_folds": 5}, {}, ("dataset=brats", "stage=prepare"))
TRAIN = Recipe(
    "1",
    "brats",
    "1-net-fold0-seed0",
    {"lr": 0.1},
    {},
    ("dataset=brats", "stage='1'"),
    upstream={"prepared": (PREPARE,)},
)


def opened(recipe: Recipe, output_dir: Path, *, resume: str = "auto", run_id: str | None = None):
    return open_run(address(recipe, output_dir), output_dir, resume=resume, run_id=run_id)


def finish(recipe: Recipe, output_dir: Path, content: str = "weights", *, by_content: bool = False) -> Run:
    run, _ = opened(recipe, output_dir)
    run.begin()
    (run.folder / "result").write_text(content)
    run.write_outputs({"result": run.folder / "result"}, digest=content if by_content else None)
    run.end("finished")
    return run


def test_nothing_recorded_starts(tmp_path):
    run, action = opened(PREPARE, tmp_path)
    assert action is Action.START
    assert run.folder.parent == tmp_path / "brats"


def test_the_same_command_addresses_the_same_finished_run(tmp_path):
    first = finish(PREPARE, tmp_path)
    run, action = opened(PREPARE, tmp_path)
    assert (run.folder, action) == (first.folder, Action.REUSE)


def test_every_missing_member_of_an_ensemble_is_named_with_its_command(tmp_path):
    folds = [replace(TRAIN, received={"fold": fold}, overrides=(f"fold={fold}",)) for fold in range(3)]
    finish(PREPARE, tmp_path)
    finish(folds[1], tmp_path)
    ensemble = Recipe("predict", "brats", "predict", {}, {}, (), upstream={"trained": tuple(folds)})
    with pytest.raises(UpstreamMissingError) as caught:
        address(ensemble, tmp_path)
    commands = [line.strip() for line in str(caught.value).splitlines() if "python -m" in line]
    assert commands == ["python -m medexp.run fold=0", "python -m medexp.run fold=2"]


def test_another_setting_is_another_run(tmp_path):
    first = finish(PREPARE, tmp_path)
    run, action = opened(replace(PREPARE, received={"num_folds": 3}), tmp_path)
    assert action is Action.START
    assert run.folder != first.folder


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_what_did_not_finish_continues_in_its_folder(tmp_path, state):
    run, _ = opened(PREPARE, tmp_path)
    run.begin()
    run.end(state, reason="because")
    again, action = opened(PREPARE, tmp_path)
    assert (again.folder, action) == (run.folder, Action.CONTINUE)


def test_never_makes_a_new_attempt_and_keeps_the_old_one(tmp_path):
    first = finish(PREPARE, tmp_path)
    run, action = opened(PREPARE, tmp_path, resume="never")
    assert action is Action.START
    assert run.folder.name == f"{first.folder.name}.2"
    assert Run.read(first.folder).state == "finished"


def test_require_names_the_difference_to_the_nearest_run(tmp_path):
    finish(PREPARE, tmp_path)
    with pytest.raises(ResumeError, match="num_folds: 5 -> 3"):
        opened(replace(PREPARE, received={"num_folds": 3}), tmp_path, resume="require")


def test_require_without_any_run_is_an_error(tmp_path):
    with pytest.raises(ResumeError, match="found none"):
        opened(PREPARE, tmp_path, resume="require")


def test_a_missing_upstream_prints_the_command_that_makes_it(tmp_path):
    with pytest.raises(UpstreamMissingError, match="python -m medexp.run dataset=brats stage=prepare"):
        address(TRAIN, tmp_path)


def test_a_finished_run_that_is_almost_the_missing_one_is_named_with_the_difference(tmp_path):
    run = finish(replace(PREPARE, received={"num_folds": 3}), tmp_path)
    with pytest.raises(UpstreamMissingError, match=rf"{run.folder.name} is finished, but differs in num_folds: 3 -> 5"):
        address(TRAIN, tmp_path)
    other = replace(TRAIN, upstream={"prepared": (replace(PREPARE, received=dict.fromkeys("abcd", 1)),)})
    with pytest.raises(UpstreamMissingError, match="found none; make it with"):
        address(other, tmp_path)


def test_a_model_trained_through_its_first_stage_only_can_predict_from_that(tmp_path):
    finish(PREPARE, tmp_path)
    second = replace(TRAIN, stage="2", label="2-net", overrides=("stage='2'",), upstream={"initial": (TRAIN,)})
    predict = Recipe("predict", "brats", "predict-net", {}, {}, ("stage=predict",), upstream={"trained": (second,)})
    with pytest.raises(UpstreamMissingError) as before:
        address(predict, tmp_path)
    assert "predict.stage" not in str(before.value)
    finish(TRAIN, tmp_path)
    with pytest.raises(UpstreamMissingError, match="as stage 1 is finished, predict from that: predict.stage=1"):
        address(predict, tmp_path)


def test_data_count_by_content_and_training_by_settings(tmp_path):
    finish(PREPARE, tmp_path, "cohort A", by_content=True)
    before = address(TRAIN, tmp_path).identity
    other_time = replace(PREPARE, received={"num_folds": 5, "irrelevant": 1})
    finish(other_time, tmp_path, "cohort A", by_content=True)
    assert address(replace(TRAIN, upstream={"prepared": (other_time,)}), tmp_path).identity == before


def test_a_result_whose_upstream_was_made_anew_is_not_reused(tmp_path):
    finish(PREPARE, tmp_path)
    finish(TRAIN, tmp_path)
    predict = Recipe("predict", "brats", "predict-net", {}, {}, ("stage=predict",), upstream={"trained": (TRAIN,)})
    finish(predict, tmp_path)
    again, _ = opened(TRAIN, tmp_path, resume="never")
    again.begin()
    (again.folder / "result").write_text("other weights")
    again.write_outputs({"result": again.folder / "result"}, digest=None)
    again.end("finished")
    run, action = opened(predict, tmp_path)
    assert action is Action.START
    assert run.folder.name.endswith(".2")


def test_a_lost_output_makes_a_new_attempt(tmp_path):
    first = finish(PREPARE, tmp_path)
    (first.folder / "result").unlink()
    run, action = opened(PREPARE, tmp_path)
    assert action is Action.START
    assert run.folder != first.folder


def test_a_changed_output_is_refused_when_it_is_used(tmp_path):
    run = finish(PREPARE, tmp_path, "weights")
    (run.folder / "result").write_text("WEIGHTS")
    with pytest.raises(CheckpointMismatchError, match="expected sha256"):
        run.output("result").verified()


def test_an_output_that_was_never_recorded_is_named(tmp_path):
    with pytest.raises(ManifestError, match=r"'best', got \['result'\]"):
        finish(PREPARE, tmp_path).output("best")


def test_run_id_refuses_another_configuration_key_by_key(tmp_path):
    first = finish(PREPARE, tmp_path)
    with pytest.raises(ResumeError, match="num_folds: 5 -> 3"):
        opened(replace(PREPARE, received={"num_folds": 3}), tmp_path, run_id=first.identity[:10])


def test_an_unknown_run_id_lists_what_there_is(tmp_path):
    first = finish(PREPARE, tmp_path)
    with pytest.raises(ResumeError, match=first.folder.name):
        find("ffff", tmp_path)


HOLD = """
import sys, time
from pathlib import Path
from medexp.runs.ledger import Run
run = Run(Path(sys.argv[1]), {"identity": "0"})
run.begin()
print("held", flush=True)
time.sleep(60)
"""


def test_a_live_run_is_refused_and_a_killed_one_is_interrupted(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    assert Run.read(folder).state == "running"
    with pytest.raises(RunBusyError, match=f"process {process.pid} on "):
        Run(folder, {"identity": "0"}).begin()
    process.kill()
    process.wait()
    process.stdout.close()
    assert Run.read(folder).state == "interrupted"


def test_ancestry_leads_to_the_data(tmp_path):
    prepared = finish(PREPARE, tmp_path)
    trained = finish(TRAIN, tmp_path)
    assert [run.folder for run in ancestry([trained])] == [trained.folder, prepared.folder]


def test_all_runs_are_listed_in_the_order_of_their_creation(tmp_path):
    names = [finish(PREPARE, tmp_path).name, finish(TRAIN, tmp_path).name]
    assert [run.name for run in all_runs(tmp_path)] == names


def test_an_interrupted_run_whose_upstream_was_made_anew_is_not_continued(tmp_path):
    finish(PREPARE, tmp_path, "cohort", by_content=True)
    finish(TRAIN, tmp_path)
    second = Recipe("2", "brats", "2-net", {}, {}, ("stage='2'",), upstream={"initial": (TRAIN,)})
    run, _ = opened(second, tmp_path)
    run.begin()
    run.end("interrupted")
    again, _ = opened(TRAIN, tmp_path, resume="never")
    again.begin()
    (again.folder / "result").write_text("other weights")
    again.write_outputs({"result": again.folder / "result"}, digest=None)
    again.end("finished")
    fresh, action = opened(second, tmp_path)
    assert action is Action.START
    assert fresh.folder != run.folder


def test_weights_of_a_recorded_run_are_found_by_its_identity(tmp_path):
    run, _ = opened(PREPARE, tmp_path)
    run.begin()
    (run.folder / "best.ckpt").write_text("weights")
    run.write_outputs({"best": run.folder / "best.ckpt"}, digest=None)
    run.end("finished")
    path, digest = weights_of(run.identity[:12], tmp_path)
    assert (path, digest) == (str(run.folder / "best.ckpt"), run.output("best").sha256)
    assert weights_of("MONAI/bundle", tmp_path) == ("MONAI/bundle", "MONAI/bundle")


def test_a_run_that_wrote_elsewhere_does_not_stand_for_one_that_is_to_write_here(tmp_path):
    there, here, anywhere = (replace(PREPARE, places={"raw": place}) for place in ("/there", "/here", None))
    first = finish(there, tmp_path)
    assert opened(there, tmp_path)[1] is Action.REUSE
    assert opened(anywhere, tmp_path)[1] is Action.REUSE
    run, action = opened(here, tmp_path)
    assert action is Action.START
    assert (run.identity, run.folder.name) == (first.identity, f"{first.folder.name}.2")
    assert finished(here, tmp_path).folder == first.folder  # as an upstream, it does


def test_a_place_that_is_gone_is_written_again(tmp_path):
    (tmp_path / "layout.json").touch()
    run, _ = opened(PREPARE, tmp_path)
    run.begin()
    run.write_outputs({}, digest="cohort", places=[str(tmp_path / "layout.json")])
    run.end("finished")
    assert opened(PREPARE, tmp_path)[1] is Action.REUSE
    (tmp_path / "layout.json").unlink()
    assert opened(PREPARE, tmp_path)[1] is Action.START


def test_data_that_were_made_anew_and_are_the_same_train_nothing_again(tmp_path):
    finish(PREPARE, tmp_path, "cohort A", by_content=True)
    trained = finish(TRAIN, tmp_path)
    again, _ = opened(PREPARE, tmp_path, resume="never")
    again.begin()
    again.write_outputs({}, digest="cohort A")
    again.end("finished")
    run, action = opened(TRAIN, tmp_path)
    assert (run.folder, action) == (trained.folder, Action.REUSE)

"""What decides a run's identity, and which earlier runs it starts from."""

import pytest

from medexp.composition.recipes import composed_recipe, stage_rank
from medexp.errors import ConfigurationError
from medexp.runs.identity import listing_digest

BRATS = ("dataset=brats", "model=monai_ft", "model.weights=null")


def recipe(*overrides, base=BRATS):
    return composed_recipe((*base, *overrides), ())


def test_stages_sort_in_the_order_in_which_they_can_run():
    stages = ["report", "2", "mock", "evaluate", "1", "prepare", "predict", "10"]
    assert sorted(stages, key=stage_rank) == ["mock", "prepare", "1", "2", "10", "predict", "evaluate", "report"]


def test_a_rate_of_stage_2_leaves_stage_1_what_it_is():
    changed = recipe("stage='2'", "model.curriculum.stage_2.optimizer.lr=3e-5")
    assert changed.upstream["initial"][0].received == recipe("stage='1'").received
    assert changed.received != recipe("stage='2'").received


def test_a_rate_of_stage_1_changes_both_stages():
    changed = recipe("stage='2'", "model.curriculum.stage_1.optimizer.lr=3e-5")
    assert changed.key != recipe("stage='2'").key
    assert changed.upstream["initial"][0].key != recipe("stage='1'").key


@pytest.mark.parametrize(
    "override",
    [
        "hardware.accelerator=cpu",
        "hardware.num_workers=3",
        "output_dir=elsewhere",
        "tracking.enabled=false",
        "hardware.devices=2",
    ],
)
def test_how_and_where_a_run_is_executed_does_not_matter(override):
    assert recipe("stage='1'", override).received == recipe("stage='1'").received


@pytest.mark.parametrize("override", ["hardware.precision=bf16-mixed", "dataset.batch_size=4", "seed=1", "fold=1"])
def test_what_decides_the_result_matters(override):
    assert recipe("stage='1'", override).received != recipe("stage='1'").received


@pytest.mark.parametrize("override", ["fold=3", "seed=5", "dataset.batch_size=4", "dataset/augmentation=light"])
def test_cases_are_prepared_once_for_all_folds_seeds_and_batches(override):
    assert recipe("stage=prepare", override).received == recipe("stage=prepare").received


def test_where_the_raw_files_lie_counts_through_their_listing_only(tmp_path):
    elsewhere = recipe("stage=prepare", f"dataset.roots=[{tmp_path}]")
    assert elsewhere.received == recipe("stage=prepare").received
    assert elsewhere.inputs == ((str(tmp_path),), (), (), ())


def test_predict_starts_from_the_last_stage_of_the_curriculum():
    assert [one.stage for one in recipe("stage=predict").upstream["trained"]] == ["2"]
    assert [one.stage for one in recipe("stage=predict", "predict.stage=1").upstream["trained"]] == ["1"]
    unet = recipe("stage=predict", base=("dataset=hippocampus", "model=unet3d"))
    assert [one.stage for one in unet.upstream["trained"]] == ["1"]


def test_an_ensemble_starts_from_every_fold():
    trained = recipe("stage=predict", "predict.folds=[0,1,2]").upstream["trained"]
    assert [one.tags["fold"] for one in trained] == [0, 1, 2]


def test_out_of_fold_predictions_start_from_every_fold_and_are_one_run(tmp_path):
    base = ("dataset=hippocampus", "model=unet3d", "stage=predict", "predict.source=out_of_fold")
    whole = recipe("dataset.num_folds=2", base=base)
    assert [one.tags["fold"] for one in whole.upstream["trained"]] == [0, 1]
    assert whole.inputs == ((),)
    assert "fold" not in whole.tags
    assert recipe("dataset.num_folds=2", "fold=1", base=base).key == whole.key
    splits = tmp_path / "splits_final.json"
    splits.write_text('[{"train": [], "val": []}]')
    assert len(recipe(f"dataset.splits_file={splits}", base=base).upstream["trained"]) == 1
    assert [one.tags["fold"] for one in recipe("predict.folds=[3]", base=base).upstream["trained"]] == [3]


def test_a_comparison_looks_for_recorded_runs():
    found = recipe("stage=compare", "compare.select=[model=unet3d,tag=paper]")
    assert found.upstream == {}
    assert found.chosen["evaluated"].filters == ("model=unet3d", "tag=paper")
    assert recipe("stage=compare").chosen["evaluated"].filters == ("dataset=brats",)
    assert recipe("stage=compare", "fold=3", "seed=1").key == recipe("stage=compare").key
    assert found.key != recipe("stage=compare").key


def test_tags_do_not_decide_which_run_it_is():
    tagged = recipe("stage='1'", "tags=[paper,second-try]")
    assert tagged.user_tags == ("paper", "second-try")
    assert tagged.key == recipe("stage='1'").key
    with pytest.raises(ConfigurationError, match=r"tags: expected words.*'two words'"):
        recipe("stage='1'", "tags=['two words']")


def test_predictions_of_others_need_no_earlier_stage(tmp_path):
    given = recipe("stage=evaluate", f"evaluate.predictions={tmp_path}", f"evaluate.references={tmp_path}")
    assert given.upstream == {}
    beside = str(tmp_path.parent / "dataset.json")
    assert given.inputs == ((str(tmp_path), beside), (str(tmp_path), beside))


def test_another_composition_of_the_upstream_keeps_the_own_data():
    changed = recipe("stage='2'", "upstream.overrides=[dataset.batch_size=8]")
    assert changed.upstream["initial"][0].key == recipe("stage='1'", "dataset.batch_size=8").key
    assert changed.upstream["prepared"][0].key == recipe("stage=prepare").key


def test_the_label_says_which_run_it_is():
    assert recipe("stage=prepare").label == "prepare"
    assert recipe("stage='2'", "fold=1").label == "2-monai_ft-fold1-seed0"
    assert recipe("stage=evaluate").label == "evaluate-monai_ft-fold0-seed0"


def test_the_command_makes_the_same_recipe_again():
    made = recipe("stage='2'", "dataset.patch_size=[64,64,64]")
    assert made.command.startswith("python -m medexp.run dataset=brats model=monai_ft")
    assert "stage='2'" in made.command or "stage='2'" in made.command


def test_a_model_without_a_second_stage_refuses_it_by_name():
    with pytest.raises(ConfigurationError, match="unet3d has no stage 2"):
        recipe("stage='2'", base=("dataset=hippocampus", "model=unet3d"))


def test_a_folder_of_test_cases_is_not_a_folder_of_training_cases():
    both = recipe("stage=prepare", "dataset.roots=[a,b]")
    apart = recipe("stage=prepare", "dataset.roots=[a]", "dataset.test_roots=[b]")
    assert both.key != apart.key


def test_weights_count_by_content_and_not_by_place(tmp_path):
    first, second = tmp_path / "first.pt", tmp_path / "second.pt"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    base = ("dataset=brats", "model=monai_ft", "stage='1'")
    before = recipe(f"model.weights={first}", base=base).received
    assert recipe(f"model.weights={second}", base=base).received == before
    second.write_bytes(b"others")
    composed_recipe.cache_clear()
    assert recipe(f"model.weights={second}", base=base).received != before


def test_other_upstream_weights_do_not_change_which_training_is_predicted_with():
    line = "upstream.overrides=[dataset.batch_size=8]"
    assert recipe("stage=predict", line).upstream["trained"][0].key == recipe("stage='2'", line).key


@pytest.mark.parametrize("source", ["test", "FOLDER"])
def test_an_ensemble_over_all_folds_is_one_run_for_all_folds(tmp_path, source):
    place = tmp_path if source == "FOLDER" else source
    line = ["stage=predict", "predict.folds=[0,1]", f"predict.source={place}"]
    first, other = recipe(*line), recipe(*line, "fold=3")
    assert first.key == other.key
    assert first.label == "predict-monai_ft-seed0"
    assert {one.tags["fold"] for one in first.upstream["trained"]} == {0, 1}
    below = [recipe("stage=evaluate", *line[1:], f"fold={fold}") for fold in (0, 3)]
    assert below[0].key == below[1].key
    assert "fold" not in below[0].tags


def test_predictions_of_one_fold_count_its_fold():
    assert recipe("stage=predict").key != recipe("stage=predict", "fold=1").key
    test_set = [recipe("stage=predict", "predict.source=test", f"fold={fold}") for fold in (0, 1)]
    assert test_set[0].key != test_set[1].key  # other weights
    assert [one.tags["fold"] for one in test_set] == [0, 1]


def test_the_dataset_json_beside_the_files_counts(tmp_path):
    for name in ("predictions", "raw/labelsTr"):
        (tmp_path / name).mkdir(parents=True)
    line = [f"evaluate.predictions={tmp_path / 'predictions'}", f"evaluate.references={tmp_path / 'raw' / 'labelsTr'}"]
    found = recipe("stage=evaluate", *line)
    assert str(tmp_path / "raw" / "dataset.json") in found.inputs[1]
    before = [listing_digest(group) for group in found.inputs]
    (tmp_path / "raw" / "dataset.json").write_text('{"labels": {"background": 0}}')
    assert [listing_digest(group) for group in found.inputs] != before
    assert recipe("stage=evaluate").inputs == ((), ())


@pytest.mark.parametrize("override", ["prepare.nnunet_raw=/raw", "prepare.nnunet_id=7", "prepare.link=copy"])
def test_where_the_nnunet_layout_goes_is_a_place_and_no_part_of_the_identity(override):
    plain, other = recipe("stage=prepare"), recipe("stage=prepare", override)
    assert other.key == plain.key
    assert other.places != plain.places
    assert recipe("stage=prepare", "prepare.clean=true").places == plain.places


def test_a_relative_place_is_the_same_from_everywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert recipe("stage=prepare", "prepare.nnunet_raw=raw").places["nnunet_raw"] == str(tmp_path / "raw")

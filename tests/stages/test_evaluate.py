"""Evaluation: from files only, every case accounted for, every bad file named."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from medexp.errors import (
    CohortError,
    ConfigurationError,
    GridMismatchError,
    IncompletePredictionsError,
    UnknownOptionError,
)
from medexp.io.tables import number, read_table
from medexp.runs.files import sha256_of, write_json
from medexp.stages.evaluate import evaluate
from tests.synthetic.evaluations import (
    AFFINE,
    LABELS,
    SETTINGS,
    context_of,
    evaluated,
    fake_run,
    predicted,
    tumor,
    write_map,
)


@pytest.fixture
def folders(tmp_path):
    """Predictions that equal their references: a tumor, another one, and a case without any."""
    maps = {"A": tumor(), "B": tumor(7), "C": np.zeros_like(tumor())}
    for case, label in maps.items():
        write_map(tmp_path / "predictions" / f"{case}.nii.gz", label)
        write_map(tmp_path / "references" / case / f"{case}-seg.nii.gz", label)
    return tmp_path / "predictions", tmp_path / "references"


def scores_of(run):
    return {row["case"]: row for row in read_table(run.folder / "cases.csv")}


def summary_of(run):
    return json.loads((run.folder / "summary.json").read_text())


def refused(tmp_path, folders, error, **changes):
    with pytest.raises(error) as caught:
        evaluated(tmp_path / "out", *folders, **changes)
    return str(caught.value)


def test_identical_files_score_one_and_zero(tmp_path, folders):
    row = scores_of(evaluated(tmp_path, *folders))["A"]
    for name in ("NETC", "SNFH", "ET", "WT", "TC"):
        assert number(row[f"dice/{name}"]) == number(row[f"iou/{name}"]) == number(row[f"nsd_1mm/{name}"]) == 1.0
        assert number(row[f"hd95_mm/{name}"]) == 0.0
        assert number(row[f"lesionwise_dice/{name}"]) == 1.0


def test_volumes_are_in_cubic_millimeters_of_the_file(tmp_path, folders):
    row = scores_of(evaluated(tmp_path, *folders))["A"]
    assert number(row["reference_volume_mm3/WT"]) == pytest.approx(5**3 * 1.5)


def test_an_empty_label_is_left_out_and_counted(tmp_path, folders):
    run = evaluated(tmp_path, *folders)
    column = summary_of(run)["medexp"]["columns"]["dice/ET"]
    assert math.isnan(number(scores_of(run)["C"]["dice/ET"]))
    assert (column["mean"], column["n_used"], column["n_undefined"]) == (1.0, 2, 1)


def test_an_empty_label_is_worth_one_where_that_is_asked_for(tmp_path, folders):
    write_map(folders[0] / "A.nii.gz", np.zeros_like(tumor()))
    run = evaluated(tmp_path, *folders, empty_reference="one")
    column = summary_of(run)["medexp"]["columns"]["dice/ET"]
    assert column["mean"] == pytest.approx((0.0 + 1.0 + 1.0) / 3)
    assert (column["n_used"], column["n_undefined"]) == (3, 1)
    assert run.result["scores"]["mean_dice"] == pytest.approx((3 * 2 / 3 + 1.0) / 4)


def test_an_infinite_distance_is_left_out_and_counted_whatever_the_policy(tmp_path, folders):
    write_map(folders[0] / "A.nii.gz", np.zeros_like(tumor()))
    column = summary_of(evaluated(tmp_path, *folders, empty_reference="one"))["medexp"]["columns"]["hd95_mm/ET"]
    assert (column["mean"], column["n_used"], column["n_infinite"]) == (0.0, 2, 1)


def test_a_label_in_no_case_is_named_and_left_out_of_the_mean(tmp_path, folders):
    run = evaluated(tmp_path, *folders)
    assert run.result["scores"]["mean_dice"] == 1.0
    assert any("in no case at all: RC" in line for line in run.result["lines"])


def test_nothing_but_empty_masks_gives_no_objective(tmp_path):
    for side in ("predictions", "references"):
        write_map(tmp_path / side / "C.nii.gz", np.zeros_like(tumor()))
    run = fake_run(tmp_path, "evaluate")
    result = evaluate(tmp_path / "predictions", tmp_path / "references", **SETTINGS, context=context_of(run))
    assert result.objective is None
    assert "mean_dice" not in result.scores


def test_the_summary_has_the_shape_of_nnunets(tmp_path, folders):
    summary = summary_of(evaluated(tmp_path, *folders))
    assert summary["mean"]["1"]["Dice"] == 1.0
    assert summary["mean"]["(1, 2, 3)"]["n_ref"] == pytest.approx((5**3 + 7**3) / 3)
    assert math.isnan(summary["metric_per_case"][2]["metrics"]["1"]["Dice"])
    assert summary["metric_per_case"][0]["reference_file"].endswith("A-seg.nii.gz")


def test_the_manifest_holds_the_digests_of_inputs_and_files(tmp_path, folders):
    run = evaluated(tmp_path, *folders)
    manifest = json.loads(run.output("evaluation").verified().read_text())
    first = manifest["cases"][0]
    assert first["prediction"] == {"path": str(folders[0] / "A.nii.gz"), "sha256": sha256_of(folders[0] / "A.nii.gz")}
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == {
        name: output.sha256 for name, output in run.outputs().items() if name != "evaluation"
    }
    assert manifest["settings"]["protocol"] == "BraTS 2024 GLI"


def test_lesions_have_a_row_each_and_regions_the_official_columns(tmp_path, folders):
    prediction = tumor()
    prediction[0:4, 0:4, 0:4] = 3
    write_map(folders[0] / "A.nii.gz", prediction)
    run = evaluated(tmp_path, *folders)
    lesions = [row for row in read_table(run.folder / "lesions.csv") if (row["case"], row["region"]) == ("A", "ET")]
    assert [row["status"] for row in lesions] == ["matched", "spurious"]
    [region] = [row for row in read_table(run.folder / "lesionwise.csv") if (row["case"], row["Labels"]) == ("A", "ET")]
    assert (region["Num_TP"], region["Num_FP"]) == ("1", "1")
    assert number(region["LesionWise_Score_Dice"]) == pytest.approx(0.5)
    assert number(region["LesionWise_Score_HD95"]) == pytest.approx(337 / 2)


def test_the_toolkits_variant_covers_all_labels_and_regions(tmp_path, folders):
    run = evaluated(tmp_path, *folders, lesion_variant="toolkit")
    assert {row["Labels"] for row in read_table(run.folder / "lesionwise.csv")} == {
        "NETC",
        "SNFH",
        "ET",
        "RC",
        "WT",
        "TC",
    }
    assert json.loads((run.folder / "evaluation.json").read_text())["settings"]["protocol"] == "BraTS toolkit"


def test_no_protocol_writes_no_lesion_tables(tmp_path, folders):
    run = evaluated(tmp_path, *folders, lesions=None)
    assert set(run.outputs()) == {"cases", "summary", "evaluation"}


def test_without_the_slip_snfh_lesions_further_apart_are_one(tmp_path):
    label = np.zeros((40, 20, 20), np.uint8)
    label[4:9, 5:10, 5:10] = label[17:22, 5:10, 5:10] = 2  # 8 voxels between: joined by five steps, not by three
    for side in ("predictions", "references"):
        write_map(tmp_path / side / "A.nii.gz", label)
    folders = (tmp_path / "predictions", tmp_path / "references")
    counts = [
        number(scores_of(evaluated(tmp_path / str(slip), *folders, snfh_slip=slip))["A"]["lesions_matched/SNFH"])
        for slip in (True, False)
    ]
    assert counts == [2, 1]


def test_one_and_two_processes_write_the_same_files(tmp_path, folders):
    write_map(folders[0] / "B.nii.gz", tumor(6))
    one, two = (evaluated(tmp_path / str(number), *folders, num_workers=number) for number in (1, 2))
    for name in ("cases.csv", "lesions.csv", "lesionwise.csv", "summary.json"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


def test_lines_show_each_structure_with_the_cases_used(tmp_path, folders):
    lines = evaluated(tmp_path, *folders).result["lines"]
    [line] = [line for line in lines if line.startswith("ET ")]
    assert "1.000 (2/3)" in line


def test_missing_and_extra_predictions_are_refused(tmp_path, folders):
    (folders[0] / "B.nii.gz").rename(folders[0] / "D.nii.gz")
    message = refused(tmp_path, folders, IncompletePredictionsError)
    assert "without a prediction:\n  B" in message
    assert "without a reference:\n  D" in message


def test_every_grid_mismatch_is_named_with_both_files_and_the_difference(tmp_path, folders):
    shifted, turned = AFFINE.copy(), AFFINE.copy()
    shifted[0, 3] += 10.0
    turned[0] *= -1.0
    write_map(folders[0] / "A.nii.gz", tumor(), affine=shifted)
    write_map(folders[0] / "B.nii.gz", tumor(7), affine=turned)
    write_map(folders[0] / "C.nii.gz", np.zeros((8, 8, 7), np.uint8))
    message = refused(tmp_path, folders, GridMismatchError)
    assert f"{folders[0] / 'A.nii.gz'} and {folders[1] / 'A' / 'A-seg.nii.gz'}: expected one voxel grid" in message
    assert "corners up to 10 mm apart" in message
    assert "orientations RAS and LAS" in message
    assert "shapes (8, 8, 7)" in message


@pytest.mark.parametrize("factor", [1.001, 1.00001])
def test_voxel_sizes_may_differ_by_rounding_only(tmp_path, folders, factor):
    affine = AFFINE.copy()
    affine[:3, :3] *= factor
    write_map(folders[0] / "A.nii.gz", tumor(), affine=affine)
    if factor > 1.0005:
        assert "voxel sizes" in refused(tmp_path, folders, GridMismatchError)
    else:
        assert evaluated(tmp_path, *folders).state == "finished"


def test_unknown_values_and_broken_files_are_listed_in_one_go(tmp_path, folders):
    label = tumor()
    label[0, 0, 0] = 7
    write_map(folders[0] / "A.nii.gz", label)
    write_map(folders[0] / "B.nii.gz", tumor().astype(np.float32) * 0.5)
    (folders[0] / "C.nii.gz").write_bytes(b"no volume")
    message = refused(tmp_path, folders, CohortError)
    assert "A: " in message
    assert "got also [7]" in message
    assert "got also [0.5, 1.5]" in message
    assert "C.nii.gz: expected gzip data" in message
    assert "3 cannot" in message


def test_float_label_maps_are_label_maps(tmp_path, folders):
    write_map(folders[0] / "A.nii.gz", tumor().astype(np.float32))
    assert number(scores_of(evaluated(tmp_path, *folders))["A"]["dice/ET"]) == 1.0


def test_labels_come_from_dataset_json_where_they_are_not_configured(tmp_path, folders):
    write_json(folders[1] / "dataset.json", {"labels": {"background": 0, **LABELS}})
    assert number(scores_of(evaluated(tmp_path, *folders, labels=None))["A"]["dice/ET"]) == 1.0


def test_labels_that_nobody_says_are_asked_for(tmp_path, folders):
    message = refused(tmp_path, folders, ConfigurationError, labels=None, regions={})
    assert "dataset.labels" in message
    assert "dataset.json" in message


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        pytest.param({"regions": {"WT": ["ETC"]}}, "dataset.regions.WT", id="region of no label"),
    ],
)
def test_unknown_options_are_refused_by_key(tmp_path, folders, changes, key):
    assert key in refused(tmp_path, folders, UnknownOptionError, **changes)


def test_swapped_label_names_do_not_pass_the_protocol(tmp_path, folders):
    swapped = {"ET": 1, "NETC": 2, "SNFH": 3, "RC": 4}
    message = refused(tmp_path, folders, ConfigurationError, labels=swapped)
    assert "to be the label values" in message


def test_a_protocol_without_a_slip_refuses_to_leave_it_out(tmp_path, folders):
    message = refused(tmp_path, folders, ConfigurationError, lesions="brats_2023_gli", snfh_slip=False)
    assert "evaluate.snfh_slip" in message


def test_a_folder_of_predictions_needs_references(tmp_path, folders):
    assert "evaluate.references" in refused(tmp_path, (folders[0], None), ConfigurationError)


def test_neither_a_folder_nor_an_earlier_stage_is_refused(tmp_path):
    assert "evaluate.predictions" in refused(tmp_path, (None, None), ConfigurationError)


def test_the_earlier_stage_says_which_cases(tmp_path):
    upstream = {"predicted": [predicted(tmp_path, {"A": (tumor(), tumor()), "B": (tumor(6), tumor())})]}
    run = evaluated(tmp_path, None, None, upstream=upstream, labels=None)
    rows = scores_of(run)
    assert {case: row["patient"] for case, row in rows.items()} == {"A": "patient of A", "B": "patient of B"}
    assert number(rows["A"]["dice/ET"]) == 1.0 > number(rows["B"]["dice/ET"])


def test_references_of_other_cases_do_no_harm_to_an_earlier_stage(tmp_path, folders):
    upstream = {"predicted": [predicted(tmp_path, {"A": (tumor(), None)})]}
    assert list(scores_of(evaluated(tmp_path, None, folders[1], upstream=upstream))) == ["A"]


def test_a_predicted_case_without_a_label_is_recorded(tmp_path):
    upstream = {"predicted": [predicted(tmp_path, {"A": (tumor(), tumor()), "B": (tumor(), None)})]}
    run = evaluated(tmp_path, None, None, upstream=upstream)
    assert json.loads((run.folder / "evaluation.json").read_text())["without_reference"] == ["B"]


def test_predicted_cases_without_any_label_are_refused(tmp_path):
    upstream = {"predicted": [predicted(tmp_path, {"A": (tumor(), None)})]}
    with pytest.raises(CohortError, match=r"evaluate\.references=FOLDER"):
        evaluated(tmp_path, None, None, upstream=upstream)


def test_a_folder_that_lacks_references_of_predicted_cases_is_refused(tmp_path, folders):
    upstream = {"predicted": [predicted(tmp_path, {"A": (tumor(), None), "Z": (tumor(), None)})]}
    with pytest.raises(IncompletePredictionsError, match=r"1 lack one:\n  Z"):
        evaluated(tmp_path, None, folders[1], upstream=upstream)


def test_a_prediction_that_changed_after_its_run_is_refused(tmp_path):
    run = predicted(tmp_path, {"A": (tumor(), tumor())})
    write_map(run.folder / "predictions" / "case0.nii.gz", tumor(6))
    with pytest.raises(CohortError, match="as stage=predict recorded it"):
        evaluated(tmp_path, None, None, upstream={"predicted": [run]})


def test_evaluation_imports_no_model():
    code = "import sys, medexp.stages.evaluate; print({'torch', 'lightning', 'monai', 'mlflow'} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "set()"


def test_real_label_maps_score_one_against_themselves(tmp_path, shared_data):
    raw = shared_data / "brats"
    run = evaluated(tmp_path, raw, raw, num_workers=2)
    columns = summary_of(run)["medexp"]["columns"]
    assert columns["dice/WT"]["mean"] == columns["lesionwise_dice/WT"]["mean"] == 1.0
    assert columns["dice/ET"]["n_undefined"] == 1

"""Evaluation of images: overlap in pixels, objects measured and matched, tables, and a mode without references."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from medexp.errors import CohortError, ConfigurationError, GridMismatchError, IncompletePredictionsError
from medexp.io.tables import number, read_table
from medexp.io.tiff import write_tiff
from tests.synthetic.evaluations import OBJECTS, evaluated, predicted_images, tumor, write_map
from tests.synthetic.wells import SHAPE, disks, write_mask

SETTINGS = {"labels": {"spheroid": 1}, "regions": {}, "lesions": None, "nsd_tolerances_mm": []}

REFERENCES = {
    "A": disks((30, 30, 12), (60, 90, 15)),
    "B": disks((30, 30, 12)),
    "empty": np.zeros(SHAPE, np.uint8),
}
# A: one found exactly, one missed, one that is none; B: shifted by 2; empty: nothing on either side.
PREDICTIONS = {"A": disks((30, 30, 12), (20, 100, 9)), "B": disks((32, 30, 12)), "empty": REFERENCES["empty"]}


@pytest.fixture
def folders(tmp_path):
    for case, mask in REFERENCES.items():
        write_mask(tmp_path / "references" / f"{case}_mask.tif", mask)
    for case, mask in PREDICTIONS.items():
        write_mask(tmp_path / "predictions" / f"{case}_pred_mask.tif", mask, pixel_size_um=0.5)
    return tmp_path / "predictions", tmp_path / "references"


def evaluate(tmp_path, folders, **changes):
    return evaluated(tmp_path / "out", *folders, **{**SETTINGS, **changes})


def table(run, name):
    return read_table(run.folder / name)


def test_overlap_is_per_image_and_null_where_both_are_empty(tmp_path, folders):
    run = evaluate(tmp_path, folders)
    rows = {row["case"]: row for row in table(run, "cases.csv")}
    shared, union = (REFERENCES["B"] & PREDICTIONS["B"]).sum(), (REFERENCES["B"] | PREDICTIONS["B"]).sum()
    assert number(rows["B"]["iou/spheroid"]) == pytest.approx(shared / union)
    assert number(rows["A"]["reference_area_px/spheroid"]) == REFERENCES["A"].sum()
    assert math.isnan(number(rows["empty"]["dice/spheroid"]))
    column = json.loads((run.folder / "summary.json").read_text())["medexp"]["columns"]["dice/spheroid"]
    assert (column["n_used"], column["n_undefined"]) == (2, 1)


def test_objects_are_matched_per_image_and_pooled(tmp_path, folders):
    rows = {row["image"]: row for row in table(evaluate(tmp_path, folders), "instance_eval.csv")}
    counts = {image: [int(row[name]) for name in ("tp", "fp", "fn", "n_pred", "n_ref")] for image, row in rows.items()}
    assert counts == {"A": [1, 1, 1, 2, 2], "B": [1, 0, 0, 1, 1], "empty": [0] * 5, "all images": [2, 1, 1, 3, 3]}
    assert number(rows["all images"]["f1"]) == pytest.approx(2 / 3)
    assert math.isnan(number(rows["empty"]["f1"]))
    assert number(rows["A"]["ap_0.50"]) == pytest.approx(1 / 3)
    assert number(rows["B"]["ap_0.50"]) == 1.0
    assert number(rows["B"]["ap_0.95"]) == 0.0


def test_every_object_is_in_the_tables_with_its_size_in_micrometers(tmp_path, folders):
    run = evaluate(tmp_path, folders)
    everything = table(run, "all_objects.csv")
    assert [row["image"] for row in everything] == ["A", "A", "B"]
    assert [row["object_id"] for row in table(run, "per_image/A_objects.csv")] == ["1", "2"]
    assert number(everything[2]["area"]) == PREDICTIONS["B"].sum()
    assert number(everything[2]["area_um2"]) == pytest.approx(PREDICTIONS["B"].sum() * 0.25)
    assert table(run, "per_image/empty_objects.csv") == []
    assert [row["image"] for row in table(run, "reference_objects.csv")] == ["A", "A", "B"]


def test_the_summary_has_every_image_and_all_of_them(tmp_path, folders):
    rows = {row["image"]: row for row in table(evaluate(tmp_path, folders), "summary.csv")}
    assert {image: row["num_objects"] for image, row in rows.items()} == {
        "A": "2",
        "B": "1",
        "empty": "0",
        "all images": "3",
    }
    areas = [number(row["area"]) for row in table(evaluate(tmp_path, folders), "all_objects.csv")]
    assert number(rows["all images"]["area_mean"]) == pytest.approx(np.mean(areas))
    assert rows["empty"]["area_mean"] == ""


def test_small_objects_count_on_neither_side(tmp_path, folders):
    run = evaluate(tmp_path, folders, objects=replace(OBJECTS, min_area_px=400))
    rows = {row["image"]: row for row in table(run, "instance_eval.csv")}
    assert [rows["A"][name] for name in ("tp", "fp", "fn")] == ["1", "0", "1"]


def test_the_scores_of_the_run_are_dice_and_f1(tmp_path, folders):
    result = evaluate(tmp_path, folders).result
    assert result["scores"]["object_f1/spheroid"] == pytest.approx((0.5 + 1.0) / 2)
    assert any("object F1" in line for line in result["lines"])
    assert not any("HD95" in line for line in result["lines"])


def test_histograms_and_counts_are_a_picture(tmp_path, folders):
    assert (evaluate(tmp_path, folders).folder / "objects.png").read_bytes().startswith(b"\x89PNG")


def test_without_references_objects_are_measured_and_nothing_is_scored(tmp_path, folders):
    run = evaluated(tmp_path / "out", folders[0], None, **SETTINGS, measure_only=True)
    names = {path.name for path in run.folder.iterdir() if path.suffix in {".csv", ".png"}}
    assert names == {"all_objects.csv", "summary.csv", "objects.png"}
    assert len(table(run, "all_objects.csv")) == 3
    assert run.result["scores"] == {"num_objects/spheroid": 3.0}


def test_measures_are_the_same_with_and_without_references(tmp_path, folders):
    both = evaluate(tmp_path, folders)
    alone = evaluated(tmp_path / "alone", folders[0], None, **SETTINGS, measure_only=True)
    assert table(both, "all_objects.csv") == table(alone, "all_objects.csv")


def test_references_beside_measure_only_are_refused(tmp_path, folders):
    with pytest.raises(ConfigurationError, match="evaluate.measure_only"):
        evaluate(tmp_path, folders, measure_only=True)


def test_predictions_of_an_earlier_run_are_measured_and_scored(tmp_path):
    upstream = {"predicted": [predicted_images(tmp_path, {"A": (PREDICTIONS["A"], REFERENCES["A"])})]}
    run = evaluated(tmp_path, None, None, upstream=upstream, **{**SETTINGS, "labels": None})
    assert [row["image"] for row in table(run, "instance_eval.csv")] == ["A", "all images"]
    alone = evaluated(tmp_path / "b", None, None, upstream=upstream, **{**SETTINGS, "labels": None}, measure_only=True)
    assert len(table(alone, "all_objects.csv")) == 2


def test_missing_and_extra_predictions_are_named(tmp_path, folders):
    (folders[0] / "B_pred_mask.tif").unlink()
    write_mask(folders[0] / "stranger.tif", PREDICTIONS["A"])
    with pytest.raises(IncompletePredictionsError, match=r"without a prediction:\n  B(.|\n)*reference:\n  stranger"):
        evaluate(tmp_path, folders)


def test_all_bad_images_are_named_at_once(tmp_path, folders):
    (folders[0] / "A_pred_mask.tif").write_bytes(b"II*\0nothing")
    write_tiff(folders[0] / "B_pred_mask.tif", np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint8).reshape(SHAPE))
    with pytest.raises(CohortError) as caught:
        evaluate(tmp_path, folders)
    assert "A: " in str(caught.value)
    assert "B_pred_mask.tif: expected a mask of two values" in str(caught.value)
    with pytest.raises(CohortError, match=r"2 cannot(.|\n)*A: (.|\n)*B: "):
        evaluated(tmp_path / "alone", folders[0], None, **SETTINGS, measure_only=True)


def test_images_of_another_size_are_refused(tmp_path, folders):
    write_mask(folders[0] / "A_pred_mask.tif", PREDICTIONS["A"][:-1])
    with pytest.raises(GridMismatchError, match=r"A: .*expected images of one size"):
        evaluate(tmp_path, folders)


def test_an_image_and_a_volume_are_not_compared(tmp_path, folders):
    (folders[0] / "A_pred_mask.tif").unlink()
    write_map(folders[0] / "A.nii.gz", tumor())
    with pytest.raises(CohortError, match="expected two images or two volumes"):
        evaluate(tmp_path, folders)


def test_volumes_have_no_objects_to_measure(tmp_path):
    write_map(tmp_path / "predictions" / "A.nii.gz", tumor())
    with pytest.raises(CohortError, match="expected an image"):
        evaluated(tmp_path, tmp_path / "predictions", None, **SETTINGS, measure_only=True)


def test_a_white_is_zero_reference_means_what_it_shows(tmp_path, folders):
    """The same object in a file that stores it as 0: readers that ignore the tag would see the background."""
    import tifffile

    path = folders[1] / "A_mask.tif"
    path.unlink()
    tifffile.imwrite(path, REFERENCES["A"] == 0, photometric="miniswhite")
    rows = {row["case"]: row for row in table(evaluate(tmp_path, folders), "cases.csv")}
    assert number(rows["A"]["reference_area_px/spheroid"]) == REFERENCES["A"].sum()


def test_a_run_that_was_changed_since_is_refused(tmp_path):
    source = predicted_images(tmp_path, {"A": (PREDICTIONS["A"], REFERENCES["A"])})
    write_mask(source.folder / "predictions" / "A_pred_mask.tif", PREDICTIONS["B"])
    for changes in ({}, {"measure_only": True}):
        with pytest.raises(CohortError, match="expected sha256"):
            evaluated(tmp_path / str(len(changes)), None, None, upstream={"predicted": [source]}, **SETTINGS, **changes)

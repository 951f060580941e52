"""Spheroids from nothing to corrected masks: mock, prepare, train, predict, evaluate, report, review, prepare again."""

import csv
import json

import numpy as np
import pytest

from medexp.io.tiff import read_mask, write_mask_tiff
from medexp.run import main
from medexp.runs.lineage import all_runs

SMALL = [
    "dataset=spheroids", "model=spheroid_unet", "trainer=debug", "hardware=cpu", "hardware.num_workers=0",
    "mock.num_patients=4", "mock.shape=[128,160]", "dataset.patch_size=[64,64]", "dataset.patches_per_image=2",
    "+model.network.encoder_depth=3", "model.network.decoder_channels=[16,8,8]", "predict.stage=1",
    "predict.save_probabilities=true", "tracking.enabled=false", "evaluate.objects.min_area_px=20",
]  # fmt: skip
STAGES = ("mock", "prepare", "1", "predict", "evaluate", "report")


def line_in(folder):
    return [*SMALL, f"output_dir={folder}", f"dataset.roots=[{folder}/mock/spheroids]"]


def runs_of(folder):
    return {run.record["stage"]: run for run in all_runs(folder)}


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The output folder after every stage ran once, each by its own command."""
    folder = tmp_path_factory.mktemp("spheroids")
    for stage in STAGES:
        assert main([*line_in(folder), f"stage={stage}"]) == 0, stage
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    return runs_of(folder)


def test_predictions_are_masks_of_0_and_255_with_their_probabilities(runs):
    import tifffile

    manifest = json.loads(runs["predict"].output("predictions").path.read_text())
    assert manifest["cases"]
    for entry in manifest["cases"]:
        path = runs["predict"].folder / entry["prediction"]
        with tifffile.TiffFile(path) as file:
            assert file.pages[0].compression.name == "LZW"
            pixels = file.asarray()
        assert (path.name, pixels.dtype) == (f"{entry['case']}_pred_mask.tif", np.uint8)
        assert set(np.unique(pixels)) <= {0, 255}
        probability = tifffile.imread(path.with_name(f"{entry['case']}_pred_prob.tif"))
        assert (probability.dtype, probability.shape) == (np.float32, pixels.shape)
        np.testing.assert_array_equal(pixels > 0, probability > 0.5)


def test_objects_of_predictions_and_references_are_in_the_tables(runs):
    folder = runs["evaluate"].folder
    instances = {row["image"]: row for row in rows_of(folder / "instance_eval.csv")}
    predicted = {row["case"] for row in json.loads((runs["predict"].folder / "predictions.json").read_text())["cases"]}
    assert set(instances) == predicted | {"all images"}
    assert len(rows_of(folder / "reference_objects.csv")) == int(instances["all images"]["n_ref"]) > 0
    assert len(rows_of(folder / "all_objects.csv")) == int(instances["all images"]["n_pred"])
    assert all((folder / "per_image" / f"{image}_objects.csv").is_file() for image in predicted)


def test_the_pixel_size_of_the_images_reaches_the_measures(runs):
    row = rows_of(runs["evaluate"].folder / "reference_objects.csv")[0]
    assert float(row["equivalent_diameter_um"]) / float(row["equivalent_diameter"]) == pytest.approx(
        np.sqrt(float(row["area_um2"]) / float(row["area"]))
    )


def test_the_report_is_one_offline_page_with_objects(runs):
    page = runs["report"].output("report").path.read_text()
    assert 'id="objects"' in page
    assert "http" not in page


def test_a_corrected_mask_goes_out_and_back_and_into_the_next_preparation(folder, runs):
    assert main([*line_in(folder), "stage=view", "view.action=export", "view.reviewer=ada"]) == 0
    exported = next(folder.glob("spheroids/view-*/export"))
    name = sorted(path.stem.removesuffix("_mask") for path in (exported / "masks").iterdir())[0]
    path = exported / "masks" / f"{name}_mask.tif"
    mask = read_mask(path).array
    mask[5:40, 5:40] = 1
    write_mask_tiff(path, mask)
    line = [*line_in(folder), "stage=view", "view.action=import", f"view.corrected={exported}", "view.reviewer=ada"]
    assert main(line) == 0
    imported = next(folder.glob("spheroids/view-*/corrections"))
    [record] = [one for one in json.loads((imported / "corrections.json").read_text())["masks"] if one["name"] == name]
    assert record["from_run"] == runs["predict"].identity
    assert main([*line_in(folder), "stage=prepare", f"dataset.find_cases.corrections=[{imported}]"]) == 0
    manifests = [json.loads(path.read_text()) for path in folder.glob("spheroids/prepare-*/manifest.json")]
    labels = {case["label"]["path"] for manifest in manifests for case in manifest["cases"] if case["name"] == name}
    assert labels == {str(folder / f"mock/spheroids/masks/{name}_mask.tif"), str(imported / f"{name}_mask.tif")}
    [corrected] = [case for manifest in manifests for case in manifest["cases"] if case.get("corrected_by")
                   and case["name"] == name]  # fmt: skip
    assert corrected["corrected_by"] == "ada"
    assert corrected["label_voxels"]["spheroid"] == np.count_nonzero(mask)


def test_a_film_of_the_review_needs_no_screen(folder, runs):
    assert main([*line_in(folder), "stage=view", "view.action=video", "view.formats=[gif]", "view.interval_s=0.1"]) == 0
    assert next(folder.glob("spheroids/view-*/review.gif")).read_bytes().startswith(b"GIF8")


def test_predictions_are_measured_without_references(folder, runs):
    assert main([*line_in(folder), "stage=evaluate", "evaluate.measure_only=true"]) == 0
    measured = list(folder.glob("spheroids/evaluate-*/all_objects.csv"))
    assert len(measured) == 2
    assert measured[0].read_bytes() == measured[1].read_bytes()


@pytest.mark.slow
def test_leave_one_out_is_a_sweep_over_folds(tmp_path):
    line = [*line_in(tmp_path), "dataset.split=leave_one_out"]
    assert main([*line, "stage=mock"]) == 0
    assert main(["-m", *line, "stage=prepare,1,predict,evaluate", "fold=0,1"]) == 0
    evaluated = [run for run in all_runs(tmp_path) if run.record["stage"] == "evaluate"]
    assert len(evaluated) == 2
    cases = [{row["case"] for row in rows_of(run.folder / "cases.csv")} for run in evaluated]
    assert all(cases)
    assert not cases[0] & cases[1]
    assert main([*line, "stage=compare", "compare.metrics=[mean_dice,object_f1/spheroid]"]) == 0


@pytest.mark.slow
def test_real_images_go_the_whole_way(shared_data, tmp_path):
    line = [
        "experiment=spheroids_static_dynamic", f"dataset.roots=[{shared_data / 'spheroids'}]", "hardware=cpu",
        "trainer=debug", "predict.stage=1", f"output_dir={tmp_path}",
    ]  # fmt: skip
    assert main(["-m", *line, "stage=prepare,1,predict,evaluate,report"]) == 0
    rows = rows_of(next(tmp_path.glob("spheroids/evaluate-*/cases.csv")))
    assert len(rows) == 7
    assert all(float(row["reference_area_px/spheroid"]) > 0 for row in rows)

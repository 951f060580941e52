"""BraTS from nothing to a report: mock, prepare, two training stages, predict, evaluate, report."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from medexp.run import main
from medexp.runs.files import sha256_of
from medexp.runs.lineage import all_runs, ancestry
from tests.applications.conftest import SMALL

STAGES = ("mock", "prepare", "1", "2", "predict", "evaluate", "report")


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_stage_finished(demo_runs):
    assert {stage: run.state for stage, run in demo_runs.items()} == dict.fromkeys(STAGES, "finished")


def test_the_report_leads_back_to_the_data(demo_runs):
    stages = [run.record["stage"] for run in ancestry([demo_runs["report"]])]
    assert set(stages) == {"report", "evaluate", "predict", "2", "1", "prepare"}


def test_stage_2_started_from_the_best_weights_of_stage_1(demo_runs):
    best = demo_runs["1"].output("best")
    assert sha256_of(best.path) == best.sha256
    [source] = demo_runs["2"].record["inputs"]["initial"]
    assert source["identity"] == demo_runs["1"].identity
    assert source["digest"] == demo_runs["1"].digest


def test_frozen_weights_are_those_that_stage_1_was_given(demo_runs):
    torch = pytest.importorskip("torch")
    first, second = (
        torch.load(demo_runs[stage].output("best").path, map_location="cpu", weights_only=True)["state_dict"]
        for stage in ("1", "2")
    )
    assert first.keys() == second.keys()
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert any("convInit" in name for name in moved)


def test_predictions_lie_on_the_grid_of_their_sources(demo_runs):
    manifest = json.loads(demo_runs["predict"].output("predictions").path.read_text())
    assert manifest["cases"]
    for entry in manifest["cases"]:
        prediction = nib.load(demo_runs["predict"].folder / entry["prediction"])
        reference = nib.load(entry["reference"])
        assert prediction.shape == reference.shape
        np.testing.assert_allclose(prediction.affine, reference.affine)
        assert set(np.unique(np.asarray(prediction.dataobj))) <= {0, 1, 2, 3, 4}


def test_every_predicted_case_is_scored(demo_runs):
    manifest = json.loads(demo_runs["predict"].output("predictions").path.read_text())
    scored = rows_of(demo_runs["evaluate"].folder / "cases.csv")
    assert {row["case"] for row in scored} == {entry["case"] for entry in manifest["cases"]}


def test_the_report_is_one_offline_page(demo_runs):
    page = demo_runs["report"].output("report").path.read_text()
    assert "<img" in page
    for asset in ('src="http', "src='http", 'href="http', "url(http", "@import"):
        assert asset not in page


def test_mlflow_shows_one_finished_run_per_stage(demo_folder, demo_runs):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{demo_folder}/mlflow.db")
    experiment = client.get_experiment_by_name("demo")
    runs = client.search_runs([experiment.experiment_id])
    children = [run for run in runs if "medexp.kind" not in run.data.tags]
    (parent,) = [run for run in runs if run.data.tags.get("medexp.kind") == "sweep"]
    assert sorted(run.data.tags["medexp.stage"] for run in children) == sorted(STAGES)
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_the_same_line_again_redoes_nothing(demo_folder, demo_runs):
    before = {run.folder: run.read_state() for run in demo_runs.values()}
    assert main([*SMALL, f"output_dir={demo_folder}"]) == 0
    assert {run.folder: run.read_state() for run in all_runs(demo_folder)} == before


def test_stage_2_without_stage_1_prints_the_command_for_it(demo_folder, capsys):
    line = [text for text in SMALL if text != "experiment=demo"]
    status = main(["experiment=demo", *line, f"output_dir={demo_folder}", "seed=7", "stage=2", "hydra.mode=RUN"])
    assert status == 1
    message = capsys.readouterr().err
    assert "expected a finished stage 1" in message
    assert "stage='1'" in message


def test_weights_that_trained_on_the_validation_cases_are_refused(demo_folder, capsys):
    line = [*SMALL, f"output_dir={demo_folder}", "hydra.mode=RUN"]
    assert main([*line, "stage=1", "fold=1"]) == 0
    assert main([*line, "stage=2", "upstream.overrides=[fold=1]"]) == 1
    message = capsys.readouterr().err
    assert "expected the training cases of 1-monai_ft-fold1-seed0" in message
    assert "are of patient" in message


def test_a_fold_out_of_range_is_named(demo_folder, capsys):
    assert main([*SMALL, f"output_dir={demo_folder}", "fold=2", "stage=1", "hydra.mode=RUN"]) != 0
    assert "fold" in capsys.readouterr().err


@pytest.mark.slow
def test_real_files_go_the_whole_way(shared_data, tmp_path):
    line = [
        "dataset=brats", f"dataset.roots=[{shared_data / 'brats'}]", "dataset.num_folds=2", "model=monai_ft",
        "model.weights=null", "model.network.init_filters=8", "dataset.patch_size=[64,64,64]", "trainer=debug",
        "hardware=cpu", f"output_dir={tmp_path}",
    ]  # fmt: skip
    assert main(["-m", *line, "stage=prepare,1,2,predict,evaluate,report"]) == 0
    runs = {run.record["stage"]: run for run in all_runs(tmp_path)}
    [row] = rows_of(runs["evaluate"].folder / "cases.csv")
    assert row["case"].startswith("BraTS-TCGA-")

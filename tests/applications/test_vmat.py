"""VMAT from nothing to a DICOM dose: mock, prepare, both training stages, predict, evaluate, report."""

import csv
import json

import nibabel as nib
import numpy as np
import pydicom
import pytest

from medexp.io.dicom_rt import read_rtdose
from medexp.run import main
from medexp.runs.lineage import all_runs, ancestry

STAGES = ("mock", "prepare", "1", "2", "predict", "evaluate", "report")
TINY = [
    "dataset=vmat",
    "model=dose_unet",
    "model.network.base_features=8",
    "dataset.patch_size=[32,32,32]",
    "dataset.grid.inplane_size=40",
    "dataset.grid.min_slices=32",
    "mock.num_patients=4",
    "mock.shape=[40,40,32]",
    "trainer=debug",
    "hardware=cpu",
    "hardware.num_workers=0",
    "tracking.enabled=false",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The finished runs by stage."""
    folder = tmp_path_factory.mktemp("vmat")
    line = [*TINY, f"output_dir={folder}", f"mock.root={folder / 'raw'}", f"dataset.roots=[{folder / 'raw'}]"]
    assert main(["-m", *line, f"stage={','.join(STAGES)}"]) == 0
    return {str(run.record["stage"]): run for run in all_runs(folder)}


def predicted(runs):
    return json.loads(runs["predict"].output("predictions").path.read_text())["cases"]


def test_every_stage_finished(runs):
    assert {stage: run.state for stage, run in runs.items()} == dict.fromkeys(STAGES, "finished")


def test_the_report_leads_back_to_the_patients(runs):
    stages = {run.record["stage"] for run in ancestry([runs["report"]])}
    assert stages == {"report", "evaluate", "predict", "2", "1", "prepare"}


def test_the_second_stage_trains_on_what_a_planner_asks_for(runs):
    header = (runs["2"].folder / "history.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss/error", "train/loss/dvh", "train/loss/targets"} <= set(header)


def test_a_predicted_dose_is_the_same_in_every_format_and_belongs_to_its_plan(runs):
    for entry in predicted(runs):
        folder = runs["predict"].folder
        dose_gy, affine = read_rtdose(folder / entry["rtdose"])
        image = nib.load(folder / entry["nifti"])
        assert np.allclose(np.asarray(image.dataobj), dose_gy, atol=0.01)
        assert np.allclose(image.affine, affine, atol=1e-3)
        written = pydicom.dcmread(folder / entry["rtdose"], stop_before_pixels=True)
        plan = pydicom.dcmread(entry["images"]["RTPLAN"], stop_before_pixels=True)
        assert written.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
        assert written.FrameOfReferenceUID == plan.FrameOfReferenceUID
        assert written.PatientID == entry["case"]


def test_every_predicted_case_is_scored_and_its_limits_are_checked(runs):
    folder = runs["evaluate"].folder
    cases = {entry["case"] for entry in predicted(runs)}
    for table in ("cases.csv", "dvh.csv", "constraints.csv"):
        with (folder / table).open(newline="") as stream:
            assert {row["case"] for row in csv.DictReader(stream)} == cases
    report = json.loads((folder / "dose_report.json").read_text())
    assert {case["case_id"] for case in report["per_case_results"]} == cases


def test_no_output_names_a_patient(runs):
    raw = runs["mock"].folder.parent.parent / "raw"
    plan = pydicom.dcmread(next(raw.rglob("RP.dcm")), stop_before_pixels=True)
    for run in runs.values():
        for path in (path for path in run.folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            assert str(plan.PatientName).encode() not in content, path
            assert str(plan.PatientID).encode() not in content, path

"""The hippocampus from nothing to a report: one training stage, whole crops, no zero background."""

import csv

import pytest

from medexp.run import main
from medexp.runs.lineage import all_runs, ancestry
from tests.synthetic.lines import TINY_UNET3D

pytestmark = pytest.mark.slow  # half a minute

STAGES = ("mock", "prepare", "1", "predict", "evaluate", "report")
TINY = ["dataset=hippocampus", "mock.shape=[24,28,20]", *TINY_UNET3D]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hippocampus")
    assert main(["-m", *TINY, f"output_dir={folder}", f"stage={','.join(STAGES)}"]) == 0
    return folder


@pytest.fixture(scope="module")
def runs(output):
    return {run.record["stage"]: run for run in all_runs(output)}


def test_every_stage_finished(runs):
    assert {stage: run.state for stage, run in runs.items()} == dict.fromkeys(STAGES, "finished")


def test_every_validation_case_is_scored_by_label_and_region(runs):
    with (runs["evaluate"].folder / "cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2
    assert {"dice/anterior", "dice/posterior", "dice/hippocampus", "hd95_mm/anterior"} <= set(rows[0])
    assert all(0.0 <= float(row["dice/hippocampus"]) <= 1.0 for row in rows)


def test_the_report_leads_back_to_the_data(runs):
    stages = {run.record["stage"] for run in ancestry([runs["report"]])}
    assert stages == {"report", "evaluate", "predict", "1", "prepare"}
    assert "<img" in runs["report"].output("report").path.read_text()


def test_a_second_stage_is_refused_by_name(output, capsys):
    assert main([*TINY, f"output_dir={output}", "stage=2"]) == 2
    assert "model unet3d has no stage 2" in capsys.readouterr().err

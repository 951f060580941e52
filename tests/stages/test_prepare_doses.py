"""stage=mock and stage=prepare of doses by their commands: DICOM-RT and OpenKBP, good patients and a bad one."""

import json

import pytest

from medexp.run import main
from medexp.runs.lineage import all_runs
from tests.synthetic.corrupt_dicom import put

COMMON = ["hardware=cpu", "hardware.num_workers=1", "tracking.enabled=false"]
VMAT = [
    *COMMON, "dataset=vmat", "mock.num_patients=3", "mock.shape=[40,40,32]", "dataset.grid.inplane_size=40",
    "dataset.grid.min_slices=32", "dataset.patch_size=[32,32,32]",
]  # fmt: skip
OPENKBP = [*COMMON, "dataset=openkbp", "mock.num_patients=3"]


def line_in(folder, settings):
    name = settings[len(COMMON)].removeprefix("dataset=")
    return [*settings, f"output_dir={folder}", f"dataset.roots=[{folder}/mock/{name}]"]


def run_of(folder, stage):
    [run] = [run for run in all_runs(folder) if run.record["stage"] == stage]
    return run


@pytest.mark.parametrize(
    ("settings", "ending", "least"), [(VMAT, "*.dcm", 3 * 35), (OPENKBP, "*.csv", 3 * 10)], ids=["vmat", "openkbp"]
)
def test_mock_patients_are_prepared(tmp_path, settings, ending, least, capsys):
    for stage in ("mock", "prepare"):
        assert main([*line_in(tmp_path, settings), f"stage={stage}"]) == 0, stage
    files = list((tmp_path / "mock").rglob(ending))
    assert len(files) >= least
    assert f"{len(files)} files in" in capsys.readouterr().out
    run = run_of(tmp_path, "prepare")
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert manifest["kind"] == "doses"
    assert manifest["excluded"] == []
    assert [len(case["constraints"]) for case in manifest["cases"]] == [13] * 3
    assert all((run.folder / case["reference"]["path"]).is_file() for case in manifest["cases"])
    sides = json.loads((run.folder / "splits_final.json").read_text())
    assert [len(sides[0][side]) for side in ("train", "val")] == [1, 1]
    assert run.output("batch_summary").path.is_file()


def test_a_bad_patient_is_in_the_exit_status_and_the_others_go_on(tmp_path, capfd):
    line = line_in(tmp_path, [word.replace("num_patients=3", "num_patients=4") for word in VMAT])
    assert main([*line, "stage=mock"]) == 0
    put("dose", DoseUnits="RELATIVE")({"dose": tmp_path / "mock/vmat/patient_002/RD.dcm"})
    assert main([*line, "stage=prepare"]) == 1
    said = capfd.readouterr()
    assert "patient_002" in said.err + said.out
    assert "expected DoseUnits GY, got 'RELATIVE'" in said.err + said.out
    assert main([*line, "stage=prepare", "prepare.skip_bad_cases=true"]) == 0
    assert "left out: 1" in capfd.readouterr().out

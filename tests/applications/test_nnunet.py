"""Any nnU-Net raw folder: read, prepared, predicted and scored; and the way back into nnU-Net's layout."""

import json

import pytest

from medexp.run import main
from medexp.runs.lineage import all_runs
from tests.synthetic.lines import TINY_UNET3D

pytestmark = pytest.mark.slow  # half a minute

TINY = ["dataset=nnunet", "mock.shape=[40,44,36]", *TINY_UNET3D]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nnunet")
    assert main(["-m", *TINY, f"output_dir={folder}", "stage=mock,prepare,1,predict,evaluate,report"]) == 0
    return folder


def runs_of(output, stage):
    return [run for run in all_runs(output) if run.record["stage"] == stage]


def test_names_come_from_the_folder_and_every_stage_finished(output):
    assert {run.state for run in all_runs(output)} == {"finished"}
    [prepared] = runs_of(output, "prepare")
    manifest = json.loads((prepared.folder / "manifest.json").read_text())
    described = json.loads((output / "mock" / "nnunet" / "dataset.json").read_text())
    assert manifest["channels"] == list(described["channel_names"].values())
    assert manifest["labels"] == {name: value for name, value in described["labels"].items() if value}


def test_another_place_for_the_layout_is_written_and_the_training_stays(output, capsys):
    [first], [training] = runs_of(output, "prepare"), runs_of(output, "1")
    source = json.loads((output / "mock" / "nnunet" / "dataset.json").read_text())
    for name in ("raw_a", "raw_b", "raw_b"):
        line = [*TINY, f"output_dir={output}", "stage=prepare", f"prepare.nnunet_raw={output / name}"]
        assert main(line) == 0
    for name in ("raw_a", "raw_b"):
        described = json.loads((output / name / "Dataset501_nnunet" / "dataset.json").read_text())
        assert described["numTraining"] == source["numTraining"]
    attempts = runs_of(output, "prepare")
    assert [run.folder.name for run in attempts] == [f"{first.folder.name}{tail}" for tail in ("", ".2", ".3")]
    assert len({run.digest for run in attempts}) == 1
    capsys.readouterr()
    assert main([*TINY, f"output_dir={output}", "stage=1"]) == 0
    assert "finished before" in capsys.readouterr().out
    assert [run.folder for run in runs_of(output, "1")] == [training.folder]


def test_a_layout_that_was_removed_is_written_again(output):
    place = output / "raw_a" / "Dataset501_nnunet"
    line = [*TINY, f"output_dir={output}", "stage=prepare", f"prepare.nnunet_raw={output / 'raw_a'}"]
    assert main(line) == 0
    (place / "dataset.json").unlink()
    assert main(line) == 0
    assert (place / "dataset.json").exists()


def test_predictions_of_others_are_scored_with_the_labels_of_the_dataset_json_above(output, tmp_path):
    [predicted] = runs_of(output, "predict")
    labels = output / "mock" / "nnunet" / "labelsTr"
    references = tmp_path / "raw" / "labelsTr"
    references.mkdir(parents=True)
    for path in (predicted.folder / "predictions").glob("*.nii.gz"):
        (references / path.name).write_bytes((labels / path.name).read_bytes())
    (tmp_path / "raw" / "dataset.json").write_bytes((output / "mock" / "nnunet" / "dataset.json").read_bytes())
    line = [
        *TINY,
        f"output_dir={output}",
        "stage=evaluate",
        f"evaluate.predictions={predicted.folder / 'predictions'}",
        f"evaluate.references={references}",
    ]
    assert main(line) == 0
    before = len(runs_of(output, "evaluate"))
    assert main(line) == 0
    assert len(runs_of(output, "evaluate")) == before
    described = json.loads((tmp_path / "raw" / "dataset.json").read_text())
    renamed = {f"{name}_2" if value == 1 else name: value for name, value in described["labels"].items()}
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps({**described, "labels": renamed}))
    assert main(line) == 0
    assert len(runs_of(output, "evaluate")) == before + 1

"""Writing nnU-Net's raw layout."""

import errno
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from medexp.errors import ConfigurationError, StorageError
from medexp.preparation.brats import find_cases
from medexp.preparation.nnunet import RawLayout
from medexp.preparation.nnunet import find_cases as find_nnunet
from tests.synthetic.brats import CHANNELS, LABELS, PATIENT_PATTERN, make_brats

NNUNET = Path(__file__).parents[2] / ".venv-nnunet" / "bin" / "python"
FIRST = "BraTS-GLI-00001-100"


@pytest.fixture
def cases(tmp_path):
    root = make_brats(tmp_path / "raw")
    found = find_cases([root], channels=CHANNELS, labels=LABELS, patient_pattern=PATIENT_PATTERN).cases
    return [*found[:3], replace(found[3], role="test")]


@pytest.fixture
def write(tmp_path, cases):
    def run(*, clean=False, link="hard", cases=cases, root=None, channels=CHANNELS):
        layout = RawLayout(root, 501, link, clean)
        return layout.write(cases, name="brats", channels=channels, labels=LABELS, default_root=tmp_path / "nnunet")

    return run


def test_the_layout_has_nnunets_folders_names_and_description(write):
    folder = write()
    assert folder.name == "Dataset501_brats"
    assert len(list((folder / "imagesTr").iterdir())) == 12
    assert len(list((folder / "labelsTr").iterdir())) == 3
    assert len(list((folder / "imagesTs").iterdir())) == 4
    assert [path.name for path in (folder / "labelsTs").iterdir()] == ["BraTS-GLI-00003-100.nii.gz"]
    record = json.loads((folder / "dataset.json").read_text())
    assert record["channel_names"] == {"0": "t1c", "1": "t1n", "2": "t2w", "3": "t2f"}
    assert record["labels"] == {"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}
    assert record["numTraining"] == 3
    assert record["file_ending"] == ".nii.gz"
    assert record["test_labels_available"] is True


def test_channels_are_numbered_in_the_configured_order(write, cases):
    folder = write(channels=CHANNELS[::-1])
    assert (folder / "imagesTr" / f"{FIRST}_0000.nii.gz").samefile(cases[0].images["t2f"])


@pytest.mark.parametrize(
    ("link", "same_inode", "is_link"), [("hard", True, False), ("symbolic", True, True), ("copy", False, False)]
)
def test_files_are_linked_or_copied(write, cases, link, same_inode, is_link):
    place = write(link=link) / "labelsTr" / f"{FIRST}.nii.gz"
    assert place.read_bytes() == cases[0].label.read_bytes()
    assert place.samefile(cases[0].label) == same_inode
    assert place.is_symlink() == is_link


def test_a_copy_is_made_where_links_are_impossible(write, cases, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    place = write() / "labelsTr" / f"{FIRST}.nii.gz"
    assert place.read_bytes() == cases[0].label.read_bytes()
    assert not place.samefile(cases[0].label)


def test_a_full_disk_is_an_error_that_names_the_file(write, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StorageError, match=r"imagesTr.*No space"):
        write()


def test_writing_again_changes_nothing(write):
    folder = write()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}
    assert write() == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")} == before


def test_an_incomplete_folder_is_completed(write):
    folder = write()
    (folder / "labelsTr" / f"{FIRST}.nii.gz").unlink()
    write()
    assert (folder / "labelsTr" / f"{FIRST}.nii.gz").exists()


def test_another_cohort_needs_clean(write, cases):
    write()
    with pytest.raises(ConfigurationError, match=r"prepare\.clean=true"):
        write(cases=cases[:2])
    folder = write(cases=cases[:2], clean=True)
    assert len(list((folder / "labelsTr").iterdir())) == 2


@pytest.mark.parametrize("clean", [False, True])
def test_a_folder_of_somebody_elses_is_never_touched(write, tmp_path, clean):
    foreign = tmp_path / "nnunet" / "Dataset501_brats" / "imagesTr"
    foreign.mkdir(parents=True)
    (foreign / "theirs.nii.gz").write_bytes(b"data")
    with pytest.raises(ConfigurationError, match="another's"):
        write(clean=clean)
    assert (foreign / "theirs.nii.gz").read_bytes() == b"data"


def test_a_root_can_be_named(write, tmp_path):
    assert write(root=tmp_path / "elsewhere").parent == tmp_path / "elsewhere"


def test_what_is_written_can_be_read_again(write):
    cohort = find_nnunet([write()], channels=None, labels=None, patient_pattern=PATIENT_PATTERN)
    assert cohort.channels == CHANNELS
    assert cohort.labels == LABELS
    assert [case.role for case in cohort.cases] == ["train", "train", "train", "test"]
    assert not any(case.problems for case in cohort.cases)


@pytest.mark.parametrize("number", [0, 1000])
def test_an_impossible_number_names_its_key(number):
    with pytest.raises(ConfigurationError, match=r"prepare\.nnunet_id"):
        RawLayout(None, number, "hard", clean=False)


@pytest.mark.slow
def test_nnunets_own_integrity_check_accepts_the_layout(write):
    if not NNUNET.exists():
        pytest.skip("nnU-Net is not installed: make nnunet puts it into .venv-nnunet")
    code = (
        "import sys\n"
        "from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity\n"
        "verify_dataset_integrity(sys.argv[1], num_processes=1)\n"
    )
    command = [NNUNET, "-c", "if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in code.splitlines())]
    done = subprocess.run([*command, str(write())], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verify_dataset_integrity Done" in done.stdout
    assert "WARNING" not in done.stdout

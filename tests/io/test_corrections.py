"""Corrected masks are what was imported, or the folder is refused."""

import pytest

from medexp.errors import CohortError, ManifestError
from medexp.io.corrections import read_corrections
from medexp.runs.files import sha256_of, write_json
from tests.synthetic.wells import disks, write_mask


@pytest.fixture
def folder(tmp_path):
    path = write_mask(tmp_path / "A_mask.tif", disks((30, 30, 9)))
    write_json(tmp_path / "corrections.json", {"masks": [{"name": "A", "sha256": sha256_of(path), "reviewer": "ada"}]})
    return tmp_path


def test_a_recorded_mask_comes_with_its_record(folder):
    assert read_corrections(folder)["A"].record["reviewer"] == "ada"


def test_a_folder_made_by_hand_has_no_record(folder):
    (folder / "corrections.json").unlink()
    found = read_corrections(folder)
    assert (found["A"].path.name, dict(found["A"].record)) == ("A_mask.tif", {})


def test_changed_and_missing_masks_are_named(folder):
    write_mask(folder / "A_mask.tif", disks((30, 30, 10)))
    with pytest.raises(CohortError, match=r"A: A_mask\.tif has changed"):
        read_corrections(folder)
    (folder / "A_mask.tif").unlink()
    with pytest.raises(CohortError, match="A: is missing"):
        read_corrections(folder)


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(CohortError, match="expected a folder of corrected masks"):
        read_corrections(tmp_path / "nowhere")


def test_another_record_is_refused(folder):
    write_json(folder / "corrections.json", {"cases": []})
    with pytest.raises(ManifestError, match="expected a list 'masks'"):
        read_corrections(folder)

"""Masks go out and come back: every bad one is named, nothing is stored by halves, and the record tells all."""

import json

import numpy as np
import pytest

from medexp.errors import CohortError
from medexp.io.corrections import read_corrections
from medexp.io.tiff import read_mask, write_tiff
from medexp.runs.files import sha256_of
from medexp.viewers.corrections import Origin, export_for_correction, import_corrections
from medexp.viewers.slides import Slide
from tests.synthetic.wells import SHAPE, disks, write_image, write_mask

ORIGIN = Origin("ada", "f" * 64)
PREDICTED = {"A_1": disks((30, 30, 12)), "B (2)": disks((60, 90, 15))}
CORRECTED = disks((30, 30, 12), (60, 90, 15))


@pytest.fixture
def reviewed(tmp_path):
    return [
        Slide(name, write_image(tmp_path / "raw" / f"{name}.tif", mask), write_mask(tmp_path / f"{name}_p.tif", mask))
        for name, mask in PREDICTED.items()
    ]


def returned(tmp_path, slides, **masks):
    """Return an exported folder in which some masks were redrawn."""
    folder = export_for_correction(tmp_path / "export", slides, ORIGIN).parent
    for name, mask in masks.items():
        write_mask(folder / "masks" / f"{name}_mask.tif", mask)
    return folder


def test_what_goes_out_is_images_with_masks_of_0_and_255(tmp_path, reviewed):
    record = export_for_correction(tmp_path / "export", reviewed, ORIGIN)
    content = json.loads(record.read_text())
    assert [entry["name"] for entry in content["masks"]] == list(PREDICTED)
    assert (content["reviewer"], content["from_run"]) == ("ada", "f" * 64)
    for slide, entry in zip(reviewed, content["masks"], strict=True):
        image, mask = (record.parent / side for side in (f"images/{slide.name}.tif", f"masks/{slide.name}_mask.tif"))
        assert image.read_bytes() == slide.image.read_bytes()
        assert (entry["image_sha256"], entry["mask_sha256"]) == (sha256_of(image), sha256_of(mask))
        np.testing.assert_array_equal(read_mask(mask).array, PREDICTED[slide.name])


def test_what_comes_back_is_stored_with_who_when_from_which_run_and_digests(tmp_path, reviewed):
    folder = returned(tmp_path, reviewed, A_1=CORRECTED)
    record, left_out = import_corrections(folder, tmp_path / "store", reviewed, ORIGIN, keep_unchanged=True)
    assert left_out == []
    entries = {entry["name"]: entry for entry in json.loads(record.read_text())["masks"]}
    entry = entries["A_1"]
    assert entry["changed_pixels"] == np.count_nonzero(PREDICTED["A_1"] != CORRECTED)
    assert entries["B (2)"]["changed_pixels"] == 0
    assert (entry["reviewer"], entry["from_run"], entry["replaces"]) == ("ada", "f" * 64, str(reviewed[0].mask))
    assert entry["replaces_sha256"] == sha256_of(reviewed[0].mask)
    assert entry["imported_at"].endswith("+00:00")
    found = read_corrections(tmp_path / "store")
    assert set(found) == set(PREDICTED)
    np.testing.assert_array_equal(read_mask(found["A_1"].path).array, CORRECTED)
    assert found["A_1"].record["sha256"] == sha256_of(found["A_1"].path)


def test_every_bad_mask_is_named_and_nothing_is_stored(tmp_path, reviewed):
    folder = tmp_path / "back"
    write_mask(folder / "A_1_mask.tif", CORRECTED[:-1])
    gray = np.where(CORRECTED > 0, 200, 0).astype(np.uint8)
    gray[0, 0] = 7
    write_tiff(folder / "B (2)_mask.tif", gray)
    write_mask(folder / "stranger_mask.tif", CORRECTED)
    write_mask(folder / "A_1.tif", CORRECTED)
    (folder / "torn_mask.tif").write_bytes(b"II*\0")
    with pytest.raises(CohortError) as caught:
        import_corrections(folder, tmp_path / "store", reviewed, ORIGIN, keep_unchanged=False)
    message = str(caught.value)
    assert "expected 5 corrected masks that can be used, 5 cannot" in message
    assert f"a gray mask of {SHAPE[0]} x {SHAPE[1]} pixels as its image, got {SHAPE[0] - 1} x {SHAPE[1]}" in message
    assert "expected the values 0 and 255 only, got also 7, 200" in message
    assert "expected the name of an image that was reviewed, got 'stranger'" in message
    assert "expected a name ending in _mask" in message
    assert not (tmp_path / "store").exists()


def test_two_masks_of_one_image_are_refused(tmp_path, reviewed):
    for place in ("ada", "bob"):
        write_mask(tmp_path / "back" / place / "A_1_mask.tif", CORRECTED)
    with pytest.raises(CohortError, match=r"expected one corrected mask of an image, got 2: .*ada.*bob"):
        import_corrections(tmp_path / "back", tmp_path / "store", reviewed, ORIGIN, keep_unchanged=False)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_without_masks_is_refused(tmp_path, reviewed, is_there):
    if is_there:
        (tmp_path / "back").mkdir()
    with pytest.raises(CohortError, match=r"view\.corrected: expected .*found none"):
        import_corrections(tmp_path / "back", tmp_path / "store", reviewed, ORIGIN, keep_unchanged=False)


def test_a_mask_that_nobody_changed_replaces_nothing(tmp_path, reviewed):
    folder = returned(tmp_path, reviewed, A_1=CORRECTED)
    record, left_out = import_corrections(folder, tmp_path / "store", reviewed, ORIGIN, keep_unchanged=False)
    assert left_out == ["B (2)"]
    assert [entry["name"] for entry in json.loads(record.read_text())["masks"]] == ["A_1"]
    assert set(read_corrections(tmp_path / "store")) == {"A_1"}
    untouched = returned(tmp_path / "again", reviewed)
    with pytest.raises(CohortError, match=r"as they were predicted.*view\.keep_unchanged=true"):
        import_corrections(untouched, tmp_path / "other", reviewed, ORIGIN, keep_unchanged=False)


def test_one_bit_masks_are_masks(tmp_path, reviewed):
    import tifffile

    (tmp_path / "back").mkdir()
    tifffile.imwrite(tmp_path / "back" / "A_1_mask.tif", CORRECTED == 0, photometric="miniswhite")
    import_corrections(tmp_path / "back", tmp_path / "store", reviewed, ORIGIN, keep_unchanged=False)
    np.testing.assert_array_equal(read_mask(tmp_path / "store" / "A_1_mask.tif").array, CORRECTED)

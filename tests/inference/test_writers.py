"""Predictions on the source's grid: geometry, bytes, and a disk that is full."""

import resource
import signal
from contextlib import contextmanager

import nibabel as nib
import numpy as np
import pytest
import torch

from medexp.errors import CaseError, StorageError
from medexp.geometry.grids import Grid
from medexp.inference.decisions import Softmax
from medexp.inference.writers import NativePrediction, write_prediction
from medexp.runs.files import sha256_of

LAS = np.array([[-1.5, 0, 0, 30], [0, 2.0, 0, -20], [0, 0, 1.0, 5], [0, 0, 0, 1]], dtype=np.float64)


def grid(shape=(8, 9, 10), *, box=None, spacing=None) -> Grid:
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header.set_slope_inter(2.0, 7.0)
    header.set_sform(LAS, code=1)
    header.set_qform(LAS, code=1)
    header.set_xyzt_units("mm")
    header["descrip"] = b"scanner"
    native = Grid.native(shape, LAS, header.binaryblock)
    return native if box is None else native.cropped(box, spacing)


def probabilities(shape, *, labels=3) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(labels, *shape).softmax(0)


def prediction(*, keep=False, **settings) -> NativePrediction:
    place = grid(**settings)
    return NativePrediction.of(probabilities(place.stored_shape), place, keep_probabilities=keep)


def test_file_has_the_sources_geometry_and_small_integers(tmp_path):
    write_prediction(tmp_path, "case", prediction())
    image = nib.load(tmp_path / "case.nii.gz")
    assert image.shape == (8, 9, 10)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.affine, LAS)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert bytes(image.header["descrip"]).startswith(b"scanner")


def test_values_are_labels_and_not_scaled_like_the_source(tmp_path):
    made = prediction()
    write_prediction(tmp_path, "case", made)
    assert np.array_equal(np.asanyarray(nib.load(tmp_path / "case.nii.gz").dataobj), made.label)


def test_equal_predictions_are_equal_bytes(tmp_path):
    for name in ("one", "two"):
        write_prediction(tmp_path, name, prediction())
    assert sha256_of(tmp_path / "one.nii.gz") == sha256_of(tmp_path / "two.nii.gz")


def test_axes_return_to_the_files_own_order():
    place = grid()
    stored = probabilities(place.stored_shape)
    label = NativePrediction.of(stored, place, keep_probabilities=False).label
    assert np.array_equal(label[::-1], Softmax().decide(stored).numpy())  # left and right are reversed in the file


def test_outside_the_crop_is_background():
    label = prediction(box=((2, 6), (3, 8), (0, 4))).label
    assert not label[..., 4:].any()
    assert label[:, 3:8, :4].any()


@pytest.mark.parametrize("box", [None, ((2, 6), (3, 8), (0, 4))], ids=["whole", "cropped"])
def test_deciding_before_or_after_the_way_home_is_the_same_without_resampling(box):
    early, late = (prediction(box=box, keep=keep).label for keep in (False, True))
    assert np.array_equal(early, late)


def test_probabilities_are_resampled_before_the_decision():
    place = grid((8, 8, 8), box=((0, 8), (0, 8), (0, 8)), spacing=(3.0, 4.0, 2.0))
    stored = torch.zeros(3, *place.stored_shape)
    stored[0] = 1.0
    stored[:, :2] = torch.tensor([0.0, 0.0, 1.0])[:, None, None, None]
    made = NativePrediction.of(stored, place, keep_probabilities=False)
    assert made.label.shape == (8, 8, 8)
    assert set(np.unique(made.label)) == {0, 2}  # interpolating label values would have made a 1 between them


def test_probabilities_are_saved_on_request(tmp_path):
    made = prediction(keep=True, box=((2, 6), (3, 8), (0, 4)))
    paths = write_prediction(tmp_path, "case", made)
    with np.load(paths["probabilities"], allow_pickle=False) as content:
        saved = content["probabilities"]
    assert saved.dtype == np.float16
    assert saved.shape == (3, 8, 9, 10)
    np.testing.assert_allclose(saved.astype(np.float32).sum(0), 1.0, atol=2e-3)


def test_probabilities_are_not_saved_otherwise(tmp_path):
    write_prediction(tmp_path, "case", prediction())
    assert [path.name for path in tmp_path.iterdir()] == ["case.nii.gz"]


@pytest.mark.parametrize("name", ["../case", "a/b", "", ".hidden", "a\nb", "a\x00b", "x" * 300, "..\\case"])
def test_name_that_would_leave_the_folder_is_refused(tmp_path, name):
    with pytest.raises(CaseError, match="case name"):
        write_prediction(tmp_path / "inner", name, prediction())
    assert list(tmp_path.iterdir()) == []


@contextmanager
def _files_of_at_most(num_bytes: int):
    """Make every longer write fail as a full disk does; in this process, for torch's threads do not survive a fork."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_full_disk_leaves_earlier_predictions_and_no_partial_file(tmp_path):
    write_prediction(tmp_path / "twin", "first", prediction())
    write_prediction(tmp_path, "first", prediction())
    messages = []
    for name in ("first", "second"):
        too_long = prediction(shape=(30, 31, 32), keep=name == "second")
        with _files_of_at_most(100), pytest.raises(StorageError) as caught:
            write_prediction(tmp_path, name, too_long)
        messages.append(str(caught.value))
    assert "first.nii.gz" in messages[0]
    assert "second.npz" in messages[1]
    assert all("free some space" in message for message in messages)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.nii.gz", "twin"]
    assert sha256_of(tmp_path / "first.nii.gz") == sha256_of(tmp_path / "twin" / "first.nii.gz")

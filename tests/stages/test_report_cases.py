"""Pictures come from volumes on one grid; anything else is outlines and a reason."""

import nibabel as nib
import numpy as np
import pytest

from medexp.io.nifti import read_volume
from medexp.stages.report_cases import _image

SHAPE = (6, 7, 8)


@pytest.fixture
def volume(tmp_path):
    """Write a volume with a given affine and return its path."""

    def write(name, affine, shape=SHAPE):
        nib.save(nib.Nifti1Image(np.ones(shape, np.int16), affine), tmp_path / name)
        return tmp_path / name

    return write


def moved(**changes):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[0, 3] = changes.get("x", 0.0)
    affine[0, 0] = changes.get("size", -1.0)
    return affine


def test_an_image_on_the_references_grid_is_shown(volume):
    reference = read_volume(volume("seg.nii.gz", moved()))
    channel, image, problem = _image({"t1": str(volume("t1.nii.gz", moved()))}, reference)
    assert (channel, problem) == ("t1", "")
    assert image.shape == SHAPE


@pytest.mark.parametrize(
    ("affine", "shape", "reason"),
    [
        (moved(x=10.0), SHAPE, "10 mm apart"),
        (moved(size=1.0), SHAPE, "orientations RPS and LPS"),
        (moved(size=-1.1), SHAPE, "voxel sizes"),
        (moved(), (6, 7, 9), "shapes (6, 7, 9) and (6, 7, 8)"),
    ],
)
def test_an_image_on_another_grid_is_not_drawn_under_the_outlines(volume, affine, shape, reason):
    reference = read_volume(volume("seg.nii.gz", moved()))
    channel, image, problem = _image({"t1": str(volume("t1.nii.gz", affine, shape))}, reference)
    assert (channel, image) == ("", None)
    assert problem.startswith("Outlines only: ")
    assert reason in problem


def test_the_next_channel_that_fits_is_shown_instead(volume):
    reference = read_volume(volume("seg.nii.gz", moved()))
    images = {"t1": str(volume("t1.nii.gz", moved(x=10.0))), "t2": str(volume("t2.nii.gz", moved()))}
    assert _image(images, reference)[0] == "t2"

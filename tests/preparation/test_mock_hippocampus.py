"""The synthetic hippocampus cohort: the Decathlon's format and quirks."""

import nibabel as nib
import numpy as np
import pytest

from medexp.errors import ConfigurationError
from medexp.preparation.mock_hippocampus import write_mock


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("mock")
    write_mock(root, num_patients=9, shape=(30, 36, 30), seed=0, channels=("T1",))
    return root


def volumes(root, folder):
    paths = sorted((root / folder).glob("*.nii.gz"))
    assert len(paths) == 9
    return [nib.load(path) for path in paths]


def test_images_and_labels_pair_and_share_their_grid(root):
    for image, label in zip(volumes(root, "images"), volumes(root, "labels"), strict=True):
        assert image.shape == label.shape
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        assert set(np.unique(np.asanyarray(label.dataobj))) == {0, 1, 2}


def test_shapes_types_and_scales_differ(root):
    images = volumes(root, "images")
    assert len({image.shape for image in images}) > 3
    assert {str(image.get_data_dtype()) for image in images} == {"uint8", "float32"}
    largest = [float(np.asanyarray(image.dataobj).max()) for image in images]
    assert max(largest) / min(largest) > 1000


def test_the_anterior_part_lies_in_front(root):
    for label in volumes(root, "labels"):
        array = np.asanyarray(label.dataobj)
        assert np.argwhere(array == 1)[:, 1].min() > np.argwhere(array == 2)[:, 1].max()


def test_there_is_no_zero_background(root):
    assert all((np.asanyarray(image.dataobj) > 0).all() for image in volumes(root, "images"))


@pytest.mark.parametrize(
    "changes", [{"num_patients": 0}, {"shape": (9, 9, 9)}, {"channels": ("a", "b")}, {"labels": {}}]
)
def test_an_impossible_argument_is_refused(tmp_path, changes):
    with pytest.raises(ConfigurationError, match=r"mock\.|dataset\."):
        write_mock(tmp_path, **{"num_patients": 1, "shape": (20, 20, 20), "seed": 0, **changes})

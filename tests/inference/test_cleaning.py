"""Masks of images lose what is too small and gain what they enclose; volumes are left alone."""

import numpy as np
import pytest

from medexp.errors import ConfigurationError
from medexp.geometry.grids import Grid, ImageGrid
from medexp.inference.cleaning import Cleaning
from medexp.inference.writers import NativePrediction
from tests.synthetic.wells import disks


def cleaned(label, **settings):
    grid = ImageGrid(label.shape, None) if label.ndim == 2 else Grid.native(label.shape, np.eye(4))
    return (
        Cleaning(**{"min_object_px": 0, "fill_holes": False, **settings}).of(NativePrediction(label, None, grid)).label
    )


def test_small_objects_go_and_holes_are_filled():
    label = disks((30, 30, 12), (60, 90, 15), (10, 100, 2))
    label[30, 30] = 0
    expected = disks((30, 30, 12), (60, 90, 15))
    np.testing.assert_array_equal(cleaned(label, min_object_px=100, fill_holes=True), expected)
    expected[30, 30] = 0
    np.testing.assert_array_equal(cleaned(label, min_object_px=100), expected)


def test_no_kind_takes_a_pixel_of_another():
    label = disks((40, 60, 20))
    label[38:43, 58:63] = 2
    label[40, 60] = 0
    done = cleaned(label, fill_holes=True)
    np.testing.assert_array_equal(done == 2, np.pad(np.ones((5, 5), bool), ((38, 53), (58, 65))))
    assert cleaned(label, min_object_px=30).max() == 1


def test_nothing_is_done_unless_asked_for():
    label = disks((10, 100, 2))
    assert cleaned(label) is label


def test_full_and_empty_masks_stay():
    for label in (np.ones((9, 9), np.uint8), np.zeros((9, 9), np.uint8)):
        np.testing.assert_array_equal(cleaned(label, min_object_px=5, fill_holes=True), label)


def test_volumes_are_refused():
    with pytest.raises(ConfigurationError, match=r"predict\.min_object_px"):
        cleaned(np.zeros((3, 3, 3), np.uint8), min_object_px=10)

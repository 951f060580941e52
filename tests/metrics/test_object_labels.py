"""Objects of a mask: connectivity, holes, small ones, and touching ones split at their necks."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label

from medexp.errors import ConfigurationError
from medexp.metrics.object_labels import ObjectRule, cleaned, objects_of, with_holes_filled

PLAIN = {"min_area_px": 1, "fill_holes": False, "split_touching": False, "split_depth_px": 1.0}


def rule(**changes):
    return ObjectRule(**{**PLAIN, **changes})


def disk(shape, row, column, radius):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


@pytest.mark.parametrize("density", [0.1, 0.35, 0.6])
def test_objects_are_those_of_scikit_image(density):
    mask = np.random.default_rng(1).random((60, 80)) < density
    np.testing.assert_array_equal(objects_of(mask, rule()), label(mask, connectivity=2))


@pytest.mark.parametrize("density", [0.4, 0.6, 0.8])
def test_holes_are_those_of_scipy(density):
    mask = np.random.default_rng(2).random((60, 80)) < density
    np.testing.assert_array_equal(with_holes_filled(mask), ndimage.binary_fill_holes(mask))


def test_a_bay_at_the_border_is_no_hole():
    mask = np.ones((5, 5), bool)
    mask[0:3, 2] = False
    np.testing.assert_array_equal(with_holes_filled(mask), mask)


def test_a_hole_that_meets_the_outside_at_a_corner_is_filled():
    mask = np.ones((4, 4), bool)
    mask[0, 0] = mask[1, 1] = False  # the object is connected across that corner
    assert with_holes_filled(mask)[1, 1]
    assert not with_holes_filled(mask)[0, 0]


def test_objects_of_the_least_area_stay_and_smaller_ones_go():
    mask = np.zeros((10, 20), bool)
    mask[1:3, 1:3] = mask[5:8, 5:8] = mask[1, 10] = True  # 4, 9 and 1 pixels
    assert np.bincount(objects_of(mask, rule(min_area_px=4)).ravel())[1:].tolist() == [4, 9]
    assert np.bincount(objects_of(mask, rule(min_area_px=5)).ravel())[1:].tolist() == [9]
    assert not objects_of(mask, rule(min_area_px=10)).any()


def test_a_ring_counts_with_its_hole():
    ring = disk((40, 40), 20, 20, 12) & ~disk((40, 40), 20, 20, 9)
    full = int(disk((40, 40), 20, 20, 12).sum())
    assert objects_of(ring, rule(fill_holes=True, min_area_px=full)).max() == 1
    assert objects_of(ring, rule(min_area_px=full)).max() == 0


def test_touching_disks_are_split_at_the_neck():
    mask = disk((60, 100), 30, 30, 18) | disk((60, 100), 30, 62, 18)
    assert objects_of(mask, rule()).max() == 1
    parts = objects_of(mask, rule(split_touching=True, split_depth_px=3.0))
    assert parts.max() == 2
    np.testing.assert_array_equal(parts > 0, mask)
    left, right = (np.argwhere(parts == number)[:, 1].mean() for number in (1, 2))
    assert (left, right) == (pytest.approx(30, abs=1.5), pytest.approx(62, abs=1.5))


def test_a_neck_that_is_not_narrow_enough_is_none():
    mask = disk((60, 100), 30, 40, 18) | disk((60, 100), 30, 50, 18)
    assert objects_of(mask, rule(split_touching=True, split_depth_px=3.0)).max() == 1


def test_splitting_leaves_single_objects_as_they_are():
    mask = disk((60, 100), 20, 20, 12)
    mask |= disk((60, 100), 40, 70, 15)
    mask[5, 80] = mask[50:52, 5:7] = True
    np.testing.assert_array_equal(objects_of(mask, rule(split_touching=True)), objects_of(mask, rule()))


def test_objects_cut_by_the_border_are_measured_to_the_border():
    mask = disk((40, 80), 0, 25, 18) | disk((40, 80), 0, 55, 18)
    assert objects_of(mask, rule(split_touching=True, split_depth_px=2.0)).max() == 2


def test_parts_below_the_least_area_go_after_the_split():
    mask = disk((60, 100), 30, 30, 18) | disk((60, 100), 30, 54, 8)
    assert objects_of(mask, rule(split_touching=True, min_area_px=400)).max() == 1


def test_cleaning_fills_and_removes_but_never_splits():
    mask = disk((60, 100), 30, 30, 18) | disk((60, 100), 30, 62, 18)
    holed = mask & ~disk((60, 100), 30, 30, 3)
    holed[2, 2] = True
    before = holed.copy()
    done = cleaned(holed, rule(fill_holes=True, split_touching=True, min_area_px=100))
    np.testing.assert_array_equal(done, mask)
    np.testing.assert_array_equal(holed, before)


def test_an_empty_mask_stays_empty():
    empty = np.zeros((7, 9), bool)
    assert not objects_of(empty, rule(fill_holes=True, split_touching=True)).any()
    assert not cleaned(empty, rule(fill_holes=True)).any()


@pytest.mark.parametrize(("key", "value"), [("min_area_px", -1), ("split_depth_px", 0.0)])
def test_impossible_rules_are_refused(key, value):
    with pytest.raises(ConfigurationError, match=key):
        rule(**{key: value})

import numpy as np
import pytest

from medexp.errors import CaseError, GridMismatchError
from medexp.metrics.grids import (
    bounding_box,
    common,
    grown,
    hull,
    is_empty,
    mask_of,
    require_same_grid,
    spacing_on,
)


@pytest.mark.parametrize("order", ["C", "F"])
def test_bounding_box_holds_every_non_zero_element_and_touches_it_on_all_sides(order):
    volume = np.zeros((7, 8, 9), dtype=np.int16, order=order)
    volume[2, 3, 8] = 4
    volume[5, 1, 0] = -1
    assert bounding_box(volume) == (slice(2, 6), slice(1, 4), slice(0, 9))


def test_bounding_box_of_nothing_is_empty_and_stays_so():
    box = bounding_box(np.zeros((3, 4), dtype=bool))
    assert is_empty(box)
    assert grown(box, 5, (3, 4)) == box
    assert hull(box, (slice(1, 2), slice(0, 3))) == (slice(1, 2), slice(0, 3))


def test_a_grown_box_stops_at_the_borders():
    assert grown((slice(1, 3), slice(4, 6)), 2, (9, 7)) == (slice(0, 5), slice(2, 7))


def test_hull_holds_both_boxes():
    assert hull((slice(1, 3),), (slice(5, 6),)) == (slice(1, 6),)


def test_common_part_is_the_same_place_in_both_boxes():
    grid = np.arange(100).reshape(10, 10)
    first, second = (slice(2, 7), slice(0, 5)), (slice(4, 9), slice(3, 10))
    in_first, in_second = common(first, second)
    assert np.array_equal(grid[first][in_first], grid[4:7, 3:5])
    assert np.array_equal(grid[second][in_second], grid[4:7, 3:5])


def test_boxes_apart_have_nothing_in_common():
    in_first, in_second = common((slice(0, 2), slice(0, 9)), (slice(5, 6), slice(0, 9)))
    assert is_empty(in_first)
    assert is_empty(in_second)


def test_mask_of_joins_values():
    labels = np.array([0, 1, 2, 3, 4], dtype=np.uint8)
    assert mask_of(labels, (1, 3)).tolist() == [False, True, False, True, False]


def test_different_shapes_are_named():
    with pytest.raises(GridMismatchError, match=r"\(2, 3\).*\(3, 2\)"):
        require_same_grid(np.zeros((2, 3)), np.zeros((3, 2)))


@pytest.mark.parametrize(
    "spacing", [(1, 1, 2), [1.0, 1.0, 2.0], np.array([1, 1, 2], dtype=np.float32)], ids=["ints", "list", "array"]
)
def test_spacing_may_come_as_any_three_numbers(spacing):
    assert spacing_on(np.zeros((2, 2, 2)), spacing) == (1.0, 1.0, 2.0)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (1.0, float("nan"), 1.0)])
def test_spacing_that_is_no_voxel_size_is_refused(spacing):
    with pytest.raises(CaseError, match="expected 3 positive voxel sizes"):
        spacing_on(np.zeros((2, 2, 2)), spacing)

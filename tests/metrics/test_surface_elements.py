import math

import numpy as np
import pytest

from medexp.metrics.surface_elements import element_sizes, neighbor_codes


def test_codes_count_the_voxels_around_a_corner_from_128_to_1():
    voxel = np.ones((1, 1, 1), dtype=np.uint8)
    # The corner before the voxel sees it last (1), the corner behind it sees it first (128).
    assert neighbor_codes(voxel).ravel().tolist() == [1, 2, 4, 8, 16, 32, 64, 128]


def test_codes_in_an_image_count_from_8_to_1():
    assert neighbor_codes(np.ones((1, 1), dtype=np.uint8)).tolist() == [[1, 2], [4, 8]]


def test_the_inside_of_a_mask_sees_everything():
    codes = neighbor_codes(np.ones((3, 3, 3), dtype=np.uint8))
    assert (codes[1:-1, 1:-1, 1:-1] == 255).all()


def test_a_voxel_has_eight_small_triangles():
    # One corner cut off: a triangle through three edge midpoints of the unit cube, sides sqrt(1/2), area sqrt(3)/8.
    sizes = element_sizes((1.0, 1.0, 1.0))
    assert sizes[neighbor_codes(np.ones((1, 1, 1), dtype=np.uint8))].sum() == pytest.approx(8 * math.sqrt(3) / 8)


def test_a_face_has_the_area_of_a_voxel_side():
    first, second, third = spacing = (2.0, 3.0, 5.0)
    sizes = element_sizes(spacing)
    assert sizes[0b00001111] == pytest.approx(second * third)  # foreground behind on axis 0
    assert sizes[0b00110011] == pytest.approx(first * third)
    assert sizes[0b01010101] == pytest.approx(first * second)


def test_inside_and_outside_may_change_places():
    sizes = element_sizes((1.0, 2.0, 0.5))
    assert np.array_equal(sizes, sizes[::-1])
    assert sizes[0] == sizes[255] == 0.0
    assert (sizes[1:255] > 0).all()


def test_areas_grow_with_the_square_of_the_voxel_size():
    assert np.allclose(element_sizes((3.0, 6.0, 1.5)), 9 * element_sizes((1.0, 2.0, 0.5)))


def test_a_pixel_has_four_half_diagonals():
    sizes = element_sizes((3.0, 4.0))
    assert sizes[neighbor_codes(np.ones((1, 1), dtype=np.uint8))].sum() == pytest.approx(4 * 2.5)
    assert sizes[0b0011] == 4.0  # a horizontal edge is as long as a pixel is wide
    assert sizes[0b0101] == 3.0


def test_the_shared_table_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        element_sizes((1.0, 1.0, 1.0))[3] = 0.0

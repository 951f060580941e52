"""The stored grid and the way back to the file's."""

from itertools import permutations, product

import numpy as np
import pytest

from medexp.errors import GridMismatchError
from medexp.geometry.affine import orientation
from medexp.geometry.grids import Grid, to_canonical, to_native

SHAPE = (6, 8, 5)
BOX = ((1, 5), (2, 7), (0, 4))


def affine_of(axes, flips, sizes=(1.0, 2.0, 0.5)):
    affine = np.zeros((4, 4))
    affine[:3, 3] = (10.0, -20.0, 30.0)
    affine[3, 3] = 1.0
    for world, axis in enumerate(axes):
        affine[world, axis] = -sizes[world] if flips[world] else sizes[world]
    return affine


ORIENTATIONS = [affine_of(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]


def box_within(grid):
    return tuple((1, size - 1) for size in grid.stored_shape)


@pytest.mark.parametrize("affine", ORIENTATIONS, ids=orientation)
def test_a_label_comes_back_exactly_from_every_orientation(affine):
    grid = Grid.native(SHAPE, affine)
    cropped = grid.cropped(box_within(grid))
    label = np.random.default_rng(0).integers(0, 5, SHAPE).astype(np.uint8)
    inside = np.zeros(SHAPE, bool)
    window = tuple(slice(*side) for side in cropped.box)
    to_canonical(inside, grid)[window] = True
    stored = to_canonical(label, grid)[window]
    assert (to_native(np.ascontiguousarray(stored), cropped) == np.where(inside, label, 0)).all()


@pytest.mark.parametrize("affine", ORIENTATIONS, ids=orientation)
def test_the_stored_affine_puts_voxels_where_the_file_did(affine):
    grid = Grid.native(SHAPE, affine)
    cropped = grid.cropped(box_within(grid))
    indices = np.stack(np.meshgrid(*[np.arange(size) for size in SHAPE], indexing="ij"), axis=-1)
    world = indices @ affine[:3, :3].T + affine[:3, 3]
    stored = np.stack([to_canonical(world[..., axis], grid)[1:-1, 1:-1, 1:-1] for axis in range(3)], axis=-1)
    steps = np.stack(np.meshgrid(*[np.arange(size) for size in cropped.stored_shape], indexing="ij"), axis=-1)
    expected = steps @ cropped.stored_affine[:3, :3].T + cropped.stored_affine[:3, 3]
    assert np.allclose(stored, expected)
    assert orientation(cropped.stored_affine) == "RAS"


def test_probabilities_come_back_and_the_background_is_certain_outside():
    grid = Grid.native(SHAPE, np.eye(4)).cropped(BOX)
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], grid.stored_shape).transpose(3, 0, 1, 2)
    native = to_native(probabilities.astype(np.float32), grid)
    window = tuple(slice(*side) for side in BOX)
    assert (native[(slice(None), *window)] == probabilities.astype(np.float32)).all()
    outside = np.ones(SHAPE, bool)
    outside[window] = False
    assert (native[0][outside] == 1.0).all()
    assert (native[1:, outside] == 0.0).all()


def test_resampled_probabilities_still_sum_to_one():
    grid = Grid.native((20, 20, 20), np.eye(4)).cropped(((2, 18), (2, 18), (2, 18)), (2.0, 1.6, 1.0))
    assert grid.stored_shape == (8, 10, 16)
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], grid.stored_shape).transpose(3, 0, 1, 2)
    native = to_native(probabilities.astype(np.float32), grid)
    assert native.shape == (3, 20, 20, 20)
    assert np.allclose(native.sum(axis=0), 1.0, atol=1e-5)


def test_a_large_block_survives_a_change_of_spacing():
    grid = Grid.native((24, 24, 24), np.eye(4)).cropped(((0, 24), (0, 24), (0, 24)), (2.0, 2.0, 2.0))
    stored = np.zeros(grid.stored_shape, np.uint8)
    stored[3:9, 3:9, 3:9] = 1
    native = to_native(stored, grid)
    expected = np.zeros((24, 24, 24), np.uint8)
    expected[6:18, 6:18, 6:18] = 1
    expected[np.ix_((6, 17), (6, 17), (6, 17))] = 0  # a corner has less than half of the share
    assert (native == expected).all()


def test_probabilities_are_resampled_before_the_decision():
    # Two voxels of 0.6 and 0.2: half a voxel beyond their border, the label has lost.
    grid = Grid.native((4, 2, 2), np.eye(4)).cropped(((0, 4), (0, 2), (0, 2)), (2.0, 1.0, 1.0))
    probabilities = np.zeros((2, 2, 2, 2), np.float32)
    probabilities[1, 0], probabilities[1, 1] = 0.6, 0.2
    probabilities[0] = 1 - probabilities[1]
    assert to_native(probabilities, grid)[1, :, 0, 0] == pytest.approx([0.6, 0.5, 0.3, 0.2])


def test_the_stored_spacing_is_exact_over_the_extent():
    grid = Grid.native((10, 10, 10), np.eye(4)).cropped(((0, 10), (0, 10), (0, 10)), (3.0, 1.0, 1.0))
    assert grid.stored_shape == (3, 10, 10)
    assert grid.stored_spacing_mm == pytest.approx((10 / 3, 1.0, 1.0))


def test_json_round_trips():
    grid = Grid.native(SHAPE, ORIENTATIONS[7], b"header\x00\xff").cropped(BOX)
    again = Grid.from_json(grid.to_json())
    assert again.to_json() == grid.to_json()
    assert again.header == grid.header


def test_another_shape_is_refused():
    grid = Grid.native(SHAPE, np.eye(4))
    with pytest.raises(GridMismatchError, match=r"stored grid \(6, 8, 5\), got \(6, 8, 6\)"):
        to_native(np.zeros((6, 8, 6), np.uint8), grid)

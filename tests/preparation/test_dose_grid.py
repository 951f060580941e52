"""The grid of the store: whole voxels stay what they are, and every voxel stays where it is in the world."""

import numpy as np
import pytest

from medexp.errors import CaseError, ConfigurationError
from medexp.preparation.dose_grid import AsStored, FixedGrid, NativeCrop, VoxelGrid, Window, grid_from_json

SHAPE = (40, 36, 30)


def grid(shape=SHAPE, spacing=(1.0, 1.0, 3.0)) -> VoxelGrid:
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = [17.0, -4.0, 120.0]
    return VoxelGrid(shape, affine)


def box(*sides, shape=SHAPE):
    amount = np.zeros(shape, np.uint8)
    amount[tuple(slice(*side) for side in sides)] = 255
    return amount


def world(one: VoxelGrid, index) -> np.ndarray:
    return one.affine[:3, :3] @ np.array(index, float) + one.affine[:3, 3]


def test_a_window_keeps_the_values_and_their_places():
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
    window = Window((5, 7, 2), (10, 9, 8))
    cut, target = window.cut(values, fill=-1000), window.of(grid())
    assert np.array_equal(cut, values[5:15, 7:16, 2:10])
    assert np.allclose(world(target, (3, 4, 5)), world(grid(), (8, 11, 7)))


def test_beyond_the_grid_a_window_holds_the_fill():
    window = Window((-3, 30, 28), (8, 10, 6))
    cut = window.cut(np.ones(SHAPE, np.int16), fill=-1000)
    assert cut.shape == (8, 10, 6)
    assert (cut[3:, :6, :2] == 1).all()
    assert (cut == 1).sum() == 5 * 6 * 2
    assert np.allclose(world(window.of(grid()), (3, 0, 0)), world(grid(), (0, 30, 28)))


@pytest.mark.parametrize("start", [(-20, 0, 0), (60, 0, 0)])
def test_a_window_that_misses_the_grid_is_all_fill(start):
    assert (Window(start, (8, 8, 8)).cut(np.ones(SHAPE, np.int16), fill=-7) == -7).all()


def test_the_crop_lies_around_the_target_and_reaches_the_margin_beyond_the_structures():
    amounts = {"PTV70": box((18, 23), (16, 21), (12, 15)), "Rectum": box((0, 3), (0, 3), (10, 18))}
    window = NativeCrop(inplane_size=20, z_margin_mm=9.0, min_slices=4).window(grid(), amounts)
    assert window.start[:2] == (20 - 10, 18 - 10)
    assert (window.start[2], window.shape) == (10 - 3, (20, 20, 8 + 2 * 3))


def test_a_margin_that_is_no_multiple_of_the_slices_is_reached_all_the_same():
    window = NativeCrop(inplane_size=8, z_margin_mm=10.0, min_slices=1).window(
        grid(), {"PTV70": box((9, 12), (9, 12), (12, 14))}
    )
    assert (window.start[2], window.shape[2]) == (12 - 4, 2 + 8)


def test_the_margin_ends_with_the_ct():
    window = NativeCrop(inplane_size=8, z_margin_mm=30.0, min_slices=1).window(
        grid(), {"PTV70": box((9, 12), (9, 12), (1, 28))}
    )
    assert (window.start[2], window.shape[2]) == (0, 30)


@pytest.mark.parametrize(
    ("slices", "min_slices", "expected"),
    [
        pytest.param((12, 14), 12, (7, 12), id="both sides alike"),
        pytest.param((0, 2), 12, (0, 12), id="moved up within the CT"),
        pytest.param((28, 30), 12, (18, 12), id="moved down within the CT"),
        pytest.param((12, 14), 30, (0, 30), id="all of the CT"),
        pytest.param((12, 14), 37, (-3, 37), id="beyond both ends of the CT"),
    ],
)
def test_a_minimum_of_slices(slices, min_slices, expected):
    window = NativeCrop(inplane_size=8, z_margin_mm=0.001, min_slices=min_slices).window(
        grid(), {"PTV70": box((9, 12), (9, 12), slices)}
    )
    # 0.001 mm are one slice on either side
    assert window.shape[2] == expected[1]
    assert abs(window.start[2] - expected[0]) <= 1


def test_the_fixed_grid_has_the_centroid_in_its_middle_and_its_own_voxels():
    amounts = {"Prostate": box((18, 23), (16, 21), (12, 15)), "PTV70": box((0, 3), (0, 3), (0, 3))}
    made = FixedGrid(shape=(11, 13, 8), spacing_mm=(2.0, 2.0, 1.0)).lattice(grid(), amounts)
    assert made.spacing_mm == pytest.approx((2.0, 2.0, 1.0))
    assert np.allclose(world(made, (5, 6, 3.5)), world(grid(), (20, 18, 13)))
    assert np.array_equal(np.sign(np.diag(made.affine)), np.sign(np.diag(grid().affine)))


def test_without_the_first_structure_the_second_is_the_center():
    made = FixedGrid(shape=(3, 3, 3), spacing_mm=(1.0, 1.0, 1.0)).lattice(
        grid(), {"PTV70": box((4, 5), (6, 7), (8, 9))}
    )
    assert np.allclose(world(made, (1, 1, 1)), world(grid(), (4, 6, 8)))


def test_nothing_to_center_on_is_an_error():
    with pytest.raises(CaseError, match="expected one of PTV70 to center the grid on, got Rectum"):
        NativeCrop(inplane_size=8, z_margin_mm=1.0, min_slices=1).window(
            grid(), {"Rectum": box((1, 2), (1, 2), (1, 2))}
        )


@pytest.mark.parametrize(
    ("window", "share"),
    [
        (Window((0, 0, 0), SHAPE), 0.0),
        (Window((20, 0, 0), SHAPE), 0.5),
        (Window((0, 9, 0), (40, 18, 30)), 0.5),
        (Window((60, 0, 0), SHAPE), 1.0),
    ],
)
def test_the_share_outside_of_a_window(window, share):
    amount = np.full(SHAPE, 255, np.uint8)
    assert window.of(grid()).share_outside(amount, grid()) == pytest.approx(share)


def test_the_share_outside_of_a_coarser_grid_counts_voxel_centers():
    coarse_affine = grid().affine @ np.diag([4.0, 4.0, 1.0, 1.0])
    coarse_affine[:3, 3] = world(grid(), (1.5, 1.5, 0))  # its first voxel covers the first four by four
    coarse = VoxelGrid((5, 9, 30), coarse_affine)
    amount = np.full(SHAPE, 255, np.uint8)
    assert coarse.share_outside(amount, grid()) == pytest.approx(0.5)
    # Between the centers of its outermost voxels lie 17 of 40, and 33 of 36 voxels.
    inside = (17 - 1) * (33 - 1) / (40 * 36)
    assert coarse.share_outside(amount, grid(), reach_voxels=0.0) == pytest.approx(1.0 - inside)


def test_a_fixed_grid_needs_three_sizes():
    with pytest.raises(ConfigurationError, match="dataset.grid.shape: expected three"):
        FixedGrid(shape=(3, 3), spacing_mm=(1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    "one",
    [
        NativeCrop(inplane_size=300, z_margin_mm=30.0, min_slices=128),
        FixedGrid(shape=[512, 512, 256], spacing_mm=[1.0, 1.0, 2.0]),
        AsStored(),
    ],
)
def test_a_grid_comes_back_from_json(one):
    assert grid_from_json(one.to_json()).to_json() == one.to_json()

"""Values on another grid: exact where theory says so, and what scipy gives elsewhere."""

import numpy as np
import pytest
from scipy import ndimage

from medexp.errors import GridMismatchError
from medexp.geometry.regridding import resample_to, share_outside


def affine(spacing_mm: tuple[float, float, float], origin: tuple[float, float, float]) -> np.ndarray:
    matrix = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    matrix[:3, 3] = origin
    return matrix


COARSE = affine((2.5, 2.5, 3.0), (37.0, 30.0, -10.0))
FINE = affine((1.1, 1.3, 2.0), (33.3, 27.2, -7.1))  # begins and ends inside of the coarse grid


@pytest.fixture
def smooth() -> np.ndarray:
    noise = np.random.default_rng(0).random((30, 28, 20))
    return (70.0 * ndimage.gaussian_filter(noise, 2.0)).astype(np.float32)


@pytest.mark.parametrize("order", [1, 3])
def test_values_are_those_of_scipy(order: int, smooth: np.ndarray) -> None:
    shape = (50, 40, 24)
    to_source = np.linalg.solve(COARSE, FINE)
    expected = ndimage.affine_transform(
        smooth.astype(np.float64), to_source[:3, :3], to_source[:3, 3], output_shape=shape, order=order, mode="mirror"
    )
    found = resample_to(smooth, COARSE, FINE, shape, order=order)
    np.testing.assert_allclose(found, np.clip(expected, smooth.min(), smooth.max()), rtol=0, atol=2e-4)


@pytest.mark.parametrize("order", [1, 3])
def test_the_same_grid_gives_the_values_themselves(order: int, smooth: np.ndarray) -> None:
    np.testing.assert_array_equal(resample_to(smooth, COARSE, COARSE, (30, 28, 20), order=order), smooth)


@pytest.mark.parametrize("order", [1, 3])
def test_a_window_of_the_same_voxels_gives_the_values_themselves(order: int, smooth: np.ndarray) -> None:
    window = COARSE.copy()
    window[:3, 3] = (COARSE @ [3, 2, 1, 1])[:3]
    np.testing.assert_array_equal(resample_to(smooth, COARSE, window, (9, 8, 7), order=order), smooth[3:12, 2:10, 1:8])


def test_linear_interpolation_reproduces_a_linear_field() -> None:
    plane = np.array([0.5, -0.25, 0.75])
    values = 40.0 + np.tensordot(plane, np.indices((30, 28, 20)), axes=1)
    found = resample_to(values, COARSE, FINE, (20, 18, 16), order=1)
    places = np.linalg.solve(COARSE, FINE @ np.stack([*np.indices((20, 18, 16)), np.ones((20, 18, 16))]).reshape(4, -1))
    np.testing.assert_allclose(found.ravel(), 40.0 + plane @ places[:3], atol=2e-5)


def test_cubic_interpolation_is_closer_to_a_wave_than_linear() -> None:
    def wave(matrix: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        world = matrix @ np.stack([*np.indices(shape), np.ones(shape)]).reshape(4, -1)
        return (1.5 + np.sin(world[:3] / 8.0).prod(axis=0)).reshape(shape)

    values, expected = wave(COARSE, (30, 28, 20)), wave(FINE, (50, 40, 20))
    errors = [np.abs(resample_to(values, COARSE, FINE, (50, 40, 20), order=order) - expected).max() for order in (1, 3)]
    assert errors[1] < errors[0] / 4


def test_beyond_the_outermost_centers_the_fill_stands() -> None:
    values = np.full((3, 3, 3), 5.0, np.float32)
    grid = affine((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    larger = affine((0.5, 1.0, 1.0), (1.0, 0.0, 0.0))  # begins two voxels outside
    found = resample_to(values, grid, larger, (9, 3, 3), order=3, fill=-1.0)
    assert found[:, 1, 1].tolist() == [-1.0, -1.0, 5.0, 5.0, 5.0, 5.0, 5.0, -1.0, -1.0]


def test_a_grid_beside_the_source_is_all_fill() -> None:
    far = affine((1.0, 1.0, 1.0), (500.0, 0.0, 0.0))
    assert (resample_to(np.ones((3, 3, 3)), COARSE, far, (4, 4, 4), order=3, fill=0.0) == 0.0).all()


def test_splines_do_not_swing_over_the_values() -> None:
    step = np.zeros((12, 12, 12), np.float32)
    step[6:] = 60.0
    grid, fine = affine((2.0, 2.0, 2.0), (0.0, 0.0, 0.0)), affine((0.3, 2.0, 2.0), (0.0, 0.0, 0.0))
    found = resample_to(step, grid, fine, (70, 12, 12), order=3)
    assert (found.min(), found.max()) == (0.0, 60.0)


def test_a_target_that_runs_against_the_source_is_the_mirrored_result(smooth: np.ndarray) -> None:
    shape = (20, 18, 16)
    forth = resample_to(smooth, COARSE, FINE, shape, order=3)
    turn = np.diag([-1.0, 1.0, -1.0, 1.0])
    turn[:3, 3] = (shape[0] - 1.0, 0.0, shape[2] - 1.0)
    np.testing.assert_allclose(
        resample_to(smooth, COARSE, FINE @ turn, shape, order=3)[::-1, :, ::-1], forth, rtol=0, atol=1e-5
    )


def test_one_slice_is_taken_where_it_lies_and_nowhere_else() -> None:
    values = np.full((4, 4, 1), 3.0)
    grid, fine = affine((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), affine((0.5, 0.5, 0.25), (0.0, 0.0, -0.25))
    assert resample_to(values, grid, fine, (3, 3, 3), order=3)[1, 1].tolist() == [0.0, 3.0, 0.0]


def test_the_values_that_were_given_stay_as_they_are(smooth: np.ndarray) -> None:
    before = smooth.copy()
    resample_to(smooth, COARSE, FINE, (20, 18, 16), order=3)
    np.testing.assert_array_equal(smooth, before)


def test_oblique_grids_are_refused(smooth: np.ndarray) -> None:
    turned = FINE.copy()
    turned[:2, :2] = FINE[:2, :2] @ np.array([[0.98, -0.2], [0.2, 0.98]])
    with pytest.raises(GridMismatchError, match="along the same axes"):
        resample_to(smooth, COARSE, turned, (4, 4, 4), order=1)


def test_an_unknown_order_is_refused(smooth: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected 1 .* or 3"):
        resample_to(smooth, COARSE, FINE, (4, 4, 4), order=2)


def test_the_share_outside_counts_voxels_beyond_the_outermost_centers() -> None:
    mask = np.zeros((10, 4, 4), bool)
    mask[2:8, 1:3, 1:3] = True  # six columns
    grid = affine((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    dose = affine((2.0, 2.0, 2.0), (-1.0, 1.0, -1.0))  # along i its centers reach from voxel 1 to voxel 5
    assert share_outside(mask, grid, dose, (3, 4, 4)) == pytest.approx(2 / 6)


def test_of_an_empty_mask_no_share_is_known() -> None:
    assert np.isnan(share_outside(np.zeros((2, 2, 2), bool), COARSE, FINE, (4, 4, 4)))

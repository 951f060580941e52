import numpy as np
import pytest
import torch
from scipy import ndimage

from medexp.transforms.in_plane import PlaneTaps, resample_planes
from medexp.transforms.spatial import centered_offset, rotation_matrix

SHAPE = (23, 19, 7)


def volume() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def turned(
    array: np.ndarray,
    matrix: np.ndarray,
    *,
    start: tuple[int, int] = (0, 0),
    size: tuple[int, int] = SHAPE[:2],
    outside: float = 0.0,
) -> np.ndarray:
    taps = PlaneTaps.of(matrix, centered_offset(matrix, start=start, size=size), size=size, shape=array.shape[:2])
    part = array[tuple(slice(first, stop) for first, stop in taps.box)]
    out = torch.full((*size, array.shape[2]), torch.nan)
    resample_planes(torch.from_numpy(part.copy()), out, taps, outside=outside)
    return out.numpy()


@pytest.mark.parametrize("outside", [0.0, 1.0, -3.5])
@pytest.mark.parametrize(
    ("start", "size"),
    [((0, 0), SHAPE[:2]), ((4, 5), (12, 9)), ((-3, 8), (40, 16)), ((15, -6), (70, 10))],
    ids=["whole", "inside", "over the edge", "more rows than are made at a time"],
)
@pytest.mark.parametrize("angle_deg", [5.0, -30.0])
def test_planes_equal_scipys_linear_interpolation(angle_deg, start, size, outside):
    array, matrix = volume(), rotation_matrix([angle_deg])
    padded = np.pad(array, [(60, 60), (60, 60), (0, 0)], constant_values=outside)
    offset = centered_offset(matrix, start=[first + 60 for first in start], size=size)
    expected = [
        ndimage.affine_transform(plane, matrix, offset, output_shape=size, order=1, cval=outside)
        for plane in np.moveaxis(padded, 2, 0)
    ]
    found = turned(array, matrix, start=start, size=size, outside=outside)
    assert found == pytest.approx(np.stack(expected, axis=2), abs=2e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_right_angle_turns_from_the_first_axis_to_the_second_as_numpy_does(sign):
    array = volume()[:19]
    found = turned(array, rotation_matrix([90.0 * sign]), size=(19, 19))
    assert found == pytest.approx(np.rot90(array, sign, axes=(0, 1)), abs=1e-5)


def test_no_turn_is_a_copy():
    array = volume()
    assert np.array_equal(turned(array, np.eye(2)), array)


def test_a_mirror_reverses_the_first_axis_only():
    array = volume()
    assert np.array_equal(turned(array, np.diag([-1.0, 1.0])), array[::-1])


@pytest.mark.parametrize("start", [(100, 0), (0, -100)])
def test_beside_the_array_lies_only_what_is_outside(start):
    assert (turned(volume(), rotation_matrix([5.0]), start=start, size=(8, 8), outside=0.25) == 0.25).all()


def test_a_constant_stays_to_the_last_bit_but_one():
    """Weights add up to 1, and what is outside makes up for what they lack."""
    found = turned(np.ones(SHAPE, np.float32), rotation_matrix([7.0]), start=(-4, 3), size=(30, 30), outside=1.0)
    assert np.abs(found - 1.0).max() <= 2.4e-7


def test_only_the_box_is_read():
    array, matrix = volume(), rotation_matrix([5.0])
    taps = PlaneTaps.of(matrix, centered_offset(matrix, start=(5, 5), size=(8, 8)), size=(8, 8), shape=SHAPE[:2])
    assert taps.box_shape[0] * taps.box_shape[1] <= 11 * 11
    assert taps.outside is None
    before = turned(array, matrix, start=(5, 5), size=(8, 8))
    inside = tuple(slice(first, stop) for first, stop in taps.box)
    elsewhere = np.full_like(array, 1e6)
    elsewhere[inside] = array[inside]
    assert np.array_equal(turned(elsewhere, matrix, start=(5, 5), size=(8, 8)), before)

"""DVHs of shapes whose answer is known in closed form, in a dose that rises by 1 Gy per mm.

As Nelms et al., "Methods, software and datasets to verify DVH calculations against analytical values",
Med. Phys. 42 (2015) 4435: contours every 0.2 to 3 mm, dose grids of 0.4 to 3 mm, a sphere, a cylinder and a cone
24 mm high and wide. Planes lie in the middle of the slices that the shape is made of, as planning programs have them.
"""

from collections.abc import Callable

import numpy as np
import pytest

from medexp.geometry.contours import coverage_of
from medexp.metrics.dvh import Dvh, dvh_of_contours, dvh_of_mask

R_MM = 12.0  # radius of sphere, cylinder and the cone's base; half their heights
PERCENTS = (99.0, 98.0, 95.0, 90.0, 50.0, 10.0, 5.0, 2.0, 1.0)
OFFSET_GY = 30.0
RADII: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sphere": lambda z: np.sqrt(np.maximum(R_MM**2 - z**2, 0)),
    "cylinder": lambda z: np.full_like(z, R_MM),
    "cone": lambda z: (R_MM - z) / 2,
}
VOLUMES_CC = {
    "sphere": 4 / 3 * np.pi * R_MM**3 / 1000,
    "cylinder": 2 * np.pi * R_MM**3 / 1000,
    "cone": 2 / 3 * np.pi * R_MM**3 / 1000,
}


def areas(shape: str, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions along y (1) or z (2), and the area of the shape's cut there, by fine sums."""
    edges = np.linspace(-R_MM, R_MM, 2401)
    middles = (edges[1:] + edges[:-1]) / 2
    if axis == 2:
        return middles, np.pi * RADII[shape](middles) ** 2
    half_chords = np.sqrt(np.maximum(RADII[shape](middles)[:, None] ** 2 - middles**2, 0))
    return middles, 2 * half_chords.sum(axis=0) * (edges[1] - edges[0])


def expected_gy(shape: str, axis: int, percents: np.ndarray) -> np.ndarray:
    positions, cuts = areas(shape, axis)
    hotter = np.cumsum(cuts[::-1]) - cuts[::-1] / 2
    return np.interp(percents, 100 * hotter / cuts.sum(), positions[::-1]) + OFFSET_GY


def contours(shape: str, distance_mm: float) -> list[np.ndarray]:
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    corners *= np.sqrt(np.pi / (90 * np.sin(np.pi / 90)))  # a polygon as large as the circle
    middles = np.arange(-R_MM + distance_mm / 2, R_MM, distance_mm)
    return [
        np.concatenate([corners * radius, np.full((180, 1), z)], axis=1)
        for z, radius in zip(middles, RADII[shape](middles), strict=True)
    ]


def grid(spacing_mm: float) -> tuple[np.ndarray, tuple[int, int, int]]:
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = -20 + 0.37 * spacing_mm  # not in step with the shapes
    size = int(np.ceil(42 / spacing_mm))
    return affine, (size, size, size)


def ramp(affine: np.ndarray, shape: tuple[int, int, int], axis: int) -> np.ndarray:
    along = affine[axis, 3] + affine[axis, axis] * np.arange(shape[axis]) + OFFSET_GY
    return np.ascontiguousarray(np.broadcast_to(along[:, None] if axis == 1 else along, shape), dtype=np.float32)


def errors_gy(dvh: Dvh, shape: str, axis: int) -> np.ndarray:
    found = np.array([dvh.dose_at_volume_percent(percent) for percent in PERCENTS])
    return found - expected_gy(shape, axis, np.array(PERCENTS))


CASES = [
    # Contours' distance, tolerances of volume (%) and of points (Gy); what remains is the shape lost between planes.
    pytest.param(0.2, 0.15, 0.05, id="contours every 0.2 mm"),
    pytest.param(1.0, 0.3, 0.06, id="contours every 1 mm"),
    pytest.param(2.0, 0.8, 0.20, id="contours every 2 mm"),
    pytest.param(3.0, 1.3, 0.42, id="contours every 3 mm"),
]


@pytest.mark.parametrize("axis", [pytest.param(1, id="AP"), pytest.param(2, id="SI")])
@pytest.mark.parametrize("shape", list(RADII))
@pytest.mark.parametrize(("distance_mm", "volume_percent", "tolerance_gy"), CASES)
def test_dvhs_from_contours_meet_the_closed_forms_on_a_3_mm_dose_grid(
    shape: str, axis: int, distance_mm: float, volume_percent: float, tolerance_gy: float
) -> None:
    affine, size = grid(3.0)
    # The shapes fill their end slices.
    dvh = dvh_of_contours(ramp(affine, size, axis), affine, contours(shape, distance_mm), end_reach=0.5)
    assert dvh is not None
    positions, cuts = areas(shape, axis)
    assert dvh.volume_cc == pytest.approx(VOLUMES_CC[shape], rel=volume_percent / 100)
    assert dvh.mean_gy == pytest.approx(OFFSET_GY + positions @ cuts / cuts.sum(), abs=0.08)
    assert np.abs(errors_gy(dvh, shape, axis)).max() < tolerance_gy
    hottest = expected_gy(shape, axis, np.array([3 / VOLUMES_CC[shape]]))[0]
    assert dvh.dose_at_volume_cc(0.03) == pytest.approx(hottest, abs=tolerance_gy + 0.05)


@pytest.mark.parametrize("axis", [pytest.param(1, id="AP"), pytest.param(2, id="SI")])
@pytest.mark.parametrize("shape", list(RADII))
@pytest.mark.parametrize(("distance_mm", "_volume_percent", "tolerance_gy"), CASES)
def test_points_are_as_near_where_the_ends_are_not_known(
    shape: str, axis: int, distance_mm: float, _volume_percent: float, tolerance_gy: float
) -> None:
    affine, size = grid(3.0)
    dvh = dvh_of_contours(ramp(affine, size, axis), affine, contours(shape, distance_mm))
    assert dvh is not None
    assert dvh.volume_cc == pytest.approx(VOLUMES_CC[shape], rel=0.01 * distance_mm)
    assert np.abs(errors_gy(dvh, shape, axis)).max() < tolerance_gy


def test_the_dose_grid_makes_no_difference_where_dose_is_linear() -> None:
    points = []
    for spacing_mm in (0.8, 1.0, 3.0):
        affine, size = grid(spacing_mm)
        dvh = dvh_of_contours(ramp(affine, size, 2), affine, contours("cone", 1.0))
        assert dvh is not None
        points.append([dvh.dose_at_volume_percent(percent) for percent in PERCENTS])
    np.testing.assert_allclose(points, np.broadcast_to(points[0], (3, len(PERCENTS))), atol=0.02)


@pytest.mark.parametrize("axis", [pytest.param(1, id="AP"), pytest.param(2, id="SI")])
@pytest.mark.parametrize("shape", list(RADII))
def test_dvhs_from_masks_and_coverage_are_within_about_half_a_voxel(shape: str, axis: int) -> None:
    affine, size = grid(2.0)
    coverage = coverage_of(contours(shape, 0.2), affine, size)
    for structure in (coverage, coverage >= 128):
        dvh = dvh_of_mask(ramp(affine, size, axis), structure, (2.0, 2.0, 2.0))
        assert dvh is not None
        assert np.abs(errors_gy(dvh, shape, axis)).max() < 1.1
        assert dvh.volume_cc == pytest.approx(VOLUMES_CC[shape], rel=0.05)


@pytest.mark.parametrize("axis", [pytest.param(1, id="AP"), pytest.param(2, id="SI")])
@pytest.mark.parametrize("shape", list(RADII))
def test_divided_voxels_are_nearer_to_the_closed_forms(shape: str, axis: int) -> None:
    affine, size = grid(2.0)
    dose, coverage = ramp(affine, size, axis), coverage_of(contours(shape, 0.2), affine, size)
    whole, divided = (dvh_of_mask(dose, coverage, (2.0, 2.0, 2.0), num_samples=count) for count in (None, 30_000))
    assert whole is not None
    assert divided is not None
    assert divided.volume_cc == pytest.approx(whole.volume_cc)
    assert np.abs(errors_gy(divided, shape, axis)).max() < 0.6
    assert np.abs(errors_gy(divided, shape, axis)).mean() < 0.5 * np.abs(errors_gy(whole, shape, axis)).mean()

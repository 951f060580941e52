import numpy as np
import pytest
from scipy.spatial import cKDTree

from medexp.metrics.gamma_points import search_points, shell_radii_mm


def in_mm(points, spacing):
    counts = np.diff(points.starts)
    corners = np.repeat(points.cells, counts, axis=0)
    return (corners + np.stack([points.x, points.y, points.z], axis=1)) * np.array(spacing)


@pytest.mark.parametrize("distance_mm", [3.0, 2.0, 1.0, 2.7])
def test_radii_and_points_are_those_of_pymedphys(distance_mm):
    from pymedphys._utilities.createshells import calculate_coordinates_shell

    spacing = (1.3, 3.0, 2.0)
    points = search_points(spacing, distance_mm=distance_mm, steps_per_distance=5, reach=1.5)
    ours = np.unique(np.round(in_mm(points, spacing), 4) + 0.0, axis=0)  # those on faces stand there twice
    radii = shell_radii_mm(distance_mm, distance_mm / 5, 1.5)[1:]
    shells = [np.stack(calculate_coordinates_shell(radius, 3, distance_mm / 5), axis=1) for radius in radii]
    theirs = np.concatenate(shells)
    for some, others in ((ours, theirs), (theirs, ours)):  # each has a partner on the other side
        assert cKDTree(others).query(some)[0].max() < 2e-4


def test_the_distance_itself_is_a_radius_and_the_last_within_reach():
    radii = shell_radii_mm(3.0, 0.3, 2.0)
    assert 3.0 in radii
    assert radii[0] == 0.0
    assert radii[-1] == pytest.approx(6.0, abs=0.3)
    assert radii == sorted(set(radii))


def test_cells_and_points_are_sorted_by_distance():
    spacing = (2.5, 1.0, 2.0)
    points = search_points(spacing, distance_mm=3.0, steps_per_distance=10, reach=2.0)
    assert (np.diff(points.nearest) >= 0).all()
    assert np.array_equal(points.squared[points.starts[:-1]], points.nearest)
    for start, stop in zip(points.starts, points.starts[1:], strict=False):
        assert (np.diff(points.squared[start:stop]) >= 0).all()
    np.testing.assert_allclose((in_mm(points, spacing) ** 2).sum(axis=1) / 9, points.squared, rtol=1e-4)


def test_a_point_between_two_cells_stands_in_both():
    points = search_points((1.0, 1.0, 1.0), distance_mm=1.0, steps_per_distance=1, reach=1.0)
    positions = np.stack([points.x, points.y, points.z], axis=1)
    cells = np.repeat(points.cells, np.diff(points.starts), axis=0)
    is_pole = np.all(np.abs(cells + positions - (0, 0, 1)) < 1e-12, axis=1)
    assert set(map(tuple, cells[is_pole])) == {(i, j, k) for i in (-1, 0) for j in (-1, 0) for k in (0, 1)}

"""Where the search for gamma looks: points on spheres around a voxel, sorted into the cells of the grid.

The reference and the evaluated dose share a grid, so the points around every voxel fall into the same cells, at the
same places inside them: one table serves the whole volume. The spheres are those of pymedphys (Wendling et al. 2007,
https://doi.org/10.1118/1.2721657): radii in steps of a fraction of the distance criterion, points on each at most a
step apart, in rows of equal elevation. The same points give the same gamma, not merely a similar one.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

_ON_PLANE = 1e-9  # voxels; a point so close to a plane of voxel centers lies on it: cos(pi / 2) is not quite 0


class SearchPoints(NamedTuple):
    """The points by cell: cells nearest first, within a cell the nearest point first.

    A cell is the box between eight neighboring voxel centers. A point on a face stands in both cells, so none is
    lost where one of them lies off the grid. Squared distances are in units of the distance criterion.

    Attributes:
        cells: Lowest corner of each cell, in voxels from the voxel in question.
        nearest: Squared distance of the first point of each cell.
        starts: Cell n holds the points `starts[n]` to `starts[n + 1]`.
        x: Position inside the cell along i, 0..1.
        y: The same along j.
        z: The same along k.
        squared: Squared distance of each point.
    """

    cells: Int64[np.ndarray, "cell 3"]
    nearest: Float64[np.ndarray, " cell"]
    starts: Int64[np.ndarray, " bound"]
    x: Float64[np.ndarray, " point"]
    y: Float64[np.ndarray, " point"]
    z: Float64[np.ndarray, " point"]
    squared: Float64[np.ndarray, " point"]


@lru_cache(maxsize=4)  # cases of a cohort share it; a table takes a megabyte, for a fine step several
def search_points(
    spacing_mm: tuple[float, ...], *, distance_mm: float, steps_per_distance: int, reach: float
) -> SearchPoints:
    """Return the points of all spheres but the first, which is the voxel itself.

    Args:
        spacing_mm: Voxel size along i, j, k.
        distance_mm: The distance criterion.
        steps_per_distance: Radii per distance criterion.
        reach: Radius of the last sphere, as a multiple of the distance criterion.
    """
    step_mm = distance_mm / steps_per_distance
    spheres = [(radius, _sphere(radius, step_mm)) for radius in shell_radii_mm(distance_mm, step_mm, reach)[1:]]
    voxels = np.concatenate([points for _, points in spheres]) / np.array(spacing_mm)
    squared = np.concatenate([np.full(len(points), (radius / distance_mm) ** 2) for radius, points in spheres])
    # What rounding has put a hair below a face stands in the cell below alone. At the first plane of the grid it is
    # off the grid then, as it is for pymedphys with axes that begin at 0.
    cells, planes = np.floor(voxels), np.round(voxels)
    voxels = np.where(np.abs(voxels - planes) < _ON_PLANE, planes, voxels)
    return _by_cell(*_on_both_sides(voxels, cells, squared))


def shell_radii_mm(distance_mm: float, step_mm: float, reach: float) -> list[float]:
    """Return the radii 0, one step, two steps, ... up to `reach` times the distance, itself among them.

    They are summed up, as pymedphys does: rounding then decides alike whether the last one is still within reach.
    """
    radii, radius, is_past = [], 0.0, False
    while radius <= distance_mm * reach:
        radii.append(radius)
        radius += step_mm
        if not is_past and radius >= distance_mm:
            radius, is_past = distance_mm, True
    return radii


def _sphere(radius_mm: float, step_mm: float) -> Float64[np.ndarray, "point 3"]:
    elevations = np.linspace(0, np.pi, int(np.ceil(np.pi * radius_mm / step_mm)) + 1)
    rows = []
    for elevation in elevations:
        in_row = int(np.ceil(2 * np.pi * radius_mm * np.sin(elevation) / step_mm)) + 1
        azimuth = np.linspace(0, 2 * np.pi, in_row, endpoint=False)
        flat = np.sin(elevation)
        rows.append(np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.full(in_row, np.cos(elevation))], 1))
    return radius_mm * np.concatenate(rows)


def _on_both_sides(
    voxels: Float64[np.ndarray, "point 3"],
    cells: Float64[np.ndarray, "point 3"],
    squared: Float64[np.ndarray, " point"],
) -> tuple[Float64[np.ndarray, "more 3"], Float64[np.ndarray, "more 3"], Float64[np.ndarray, " more"]]:
    """Give the points on a face to the cell below, too."""
    for axis in range(3):
        is_on_face = voxels[:, axis] == cells[:, axis]
        below = cells[is_on_face] - np.eye(3)[axis]
        voxels = np.concatenate([voxels, voxels[is_on_face]])
        cells = np.concatenate([cells, below])
        squared = np.concatenate([squared, squared[is_on_face]])
    return voxels, cells, squared


def _by_cell(
    voxels: Float64[np.ndarray, "point 3"],
    cells: Float64[np.ndarray, "point 3"],
    squared: Float64[np.ndarray, " point"],
) -> SearchPoints:
    corners, cell_of_point = np.unique(cells.astype(np.int64), axis=0, return_inverse=True)
    nearest = np.full(len(corners), np.inf)
    np.minimum.at(nearest, cell_of_point, squared)
    by_distance = np.argsort(nearest, kind="stable")
    rank = np.empty_like(by_distance)
    rank[by_distance] = np.arange(len(by_distance))
    order = np.lexsort((squared, rank[cell_of_point]))
    starts = np.searchsorted(rank[cell_of_point][order], np.arange(len(corners) + 1)).astype(np.int64)
    x, y, z = np.ascontiguousarray((voxels - cells)[order].T)
    return SearchPoints(
        corners[by_distance], nearest[by_distance], starts, x, y, z, squared[order]
    )  # fmt: skip

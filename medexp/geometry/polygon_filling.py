"""How much of each cell of a lattice lies inside closed polygons."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, Int64

Polygon: TypeAlias = Float64[np.ndarray, "_ 2"]  # corners; no named axis, polygons differ in length

_SUBROWS = 16  # lines per row of cells; along a line the covered share is exact
_CELLS_AT_ONCE = 4_000_000  # bounds the memory of the sums in double precision


def covered_shares(polygons: Sequence[Sequence[Polygon]], shape: tuple[int, int]) -> Float32[np.ndarray, "i j plane"]:
    """Return the share of each cell inside the polygons of each plane, from 0 to 1.

    A point is inside if a line from it crosses the polygons of its plane an odd number of times (even-odd rule):
    holes may be contours of their own or keyhole paths, in any direction of travel, and a contour within a hole is
    filled again. Cell (0, 0) has its center at (0, 0); what lies outside of the lattice is cut off.

    Each row of cells along i is cut by 16 lines. On a line the crossings come in pairs, and the covered length of
    each cell is exact; across the lines it is a midpoint sum. So outlines along cell edges give exactly 0 and 1.

    Args:
        polygons: Of each plane: corners in cell indices along i and j.
        shape: Number of cells along i and j.
    """
    shares = np.zeros((*shape, len(polygons)), dtype=np.float32)
    step = max(1, _CELLS_AT_ONCE // max(1, shape[0] * shape[1]))
    for start in range(0, len(polygons), step):
        part = polygons[start : start + step]
        shares[:, :, start : start + step] = _fill(part, shape)
    return shares


def _fill(polygons: Sequence[Sequence[Polygon]], shape: tuple[int, int]) -> Float64[np.ndarray, "i j plane"]:
    lines, along = _crossings(polygons, shape[1] * _SUBROWS)
    planes, subrows = np.divmod(lines, shape[1] * _SUBROWS)
    along = np.clip(along, 0.0, shape[0])
    cells = np.minimum(along.astype(np.int64), shape[0] - 1)
    within = along - cells  # from the lower edge of the cell to the crossing
    # Every second crossing of a line closes what the one before has opened: even numbers per line, so signs alternate.
    signs = np.tile([1.0 / _SUBROWS, -1.0 / _SUBROWS], len(lines) // 2)
    flat = (cells * shape[1] + subrows // _SUBROWS) * len(polygons) + planes
    size, row = (shape[0] + 1) * shape[1] * len(polygons), shape[1] * len(polygons)
    steps = np.bincount(flat, signs * (1.0 - within), size) + np.bincount(flat + row, signs * within, size)
    filled = np.cumsum(steps.reshape(shape[0] + 1, shape[1], len(polygons)), axis=0)[:-1]
    return np.clip(filled, 0.0, 1.0)


def _crossings(
    polygons: Sequence[Sequence[Polygon]], lines_per_plane: int
) -> tuple[Int64[np.ndarray, " crossing"], Float64[np.ndarray, " crossing"]]:
    """Return line and position of each crossing, line by line and in order along it.

    A line's number counts on from plane to plane; positions start at the lattice's edge, in cells.
    """
    starts, ends, planes = _edges(polygons)
    first = np.ceil(np.minimum(starts[:, 1], ends[:, 1]) * _SUBROWS - 0.5)
    last = np.ceil(np.maximum(starts[:, 1], ends[:, 1]) * _SUBROWS - 0.5)  # not included: shared corners count once
    first, last = (np.clip(line, 0, lines_per_plane).astype(np.int64) for line in (first, last))
    counts = last - first
    edge = np.repeat(np.arange(len(counts)), counts)
    line = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (ends[edge, 0] - starts[edge, 0]) / (ends[edge, 1] - starts[edge, 1])
    along = starts[edge, 0] + ((line + 0.5) / _SUBROWS - starts[edge, 1]) * slope
    line += planes[edge] * lines_per_plane
    order = np.lexsort((along, line))
    return line[order], along[order]


def _edges(
    polygons: Sequence[Sequence[Polygon]],
) -> tuple[Float64[np.ndarray, "edge 2"], Float64[np.ndarray, "edge 2"], Int64[np.ndarray, " edge"]]:
    """Return start, end and plane of every edge, measured from the lattice's corner."""
    flat = [(plane, polygon) for plane, group in enumerate(polygons) for polygon in group]
    if not flat:
        return np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, dtype=np.int64)
    starts = np.concatenate([polygon for _, polygon in flat]) + 0.5
    ends = np.concatenate([np.roll(polygon, -1, axis=0) for _, polygon in flat]) + 0.5
    planes = np.repeat([plane for plane, _ in flat], [len(polygon) for _, polygon in flat])
    return starts, ends, planes.astype(np.int64)

"""Outlines of masks along voxel edges, so that filling them gives back the mask exactly."""

import numpy as np
from jaxtyping import Bool, Float64, Int64

from medexp.geometry.contour_planes import Contour


def trace(mask: Bool[np.ndarray, "i j k"], affine: Float64[np.ndarray, "4 4"]) -> list[Contour]:
    """Return the outlines of a mask, slice by slice: outer ones and those of holes, which the even-odd rule empties.

    Outlines run along voxel edges with the inside on one hand; voxels that touch in a corner only get outlines of
    their own. Corners are kept, points on straight lines left out.
    """
    contours = []
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        for corners in _outlines(mask[:, :, k]):
            points = np.concatenate([corners - 0.5, np.full((len(corners), 1), float(k))], axis=1)
            contours.append(points @ affine[:3, :3].T + affine[:3, 3])
    return contours


def _outlines(mask: Bool[np.ndarray, "i j"]) -> list[Float64[np.ndarray, "_ 2"]]:
    """Return closed loops of corner points; corner (0, 0) is the lower corner of voxel (0, 0)."""
    leaving, following = _edge_chain(mask)
    points, directions = np.divmod(leaving, 4)
    rows, columns = np.divmod(points, mask.shape[1] + 1)
    turns = np.flatnonzero(directions != directions[following])  # an edge after which the outline turns
    is_turn = np.zeros(len(leaving), dtype=bool)
    is_turn[turns] = True
    loops, seen, after, corner = [], [False] * len(leaving), following.tolist(), is_turn.tolist()
    for start in turns.tolist():
        loop, edge = [], start
        while not seen[edge]:
            seen[edge] = True
            if corner[edge]:
                loop.append(after[edge])  # the next edge begins at the corner
            edge = after[edge]
        if loop:
            loops.append(np.stack([rows[loop], columns[loop]], axis=1).astype(np.float64))
    return loops


# Directions of travel: 0 along +i, 1 along +j, 2 along -i, 3 along -j. The inside lies on the +j side of direction 0.
_STEP_ROWS = np.array([1, 0, -1, 0])
_STEP_COLUMNS = np.array([0, 1, 0, -1])


def _edge_chain(mask: Bool[np.ndarray, "i j"]) -> tuple[Int64[np.ndarray, " edge"], Int64[np.ndarray, " edge"]]:
    """Return each edge as `4 * corner + direction`, and which edge follows it."""
    padded = np.pad(mask, 1)
    width = mask.shape[1] + 1
    below, above = padded[1:, :-1], padded[1:, 1:]  # voxels on both sides of an edge along i from each corner
    left, right = padded[:-1, 1:], padded[1:, 1:]  # of an edge along j
    edges = []
    for direction, inside, outside, shift in (
        (0, above, below, (0, 0)),
        (2, below, above, (1, 0)),
        (1, left, right, (0, 0)),
        (3, right, left, (0, 1)),
    ):
        rows, columns = np.nonzero(inside & ~outside)
        edges.append(4 * ((rows + shift[0]) * width + columns + shift[1]) + direction)
    leaving = np.sort(np.concatenate(edges)).astype(np.int64)
    points, directions = np.divmod(leaving, 4)
    arrival = points + _STEP_ROWS[directions] * width + _STEP_COLUMNS[directions]
    return leaving, _next_edges(leaving, directions, arrival)


def _next_edges(
    leaving: Int64[np.ndarray, " edge"], directions: Int64[np.ndarray, " edge"], arrival: Int64[np.ndarray, " edge"]
) -> Int64[np.ndarray, " edge"]:
    """Return which edge follows each: the one that turns to the inside if there is one, else straight on or outwards.

    Where two voxels touch in a corner, turning to the inside stays with the voxel that the edge came along.
    """
    following = np.full(len(leaving), -1)
    for turn in (1, 0, -1):  # of the direction, modulo 4; +1 turns to the inside
        wanted = 4 * arrival + (directions + turn) % 4
        position = np.minimum(np.searchsorted(leaving, wanted), len(leaving) - 1)
        found = (leaving[position] == wanted) & (following < 0)
        following[found] = position[found]
    return following

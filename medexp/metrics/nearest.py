"""Nearest neighbors on a lattice.

Two surfaces worth comparing lie close together, so most points find their partner within a step or two. Those are
looked up in a table of occupied positions, offset by offset in order of distance. The rest ask a search tree, or a
distance map if they fill much of their box. All three give the same numbers: whole steps times the voxel size.

Positions have one row per axis: work along an axis is then work along memory.
"""

from functools import lru_cache
from itertools import product
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import ndimage
from scipy.spatial import cKDTree

Points: TypeAlias = Integer[np.ndarray, "axis point"]
Others: TypeAlias = Integer[np.ndarray, "axis other"]

_REACH = 2  # steps that the table is searched along each axis
_FEW = 1000  # points from which on the table pays for itself
_MAP_SHARE = 0.02  # share of points in their box from which on a map is faster than a tree
_MAP_LIMIT = 2_000_000  # voxels of the largest map; one takes about 100 bytes per voxel


def lattice_tree(positions: Points, spacing_mm: tuple[float, ...]) -> cKDTree:
    """Return a search tree over the positions in mm; many coordinates are equal, so it is split at midpoints."""
    return cKDTree(_in_mm(positions, spacing_mm).T, balanced_tree=False, compact_nodes=False)


def nearby_distances(
    points: Points, others: Others, spacing_mm: tuple[float, ...]
) -> tuple[Float[np.ndarray, " point"], float]:
    """Return the distance in mm to the nearest of the others where it is small.

    Returns:
        The distances, `inf` where none was found, and the distance up to which nothing can have been missed: 0 if
        the points are too few for a table.
    """
    distances = np.full(points.shape[1], np.inf)
    if points.shape[1] < _FEW or others.shape[1] == 0:
        return distances, 0.0
    start = others.min(axis=1, keepdims=True) - 2 * _REACH
    shape = others.max(axis=1) - start[:, 0] + 2 * _REACH + 1
    occupied = np.zeros(shape, dtype=bool)
    occupied[tuple(others - start)] = True
    shifted = points - start
    within = np.flatnonzero(np.all((shifted >= _REACH) & (shifted < shape[:, None] - _REACH), axis=0))
    cells = np.ravel_multi_index(tuple(shifted[:, within]), occupied.shape)
    offsets, offset_mm = _offsets_by_distance(spacing_mm)
    _look_up(distances, within, cells, occupied.ravel(), np.array(occupied.strides) @ offsets, offset_mm)
    return distances, float(offset_mm[-1])


def tree_distances(
    points: Points, others: Others, tree: cKDTree, spacing_mm: tuple[float, ...], within_mm: float
) -> Float[np.ndarray, " point"]:
    """Return the distance in mm to the nearest of the others; `inf` where it is above `within_mm`, or little above."""
    distances = np.full(points.shape[1], np.inf)
    # The bound is exclusive and the tree rounds differently: search a little farther.
    reach_mm = within_mm * (1 + 1e-6) + 1e-6
    _, nearest = tree.query(_in_mm(points, spacing_mm).T, distance_upper_bound=reach_mm)
    found = nearest < others.shape[1]
    distances[found] = _lengths_mm(points[:, found] - others[:, nearest[found]], spacing_mm)
    return distances


def is_for_map(points: Points, others: Others) -> bool:
    """Say whether the points are so dense that a distance map is faster than a tree, and affordable."""
    start, stop = _ends(points, others)
    volume = int(np.prod(stop - start))
    return points.shape[1] > _MAP_SHARE * volume and volume <= _MAP_LIMIT


def map_distances(points: Points, others: Others, spacing_mm: tuple[float, ...]) -> Float[np.ndarray, " point"]:
    """Return the distance in mm to the nearest of the others, by way of a distance map of the box around all."""
    start, stop = _ends(points, others)
    is_free = np.ones(stop - start, dtype=bool)
    is_free[tuple(others - start[:, None])] = False
    away: Float[np.ndarray, "..."] = ndimage.distance_transform_edt(is_free, sampling=spacing_mm)
    return away[tuple(points - start[:, None])]


def _ends(points: Points, others: Others) -> tuple[Integer[np.ndarray, " axis"], Integer[np.ndarray, " axis"]]:
    start = np.minimum(points.min(axis=1), others.min(axis=1))
    return start, np.maximum(points.max(axis=1), others.max(axis=1)) + 1


def _look_up(
    distances: Float[np.ndarray, " point"],
    within: Integer[np.ndarray, " near"],
    cells: Integer[np.ndarray, " near"],
    occupied: Bool[np.ndarray, " cell"],
    steps: Integer[np.ndarray, " offset"],
    offset_mm: Float[np.ndarray, " offset"],
) -> None:
    """Write into `distances` the first offset at which each point meets an occupied cell."""
    for step, distance in zip(steps, offset_mm, strict=True):
        is_hit = occupied[cells + step]
        distances[within[is_hit]] = distance
        within, cells = within[~is_hit], cells[~is_hit]
        if len(within) == 0:
            return


@lru_cache(maxsize=64)
def _offsets_by_distance(
    spacing_mm: tuple[float, ...],
) -> tuple[Integer[np.ndarray, "axis offset"], Float[np.ndarray, " offset"]]:
    """Return the offsets within reach, nearest first, up to the distance at which others could come closer."""
    offsets = np.array(list(product(range(-_REACH, _REACH + 1), repeat=len(spacing_mm)))).T
    lengths = _lengths_mm(offsets, spacing_mm)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= (_REACH + 1) * min(spacing_mm)]
    return offsets[:, order], lengths[order]


def _lengths_mm(steps: Points, spacing_mm: tuple[float, ...]) -> Float[np.ndarray, " point"]:
    return np.sqrt(np.sum(_in_mm(steps, spacing_mm) ** 2, axis=0))


def _in_mm(steps: Points, spacing_mm: tuple[float, ...]) -> Float[np.ndarray, "axis point"]:
    return steps * np.array(spacing_mm)[:, None]

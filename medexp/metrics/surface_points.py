"""Surfaces of masks as sets of lattice points, and the distance from each point of one to the nearest of another.

The distances are those that a distance map of the volume would give, at the cost of the surface alone.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from scipy.spatial import cKDTree

from medexp.metrics.nearest import is_for_map, lattice_tree, map_distances, nearby_distances, tree_distances
from medexp.metrics.surface_elements import element_sizes, neighbor_codes


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """Points of a surface.

    Attributes:
        positions: Lattice position of the points, in steps of the voxel size. Two surfaces can be compared if
            both are corners or both are voxels, counted from one origin.
        sizes: Surface that each point stands for: mm2 (mm in an image) for corners, 1 for voxels.
        spacing_mm: Voxel size along each axis.
    """

    positions: Integer[np.ndarray, "axis point"]
    sizes: Float[np.ndarray, " point"]
    spacing_mm: tuple[float, ...]

    def __len__(self) -> int:
        return self.positions.shape[1]

    @cached_property
    def tree(self) -> cKDTree:
        """Search tree over the points, in mm."""
        return lattice_tree(self.positions, self.spacing_mm)

    def subset(self, chosen: Bool[np.ndarray, " point"]) -> "SurfacePoints":
        """Return the chosen points only."""
        return replace(self, positions=self.positions[:, chosen], sizes=self.sizes[chosen])

    def distances_to(self, other: "SurfacePoints", within_mm: float = np.inf) -> Float[np.ndarray, " point"]:
        """Return the distance in mm from each point to the nearest point of `other`.

        Args:
            other: The other surface.
            within_mm: Distances above this need not be found: they may be returned as `inf`.

        Returns:
            One distance per point; all `inf` if `other` has no points.
        """
        distances, complete_mm = nearby_distances(self.positions, other.positions, self.spacing_mm)
        is_missing = np.isinf(distances)
        missing = self.positions[:, is_missing]
        if complete_mm >= within_mm or missing.shape[1] == 0 or len(other) == 0:
            return distances
        if is_for_map(missing, other.positions):
            distances[is_missing] = map_distances(missing, other.positions, self.spacing_mm)
        else:
            distances[is_missing] = tree_distances(missing, other.positions, other.tree, self.spacing_mm, within_mm)
        return distances


def corner_surface(
    labels: UInt8[np.ndarray, "..."], spacing_mm: tuple[float, ...], origin: tuple[int, ...]
) -> SurfacePoints:
    """Return the corners that carry surface elements of a mask of zeros and ones.

    Args:
        labels: The mask; values above 1 give the meaningless codes of `neighbor_codes`.
        spacing_mm: Voxel size along each axis.
        origin: Position of the first voxel on the common lattice.
    """
    codes = neighbor_codes(labels)
    nothing, everything = 0, 2 ** (2**labels.ndim) - 1
    chosen = np.flatnonzero((codes != nothing) & (codes != everything))
    sizes = element_sizes(spacing_mm)[codes.ravel()[chosen]]
    return SurfacePoints(_positions(chosen, codes.shape, origin), sizes, spacing_mm)


def voxel_surface(
    mask: Bool[np.ndarray, "..."], spacing_mm: tuple[float, ...], origin: tuple[int, ...], connectivity: int
) -> SurfacePoints:
    """Return the voxels of a mask with a background neighbor; outside the volume is background.

    Args:
        mask: The mask.
        spacing_mm: Voxel size along each axis.
        origin: Position of the first voxel on the common lattice.
        connectivity: 1 counts neighbors across a face, `mask.ndim` also those across edges and corners.
    """
    chosen = np.flatnonzero(mask & ~eroded(mask, connectivity))
    return SurfacePoints(_positions(chosen, mask.shape, origin), np.ones(len(chosen)), spacing_mm)


def eroded(mask: Bool[np.ndarray, "..."], connectivity: int) -> Bool[np.ndarray, "..."]:
    """Return the voxels whose neighbors are all foreground; outside the volume is background.

    Args:
        mask: The mask.
        connectivity: 1 for neighbors across a face, `mask.ndim` for all neighbors; nothing between is offered.
    """
    inside = mask.copy()
    for axis in range(mask.ndim):
        # All neighbors: erode what the axes before have left, as a cube is a product of lines.
        source = mask if connectivity == 1 else inside.copy()
        _keep_with_both_neighbors(inside, source, axis)
    return inside


def _keep_with_both_neighbors(inside: Bool[np.ndarray, "..."], source: Bool[np.ndarray, "..."], axis: int) -> None:
    target, source = np.moveaxis(inside, axis, 0), np.moveaxis(source, axis, 0)
    target[1:] &= source[:-1]
    target[:-1] &= source[1:]
    target[:1] = False
    target[-1:] = False


def _positions(
    flat: Integer[np.ndarray, " point"], shape: tuple[int, ...], origin: tuple[int, ...]
) -> Integer[np.ndarray, "axis point"]:
    return np.stack(np.unravel_index(flat, shape)) + np.array(origin, dtype=np.int64)[:, None]

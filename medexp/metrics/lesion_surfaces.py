"""Surfaces of the single lesions of a map, all found in one pass and handed out by lesion."""

from itertools import product

import numpy as np
from jaxtyping import Int32

from medexp.metrics.components import LesionMap
from medexp.metrics.surface_points import SurfacePoints, corner_surface, voxel_surface

Numbers = frozenset[int]


class LesionSurfaces:
    """Surface points of all lesions of a map, with the lesion that each belongs to.

    Lesions never share a corner or a neighbor: voxels of different components are at least two steps apart. So
    the surface of some lesions together is the union of their surfaces.
    """

    def __init__(self, points: SurfacePoints, owners: Int32[np.ndarray, " point"]) -> None:
        self._points = points
        self._owners = owners
        self._parts: dict[Numbers, SurfacePoints] = {}

    def of(self, numbers: Numbers) -> SurfacePoints:
        """Return the surface of these lesions; asked again, the same object with the search tree it has built."""
        if numbers not in self._parts:
            chosen = np.isin(self._owners, np.fromiter(numbers, dtype=np.int32))
            self._parts[numbers] = self._points.subset(chosen)
        return self._parts[numbers]


def lesion_corners(lesion_map: LesionMap, spacing_mm: tuple[float, ...]) -> LesionSurfaces:
    """Find the corners that carry surface elements of the lesions."""
    points = corner_surface((lesion_map.lesions > 0).astype(np.uint8), spacing_mm, lesion_map.origin)
    around = np.pad(lesion_map.lesions, 1)
    first = points.positions - np.array(lesion_map.origin)[:, None]
    owners = np.zeros(len(points), dtype=np.int32)
    for offset in product((0, 1), repeat=3):
        np.maximum(owners, around[tuple(first + np.array(offset)[:, None])], out=owners)
    return LesionSurfaces(points, owners)


def lesion_voxels(lesion_map: LesionMap, spacing_mm: tuple[float, ...], connectivity: int) -> LesionSurfaces:
    """Find the voxels of the lesions with a background neighbor; see `voxel_surface` for the connectivity."""
    points = voxel_surface(lesion_map.lesions > 0, spacing_mm, lesion_map.origin, connectivity)
    return LesionSurfaces(points, lesion_map.lesions[tuple(points.positions - np.array(lesion_map.origin)[:, None])])

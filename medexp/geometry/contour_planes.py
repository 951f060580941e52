"""Contours of one structure, sorted into planes, and the rules for what lies between and beyond those planes.

A structure set says nothing about the space between its planes. Every program decides, and volumes differ by percents
because of it. Decided here, for coverage on a grid and for DVHs alike:

- A position on a plane (within 0.01 mm) has that plane's shape.
- Between two neighboring planes the shape is interpolated: signed distances of both, mixed linearly.
- Planes farther apart than 1.5 times the usual distance (the median) have a real gap between them.
- An end plane, also beside a gap, reaches half the usual distance outwards. There the change of shape towards the end
  goes on as long as the shape shrinks, so that a sphere's pole is round; it never grows.
- A structure with a single plane reaches half the grid's slice distance to both sides, with the same shape.

Programs differ most in how far an end plane reaches: `end_reach` is that distance in plane distances, 0.5 unless said
otherwise; 0 ends the structure on its last plane.

The region that a position belongs to includes its lower end and not its upper one, so that slices at half distances
are counted once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float64

from medexp.errors import CaseError
from medexp.geometry.affine import spacing_mm

# Points have no name among the axes: contours of one call differ in length.
Contour: TypeAlias = Float64[np.ndarray, "_ 3"]  # a closed planar polygon in world mm, RAS+
Polygon: TypeAlias = Float64[np.ndarray, "_ 2"]  # the same in voxel indices along i and j

SAME_PLANE_MM = 0.01
END_REACH = 0.5  # of the usual distance of planes
_GAP = 1.5  # times the usual distance of planes


class Section(NamedTuple):
    """A cut through a structure: `1 - share` of one plane's shape and `share` of another's.

    A negative share continues the change from `second` to `first` beyond `first`.
    """

    first: int
    second: int
    share: float


class Slab(NamedTuple):
    """A region along the normal of the planes that one rule fills, from `start_mm` to `stop_mm`."""

    start_mm: float
    stop_mm: float
    first: int
    second: int
    share_per_mm: float  # of the second plane, by distance from the first

    def section(self, position_mm: float, origin_mm: float) -> Section:
        """Return the cut at a position, for a first plane at `origin_mm`."""
        return Section(self.first, self.second, self.share_per_mm * abs(position_mm - origin_mm))


@dataclass(frozen=True, eq=False)
class ContourPlanes:
    """A structure's polygons by plane, from the lowest to the highest.

    Attributes:
        positions_mm: Of the planes along k, index times slice distance.
        polygons: Of each plane, in voxel indices.
        slice_mm: Slice distance of the grid that the indices belong to.
        num_degenerate: Contours left out because fewer than three different points make no area.
        end_reach: How far the structure goes on beyond an end plane, in usual plane distances.
    """

    positions_mm: Float64[np.ndarray, " plane"]
    polygons: tuple[tuple[Polygon, ...], ...]
    slice_mm: float
    num_degenerate: int = 0
    end_reach: float = END_REACH

    @property
    def usual_distance_mm(self) -> float:
        """Return the median distance of neighboring planes; the grid's slice distance if there is one plane."""
        return float(np.median(np.diff(self.positions_mm))) if len(self.positions_mm) > 1 else self.slice_mm

    def slabs(self) -> list[Slab]:
        """Return the regions that the structure fills, from the lowest to the highest."""
        usual_mm, positions = self.usual_distance_mm, self.positions_mm
        reach_mm = self.end_reach * usual_mm
        ends = [0, *(np.flatnonzero(np.diff(positions) > _GAP * usual_mm) + 1), len(positions)]
        slabs = []
        for start, stop in pairwise(ends):
            if start == stop:
                continue
            slabs.append(self._end(int(start), int(min(start + 1, stop - 1)), -reach_mm))
            slabs += [self._between(plane) for plane in range(int(start), int(stop) - 1)]
            slabs.append(self._end(int(stop) - 1, int(max(stop - 2, start)), reach_mm))
        return slabs

    def section_at(self, position_mm: float) -> Section | None:
        """Return the cut at a position along k, None where the structure does not reach."""
        if len(self.positions_mm) == 0:
            return None
        nearest = int(np.abs(self.positions_mm - position_mm).argmin())
        if abs(self.positions_mm[nearest] - position_mm) <= SAME_PLANE_MM:
            return Section(nearest, nearest, 0.0)
        for slab in self.slabs():
            if slab.start_mm <= position_mm < slab.stop_mm:
                return slab.section(position_mm, float(self.positions_mm[slab.first]))
        return None

    def _between(self, plane: int) -> Slab:
        start_mm, stop_mm = (float(position) for position in self.positions_mm[plane : plane + 2])
        return Slab(start_mm, stop_mm, plane, plane + 1, 1.0 / (stop_mm - start_mm))

    def _end(self, plane: int, neighbor: int, reach_mm: float) -> Slab:
        position_mm = float(self.positions_mm[plane])
        start_mm, stop_mm = sorted((position_mm, position_mm + reach_mm))
        apart_mm = abs(float(self.positions_mm[neighbor]) - position_mm)
        return Slab(start_mm, stop_mm, plane, neighbor, -1.0 / apart_mm if apart_mm > 0 else 0.0)


def planes_of(
    contours: Sequence[Contour], affine: Float64[np.ndarray, "4 4"], *, end_reach: float = END_REACH
) -> ContourPlanes:
    """Sort contours into the planes in which they lie.

    Args:
        contours: Closed polygons; the last point need not repeat the first.
        affine: Of the grid whose slices the contours are parallel to.
        end_reach: How far the structure goes on beyond an end plane, in usual plane distances.

    Raises:
        CaseError: A contour is not parallel to the slices, a coordinate is not finite, or `end_reach` not in 0..0.5.
    """
    if not 0 <= end_reach <= END_REACH:
        raise CaseError(f"expected end planes to reach 0 to 0.5 plane distances outwards, got {end_reach:g}")
    voxel_from_world = np.linalg.inv(affine)
    slice_mm = spacing_mm(affine)[2]
    areas: list[tuple[float, Polygon]] = []
    for contour in contours:
        points = contour @ voxel_from_world[:3, :3].T + voxel_from_world[:3, 3]
        _require_axial(points, slice_mm)
        if len(np.unique(np.round(points, 6), axis=0)) >= 3:
            areas.append((float(points[:, 2].mean()) * slice_mm, np.ascontiguousarray(points[:, :2])))
    areas.sort(key=lambda area: area[0])
    groups: list[list[tuple[float, Polygon]]] = []
    for position, polygon in areas:
        if groups and position - groups[-1][0][0] <= SAME_PLANE_MM:
            groups[-1].append((position, polygon))
        else:
            groups.append([(position, polygon)])
    return ContourPlanes(
        positions_mm=np.array([float(np.mean([position for position, _ in group])) for group in groups]),
        polygons=tuple(tuple(polygon for _, polygon in group) for group in groups),
        slice_mm=slice_mm,
        num_degenerate=len(contours) - len(areas),
        end_reach=end_reach,
    )


def _require_axial(points: Float64[np.ndarray, "point 3"], slice_mm: float) -> None:
    if not np.isfinite(points).all():
        raise CaseError("expected finite contour coordinates, got NaN or infinity; export the structure set again")
    spread_mm = float(np.ptp(points[:, 2])) * slice_mm if len(points) else 0.0
    if spread_mm > SAME_PLANE_MM:
        raise CaseError(
            f"expected contours parallel to the slices, got one that spans {spread_mm:.3g} mm across them; "
            "export axial contours, or put the volume on a grid parallel to the contours"
        )

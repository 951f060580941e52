"""Contours of a structure set -> voxels of a grid, and back."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, UInt8

from medexp.errors import CaseError
from medexp.geometry.affine import Shape, spacing_mm
from medexp.geometry.contour_planes import END_REACH, Contour, ContourPlanes, planes_of
from medexp.geometry.contour_sections import Sections
from medexp.geometry.contour_tracing import trace
from medexp.geometry.polygon_filling import covered_shares

__all__ = ["Contour", "coverage_of", "planes_of", "planes_off_grid", "require_on_grid", "trace"]

_FULL = 255
_MARGIN = 2  # cells around the outlines, for distances


def coverage_of(
    contours: Sequence[Contour], affine: Float64[np.ndarray, "4 4"], shape: Shape, *, end_reach: float = END_REACH
) -> UInt8[np.ndarray, "i j k"]:
    """Return the share of each voxel inside the contours, in 255ths, in the voxel's central plane.

    Holes, parts and nested contours follow the even-odd rule (`medexp.geometry.polygon_filling`). What a slice between
    or beyond the contours' planes holds is decided in `medexp.geometry.contour_planes`. Parts outside of the grid are
    cut off: `require_on_grid` refuses them. The mask of a structure is `coverage >= 128`.

    Args:
        contours: Of one structure; those with fewer than three points are left out (`planes_of` counts them).
        affine: Of the grid.
        shape: Of the grid.
        end_reach: How far the structure goes on beyond its end planes, in plane distances.

    Raises:
        CaseError: A contour is not parallel to the grid's slices.
    """
    planes = planes_of(contours, affine, end_reach=end_reach)
    coverage = np.zeros(shape, dtype=np.uint8)
    cuts = [planes.section_at(k * planes.slice_mm) for k in range(shape[2])]
    low, high = _lattice(planes, shape)
    if not any(cuts) or (high <= low).any():
        return coverage
    shifted = [[polygon - low for polygon in group] for group in planes.polygons]
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    sections = Sections(covered_shares(shifted, size), spacing_mm(affine)[:2])
    for k, cut in enumerate(cuts):
        if cut is not None:
            coverage[low[0] : high[0], low[1] : high[1], k] = np.rint(_FULL * sections.share_of(cut))
    return coverage


def planes_off_grid(planes: ContourPlanes, shape: Shape) -> int:
    """Return how many planes lie beyond the grid's first or last slice, or reach over its sides."""
    positions = planes.positions_mm / planes.slice_mm
    off = (positions < -0.5) | (positions > shape[2] - 0.5)
    for plane, group in enumerate(planes.polygons):
        points = np.concatenate(group)
        off[plane] |= bool((points < -0.5).any() or (points > np.array(shape[:2]) - 0.5).any())
    return int(off.sum())


def require_on_grid(contours: Sequence[Contour], affine: Float64[np.ndarray, "4 4"], shape: Shape) -> None:
    """Refuse contours that the grid does not hold in whole.

    Raises:
        CaseError: Says how many planes reach over the grid; the caller names case and structure.
    """
    planes = planes_of(contours, affine)
    num_off = planes_off_grid(planes, shape)
    if num_off:
        raise CaseError(
            f"expected all contours on the grid of {shape[0]} x {shape[1]} x {shape[2]} voxels, got {num_off} of "
            f"{len(planes.polygons)} planes outside or across its border; use the CT that the contours were drawn on"
        )


def _lattice(planes: ContourPlanes, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Return the box of voxels in the plane that holds all outlines, cut at the grid."""
    if not planes.polygons:
        return np.zeros(2, dtype=int), np.zeros(2, dtype=int)
    points = np.concatenate([polygon for group in planes.polygons for polygon in group])
    low = np.clip(np.floor(points.min(axis=0)).astype(int) - _MARGIN, 0, shape[:2])
    high = np.clip(np.ceil(points.max(axis=0)).astype(int) + 1 + _MARGIN, 0, shape[:2])
    return low, high

"""Sample points within contours, finer than the voxels of the dose."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float64

from medexp.geometry.affine import spacing_mm
from medexp.geometry.contour_planes import END_REACH, Contour, ContourPlanes, Slab, planes_of
from medexp.geometry.contour_sections import Sections
from medexp.geometry.polygon_filling import covered_shares
from medexp.geometry.sample_layers import SampleLayer, evenly_spread

_MARGIN = 2  # cells around the outlines, for distances


def sample_layers(
    contours: Sequence[Contour], affine: Float64[np.ndarray, "4 4"], *, num_samples: int, end_reach: float = END_REACH
) -> Iterator[SampleLayer]:
    """Cut the structure into thin layers of small cells, about `num_samples` in all.

    Cells are no larger than the grid's voxels. Layers never cross a plane of the contours, and the shape between
    planes and beyond the last ones follows `medexp.geometry.contour_planes`.

    Raises:
        CaseError: A contour is not parallel to the grid's slices.
    """
    planes = planes_of(contours, affine, end_reach=end_reach)
    if not planes.polygons:
        return
    spacing = spacing_mm(affine)
    step_mm = min((_volume_mm3(planes, spacing) / num_samples) ** (1 / 3), *spacing)
    points = np.concatenate([polygon for group in planes.polygons for polygon in group])
    steps = np.array([step_mm / spacing[0], step_mm / spacing[1]])  # in voxels
    origin = points.min(axis=0) - (_MARGIN - 0.5) * steps
    size = np.ceil(np.ptp(points, axis=0) / steps).astype(int) + 2 * _MARGIN
    lattice = [[(polygon - origin) / steps for polygon in group] for group in planes.polygons]
    sections = Sections(covered_shares(lattice, (int(size[0]), int(size[1]))), (step_mm, step_mm))
    i, j = (origin[axis] + steps[axis] * np.arange(size[axis]) for axis in range(2))
    pattern = evenly_spread(np.arange(size[0])[:, None], np.arange(size[1]))
    for number, (slab, low_mm, high_mm) in enumerate(_layers(planes, step_mm)):
        middle_mm, cell_cc = (low_mm + high_mm) / 2, step_mm**2 * (high_mm - low_mm) / 1000
        section = slab.section(middle_mm, float(planes.positions_mm[slab.first]))
        yield SampleLayer(
            i=i + steps[0] * evenly_spread(number, 0),
            j=j + steps[1] * evenly_spread(0, number),
            k=middle_mm / planes.slice_mm,
            shifts_k=pattern * ((high_mm - low_mm) / planes.slice_mm),
            volumes_cc=sections.share_of(section) * np.float32(cell_cc),
            cell_cc=cell_cc,
        )


def _layers(planes: ContourPlanes, step_mm: float) -> Iterator[tuple[Slab, float, float]]:
    """Return each layer's region, lower and upper end; layers are no thicker than a step."""
    for slab in planes.slabs():
        thickness_mm = slab.stop_mm - slab.start_mm
        if thickness_mm > 0:
            edges = np.linspace(slab.start_mm, slab.stop_mm, int(np.ceil(thickness_mm / step_mm)) + 1)
            yield from ((slab, float(low), float(high)) for low, high in pairwise(edges))


def _volume_mm3(planes: ContourPlanes, spacing: tuple[float, float, float]) -> float:
    """Return about how large the structure is; holes count as filled."""
    area = sum(_area(polygon) for group in planes.polygons for polygon in group) * spacing[0] * spacing[1]
    return max(area, 1e-6) * planes.usual_distance_mm


def _area(polygon: Float64[np.ndarray, "point 2"]) -> float:
    x, y = (polygon - polygon[0]).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2

"""Dose-volume histograms of structures, from masks or coverage on the dose's grid, or from contours.

What the points of a DVH mean is said in `medexp.metrics.dvh_curve`. From contours they are the most accurate: samples
are finer than the voxels, in the plane and across it. On a grid each voxel is one sample, as large as its share inside
the structure where coverage is known, and points come as near as half a voxel; with `num_samples` voxels are divided
and the dose is interpolated.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, SupportsFloat, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, UInt8

from medexp.errors import CaseError
from medexp.geometry.affine import spacing_mm as voxel_size_mm
from medexp.geometry.contour_planes import Contour
from medexp.geometry.contour_sampling import sample_layers
from medexp.geometry.sample_layers import SampleLayer, voxel_layers
from medexp.metrics.dvh_curve import Dvh
from medexp.metrics.grids import bounding_box, is_empty, require_same_grid, spacing_on

__all__ = ["Dvh", "dvh_of_contours", "dvh_of_mask", "dvh_points"]

Mask: TypeAlias = Bool[np.ndarray, "a b c"] | UInt8[np.ndarray, "a b c"]  # its own axes: the check names both shapes

_FULL, _HALF = 255, 128  # of a coverage
# Of the end planes, in plane distances. Programs differ: Eclipse's volumes are those of 0.3, SlicerRT's of 0.4, CERR's
# of 0.5. Where dose falls by 4 Gy per mm at an end, 0.5 makes D98 lower than all three; 0.45 is always in their range.
END_REACH = 0.45
NUM_SAMPLES = 300_000  # per structure: 0.3 mm for 10 cc, 1.5 mm for 1,000 cc


def dvh_of_mask(
    dose_gy: Float[np.ndarray, "i j k"],
    structure: Mask,
    spacing_mm: Iterable[SupportsFloat],
    *,
    num_samples: int | None = None,
) -> Dvh | None:
    """Return the DVH of a structure on the dose's grid.

    Args:
        dose_gy: Absorbed dose.
        structure: A mask, or shares of the voxels inside in 255ths (uint8), which weigh the voxels.
        spacing_mm: Voxel size along i, j, k.
        num_samples: Divide each voxel alike along all axes, so that there are about so many samples of linearly
            interpolated dose, spread evenly inside of the voxels; large structures have one per voxel. Points are two
            to four times nearer to the truth where dose is linear. None: one per voxel, in its middle.

    Returns:
        The DVH, None if the structure is empty.

    Raises:
        GridMismatchError: The shapes differ.
        CaseError: A dose inside the structure is not finite, a voxel size is not positive, or `num_samples` is below 1.
    """
    require_same_grid(dose_gy, structure)
    voxel_cc = float(np.prod(spacing_on(dose_gy, spacing_mm))) / 1000
    box = bounding_box(structure)
    if is_empty(box):
        return None
    near = structure[box]
    if num_samples is not None:
        refine = _cells_per_axis(num_samples, int(np.count_nonzero(near)))
        shares = (near / np.float32(1 if near.dtype == np.bool_ else _FULL)).astype(np.float32)
        around_gy, origin = _around(dose_gy, box)
        layers = voxel_layers(shares, origin, voxel_cc, refine=refine)
        return _dvh_of_layers(around_gy, layers, voxel_cc, outside_gy=None)
    inside = near if near.dtype == np.bool_ else near > 0
    doses = _finite(dose_gy[box][inside])
    if near.dtype == np.bool_:
        return Dvh(doses, voxel_cc, len(doses))
    shares = near[inside]
    mostly_inside = shares >= _HALF
    return Dvh(doses, shares * (voxel_cc / _FULL), int(mostly_inside.sum()), mostly_inside)


def dvh_of_contours(
    dose_gy: Float[np.ndarray, "i j k"],
    affine: Float64[np.ndarray, "4 4"],
    contours: Sequence[Contour],
    *,
    outside_gy: float | None = None,
    num_samples: int = NUM_SAMPLES,
    end_reach: float = END_REACH,
) -> Dvh | None:
    """Return the DVH of a contoured structure, from samples finer than the dose's voxels.

    The dose is interpolated linearly between voxel centers, and constant in the outer half of the border voxels.

    Args:
        dose_gy: Absorbed dose.
        affine: Of the dose's grid, parallel to the contours.
        contours: Of one structure, in world mm.
        outside_gy: Dose where the grid ends; None: a structure that reaches over it is refused.
        num_samples: About how many samples.
        end_reach: How far the structure goes on beyond its end planes (`medexp.geometry.contour_planes`), in plane
            distances; 0.5 for shapes known to fill their end slices.

    Returns:
        The DVH, None if the contours hold no volume.

    Raises:
        CaseError: The structure reaches over the grid, a dose inside of it is not finite, or a contour is not parallel
            to the slices.
    """
    voxel_cc = float(np.prod(voxel_size_mm(affine))) / 1000
    layers = sample_layers(contours, affine, num_samples=num_samples, end_reach=end_reach)
    return _dvh_of_layers(dose_gy, layers, voxel_cc, outside_gy=outside_gy)


def dvh_points(
    dvh: Dvh,
    *,
    percents: Iterable[SupportsFloat] = (98, 95, 50, 5, 2),
    volumes_cc: Iterable[SupportsFloat] = (0.1,),
    doses_gy: Iterable[SupportsFloat] = (),
) -> dict[str, float]:
    """Return points of a DVH by name: `dmean_gy`, `d95_gy`, `d0.1cc_gy`, `v20gy_percent`, `v20gy_cc`, `volume_cc`.

    Args:
        dvh: Of one structure.
        percents: The p of every D_p.
        volumes_cc: The volumes of every D_cc.
        doses_gy: The x of every V_x, in percent and cc.
    """
    points = {
        "volume_cc": dvh.volume_cc,
        "dmean_gy": dvh.mean_gy,
        "dmin_gy": dvh.minimum_gy,
        "dmax_gy": dvh.maximum_gy,
    }
    points |= {f"d{percent:g}_gy": dvh.dose_at_volume_percent(percent) for percent in map(float, percents)}
    points |= {f"d{volume:g}cc_gy": dvh.dose_at_volume_cc(volume) for volume in map(float, volumes_cc)}
    for dose in map(float, doses_gy):
        points[f"v{dose:g}gy_percent"] = dvh.volume_percent_at_dose(dose)
        points[f"v{dose:g}gy_cc"] = dvh.volume_cc_at_dose(dose)
    return points


def _cells_per_axis(num_samples: int, num_voxels: int) -> int:
    """Return how often to divide a voxel along each axis for about so many samples in all."""
    if num_samples < 1:
        raise CaseError(f"expected 1 or more samples, got num_samples={num_samples}")
    return max(1, round((num_samples / num_voxels) ** (1 / 3)))


def _dvh_of_layers(
    dose_gy: Float[np.ndarray, "i j k"], layers: Iterable[SampleLayer], voxel_cc: float, *, outside_gy: float | None
) -> Dvh | None:
    doses, volumes, inner, lost_cc = [], [], [], 0.0
    for layer in layers:
        held = np.flatnonzero(layer.volumes_cc > 0)
        found = _interpolated(dose_gy, layer).take(held)
        volumes.append(layer.volumes_cc.take(held).astype(np.float64))
        inner.append(volumes[-1] >= layer.cell_cc / 2)
        covered = _covered(layer, dose_gy.shape)
        if not covered.all():
            lost = ~covered.take(held)
            found[lost] = outside_gy or 0.0
            lost_cc += float(volumes[-1][lost].sum())
        doses.append(found)
    total_cc = float(sum(part.sum() for part in volumes))
    if total_cc == 0:
        return None
    if outside_gy is None:
        _require_covered(lost_cc, total_cc)
    num_voxels = round(total_cc / voxel_cc)
    return Dvh(_finite(np.concatenate(doses)), np.concatenate(volumes), num_voxels, np.concatenate(inner))


def _finite(doses_gy: Float[np.ndarray, " sample"]) -> Float[np.ndarray, " sample"]:
    if np.isfinite(doses_gy.sum(dtype=np.float64)):
        return doses_gy
    num_bad = int((~np.isfinite(doses_gy)).sum())
    raise CaseError(
        f"expected finite doses in the structure, got {num_bad} of {len(doses_gy)} NaN or infinite; "
        "repair the dose file, or leave the case out"
    )


def _require_covered(lost_cc: float, total_cc: float) -> None:
    if lost_cc > 1e-9 * total_cc:
        raise CaseError(
            f"expected a dose grid that covers the structure, got none for {lost_cc:.3g} of {total_cc:.3g} cc "
            f"({100 * lost_cc / total_cc:.2g} %); export the dose of the whole structure, or say what dose lies outside"
        )


def _covered(layer: SampleLayer, shape: tuple[int, ...]) -> Bool[np.ndarray, "row column"]:
    """Return which points lie in a voxel of the grid."""
    i, j = ((at >= -0.5) & (at <= size - 0.5) for at, size in zip((layer.i, layer.j), shape[:2], strict=True))
    i &= -0.5 <= layer.k <= shape[2] - 0.5
    covered: Bool[np.ndarray, "row column"] = i[:, None] & j
    return covered


def _interpolated(dose_gy: Float[np.ndarray, "i j k"], layer: SampleLayer) -> Float[np.ndarray, "row column"]:
    """Return the dose at the points of a layer; on a lattice linear interpolation goes axis by axis."""
    rows, columns = _taps(layer.i, dose_gy.shape[0]), _taps(layer.j, dose_gy.shape[1])
    below = min(max(int(np.floor(layer.k)), 0), max(dose_gy.shape[2] - 2, 0))
    above = min(below + 1, dose_gy.shape[2] - 1)
    lower, upper = (columns.between(rows.between(dose_gy[:, :, k], 0), 1) for k in (below, above))
    share = np.clip(layer.k + layer.shifts_k, 0.0, dose_gy.shape[2] - 1.0) - below
    upper -= lower
    upper *= share.astype(upper.dtype)
    upper += lower
    return upper


class _Taps(NamedTuple):
    """The two voxels that each point of an axis lies between, and how near it is to the second."""

    below: Int64[np.ndarray, " point"]
    above: Int64[np.ndarray, " point"]
    share: Float64[np.ndarray, " point"]

    def between(self, plane: Float[np.ndarray, "row column"], axis: int) -> Float[np.ndarray, "..."]:
        """Return the values of a plane at the points along one of its axes."""
        share = self.share.astype(plane.dtype)
        lower, found = plane.take(self.below, axis), plane.take(self.above, axis)
        found -= lower
        found *= share[:, None] if axis == 0 else share
        found += lower
        return found


def _taps(positions: Float64[np.ndarray, " point"], size: int) -> _Taps:
    clamped = np.clip(positions, 0, size - 1)
    below = np.minimum(clamped.astype(np.int64), max(size - 2, 0))
    return _Taps(below, np.minimum(below + 1, size - 1), clamped - below)


def _around(
    dose_gy: Float[np.ndarray, "i j k"], box: tuple[slice, ...]
) -> tuple[Float[np.ndarray, "a b c"], tuple[int, int, int]]:
    """Return the dose in a box and a voxel around it, slice by slice in memory, and the box's first voxel in there."""
    first = [max(part.start - 1, 0) for part in box]
    near = dose_gy[tuple(slice(low, part.stop + 1) for low, part in zip(first, box, strict=True))]
    by_slice = np.moveaxis(np.ascontiguousarray(np.moveaxis(near, 2, 0)), 0, 2)
    start = [part.start - low for low, part in zip(first, box, strict=True)]
    return by_slice, (start[0], start[1], start[2])

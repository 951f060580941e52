"""Dose-volume histograms of structures, from masks or coverage on the dose's grid, or from contours.

What the points of a DVH mean is said in `medexp.metrics.dvh_curve`. From contours they are the most accurate: samples
are finer than the voxels, in the plane and across it. On a grid each voxel is one sample, as large as its share inside
the structure where coverage is known, and points come as near as half a voxel; `refine` divides voxels and interpolates
the dose.
"""

from collections.abc import Iterable, Sequence
from typing import SupportsFloat, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8

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
_NUM_SAMPLES = 300_000  # per structure: 0.3 mm for 10 cc, 1.5 mm for 1,000 cc


def dvh_of_mask(
    dose_gy: Float[np.ndarray, "i j k"], structure: Mask, spacing_mm: Iterable[SupportsFloat], *, refine: int = 1
) -> Dvh | None:
    """Return the DVH of a structure on the dose's grid.

    Args:
        dose_gy: Absorbed dose.
        structure: A mask, or shares of the voxels inside in 255ths (uint8), which weigh the voxels.
        spacing_mm: Voxel size along i, j, k.
        refine: Samples per voxel along each axis, with equal volumes and linearly interpolated doses. With 2, points
            are two to four times nearer to the truth where dose is linear; more gains little.

    Returns:
        The DVH, None if the structure is empty.

    Raises:
        GridMismatchError: The shapes differ.
        CaseError: A dose inside the structure is not finite, a voxel size is not positive, or `refine` is below 1.
    """
    require_same_grid(dose_gy, structure)
    voxel_cc = float(np.prod(spacing_on(dose_gy, spacing_mm))) / 1000
    box = bounding_box(structure)
    if is_empty(box):
        return None
    if refine < 1:
        raise CaseError(f"expected 1 or more samples per voxel and axis, got refine={refine}")
    near = structure[box]
    if refine > 1:
        shares = (near / np.float32(1 if near.dtype == np.bool_ else _FULL)).astype(np.float32)
        origin = (box[0].start, box[1].start, box[2].start)
        return _dvh_of_layers(dose_gy, voxel_layers(shares, origin, voxel_cc, refine=refine), voxel_cc, outside_gy=None)
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
    num_samples: int = _NUM_SAMPLES,
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


def _dvh_of_layers(
    dose_gy: Float[np.ndarray, "i j k"], layers: Iterable[SampleLayer], voxel_cc: float, *, outside_gy: float | None
) -> Dvh | None:
    doses, volumes, inner, lost_cc = [], [], [], 0.0
    for layer in layers:
        held = layer.volumes_cc > 0
        covered = _covered(layer, dose_gy.shape)[held]
        doses.append(np.where(covered, _interpolated(dose_gy, layer)[held], outside_gy or 0.0))
        volumes.append(layer.volumes_cc[held].astype(np.float64))
        inner.append(volumes[-1] >= layer.cell_cc / 2)
        lost_cc += float(volumes[-1][~covered].sum())
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
    covered: Bool[np.ndarray, "row column"] = i[:, None] & j & (-0.5 <= layer.k <= shape[2] - 0.5)
    return covered


def _interpolated(dose_gy: Float[np.ndarray, "i j k"], layer: SampleLayer) -> Float[np.ndarray, "row column"]:
    """Return the dose at the points of a layer; on a lattice linear interpolation goes axis by axis."""
    below = min(max(int(np.floor(layer.k)), 0), max(dose_gy.shape[2] - 2, 0))
    above = min(below + 1, dose_gy.shape[2] - 1)
    lower, upper = (_at_rows(_at_rows(dose_gy[:, :, k], layer.i).T, layer.j).T for k in (below, above))
    share = np.clip(layer.k + layer.shifts_k, 0.0, dose_gy.shape[2] - 1.0) - below
    return lower + share * (upper - lower)


def _at_rows(
    plane: Float[np.ndarray, "row column"], positions: Float64[np.ndarray, " position"]
) -> Float64[np.ndarray, "position column"]:
    """Return the rows of a plane at fractional indices."""
    clamped = np.clip(positions, 0, len(plane) - 1)
    below = np.minimum(clamped.astype(np.int64), max(len(plane) - 2, 0))
    share = (clamped - below)[:, None]
    return (1.0 - share) * plane[below] + share * plane[np.minimum(below + 1, len(plane) - 1)]

"""Signed distances to the surface of a structure."""

from collections.abc import Iterable
from typing import SupportsFloat

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from scipy import ndimage

from medexp.errors import CaseError


def signed_distance_mm(
    mask: Bool[np.ndarray, "i j k"] | UInt8[np.ndarray, "i j k"],
    spacing_mm: Iterable[SupportsFloat],
    *,
    clip_mm: SupportsFloat,
) -> Float32[np.ndarray, "i j k"]:
    """Return the distance of each voxel to the structure's surface: positive outside, negative inside.

    Outside it is the distance to the center of the nearest voxel inside, inside the negative distance to the nearest
    one outside: never 0, so that a voxel is inside exactly where the distance is below 0. What lies beyond the volume
    is not outside.

    Args:
        mask: Anything but 0 is inside.
        spacing_mm: Voxel size along i, j, k.
        clip_mm: Longer distances become this long. An empty structure is this far away everywhere, one that fills the
            volume this deep.

    Raises:
        CaseError: A voxel size or the clip is not positive.
    """
    spacing = tuple(float(size) for size in spacing_mm)
    clip = float(clip_mm)
    if len(spacing) != 3 or not all(0 < size < np.inf for size in (*spacing, clip)):
        raise CaseError(f"expected three positive voxel sizes and a positive clip in mm, got {spacing} and {clip:g}")
    inside = mask.astype(bool)  # an inverted uint8 would be 254, not False
    distances = np.full(inside.shape, clip, dtype=np.float32)
    box = _box(inside)
    if box is None:
        return distances
    near = _grown(box, inside.shape, [int(np.ceil(clip / size)) for size in spacing])
    outward: Float64[np.ndarray, "a b c"] = ndimage.distance_transform_edt(~inside[near], sampling=spacing)
    distances[near] = np.minimum(outward, clip)
    deep = _grown(box, inside.shape, [1, 1, 1])  # one voxel of outside on every side, where there is one
    depths = np.full(inside[deep].shape, clip)
    if not inside[deep].all():
        depths = ndimage.distance_transform_edt(inside[deep], sampling=spacing)
    view = distances[deep]
    view[inside[deep]] = -np.minimum(depths, clip)[inside[deep]]
    return distances


def _box(inside: Bool[np.ndarray, "i j k"]) -> tuple[slice, ...] | None:
    sides = []
    for axis in range(3):
        held = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        if not held.size:
            return None
        sides.append(slice(int(held[0]), int(held[-1]) + 1))
    return tuple(sides)


def _grown(box: tuple[slice, ...], shape: tuple[int, ...], margins: list[int]) -> tuple[slice, ...]:
    return tuple(
        slice(max(0, side.start - margin), min(size, side.stop + margin))
        for side, size, margin in zip(box, shape, margins, strict=True)
    )

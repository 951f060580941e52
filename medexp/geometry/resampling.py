"""Put a volume on a grid of another size over the same extent. The outer faces of both grids coincide."""

import numpy as np
from jaxtyping import Float32, Shaped, UInt8


def resampled_shape(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...], target_mm: tuple[float, ...]
) -> tuple[int, ...]:
    """Return the number of voxels whose size comes closest to `target_mm`; at least one per axis."""
    sizes = zip(shape, spacing_mm, target_mm, strict=True)
    return tuple(max(1, int(np.floor(size * old / new + 0.5))) for size, old, new in sizes)


def resample_linear(volume: Shaped[np.ndarray, "*leading i j k"], shape: tuple[int, ...]) -> Float32[np.ndarray, "..."]:
    """Interpolate linearly along the last three axes; beyond the outermost voxel centers the edge value holds.

    An axis whose size does not change is not touched, so that equal shapes return equal values.
    """
    result = volume.astype(np.float32, copy=False)
    offset = volume.ndim - 3
    for axis in sorted(range(3), key=lambda axis: shape[axis] / volume.shape[offset + axis]):  # shrinking first
        if shape[axis] != result.shape[offset + axis]:
            result = _along(result, offset + axis, shape[axis])
    return result


def _along(volume: Float32[np.ndarray, "..."], axis: int, size: int) -> Float32[np.ndarray, "..."]:
    old = volume.shape[axis]
    position = np.clip((np.arange(size) + 0.5) * (old / size) - 0.5, 0.0, old - 1.0)
    lower = np.floor(position).astype(np.intp)
    weight = (position - lower).astype(np.float32).reshape((-1,) + (1,) * (volume.ndim - axis - 1))
    below = np.take(volume, lower, axis=axis)
    below += weight * (np.take(volume, np.minimum(lower + 1, old - 1), axis=axis) - below)
    return below


def resample_label(label: UInt8[np.ndarray, "i j k"], shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """Interpolate every label's mask linearly and take the largest; the lower value wins a tie.

    Equal shapes return the label itself.
    """
    if tuple(shape) == label.shape:
        return label
    result = np.zeros(shape, np.uint8)
    best = np.full(shape, -1.0, np.float32)
    for value in np.flatnonzero(np.bincount(label.ravel(), minlength=1)):
        share = resample_linear(label == value, shape)
        wins = share > best
        result[wins] = value
        best[wins] = share[wins]
    return result

"""From a cohort's fingerprint to a patch and a network that fit it.

Source:
    The pooling rule is nnU-Net v2's (experiment_planning, `get_pool_and_conv_props`, Apache-2.0): an axis is
    halved while 4 voxels remain, and coarse axes wait until the fine ones have caught up. The patch rule is our
    own: a budget of voxels instead of an estimate of GPU memory.
"""

from collections.abc import Sequence

import numpy as np

from medexp.errors import ConfigurationError
from medexp.types import Plan

PATCH_VOXELS = 128**3
_LEAST_SIZE = 4  # voxels of the coarsest feature map along an axis
_ANISOTROPY = 2.0  # an axis this much coarser than the finest is not halved yet, and not convolved along


def make_plan(
    *,
    spacing_mm: Sequence[float],
    median_shape: Sequence[int],
    patch_size: Sequence[int] | None,
    patch_voxels: int = PATCH_VOXELS,
) -> Plan:
    """Return patch, strides and kernels.

    Args:
        spacing_mm: Of the stored cases.
        median_shape: Of the stored cases.
        patch_size: A configured patch, which is kept; None: as much of the median shape as the budget allows,
            rounded up to what the network's strides divide.
        patch_voxels: The budget.

    Raises:
        ConfigurationError: A configured patch has another number of axes or a side below 4 voxels.
    """
    if patch_size is not None:
        require_patch(patch_size, num_axes=len(spacing_mm))
        strides, kernels = _levels(spacing_mm, patch_size, exact=True)
        return _plan(spacing_mm, patch_size, strides, kernels)
    patch = _initial_patch(spacing_mm, median_shape, patch_voxels)
    while True:
        strides, kernels = _levels(spacing_mm, patch, exact=False)
        divisor = [int(step) for step in np.prod(strides, axis=0)]
        rounded = [-(-size // step) * step for size, step in zip(patch, divisor, strict=True)]
        if np.prod(rounded) <= patch_voxels or max(rounded) <= _LEAST_SIZE:
            return _plan(spacing_mm, rounded, strides, kernels)
        patch = _reduced(rounded, median_shape, divisor)


def require_patch(patch_size: Sequence[int], *, num_axes: int) -> None:
    """Refuse a configured patch that no network fits.

    Raises:
        ConfigurationError: Names `dataset.patch_size`.
    """
    if len(patch_size) != num_axes or min(patch_size) < _LEAST_SIZE:
        message = f"dataset.patch_size: expected {num_axes} sides of at least {_LEAST_SIZE} voxels"
        raise ConfigurationError(f"{message}, got {list(patch_size)}")


def _plan(
    spacing_mm: Sequence[float],
    patch: Sequence[int],
    strides: Sequence[tuple[int, ...]],
    kernels: Sequence[tuple[int, ...]],
) -> Plan:
    spacing = tuple(float(size) for size in spacing_mm)
    return Plan(spacing, tuple(int(size) for size in patch), tuple(strides), tuple(kernels))


def _initial_patch(spacing_mm: Sequence[float], median_shape: Sequence[int], patch_voxels: int) -> list[int]:
    """Return a patch of equal millimeters within the median shape that nearly uses the budget."""
    shape = np.array(median_shape, dtype=float)
    low, high = 0.0, float((shape * spacing_mm).max())
    for _ in range(60):  # bisection on the side in mm; the volume grows with it
        middle = 0.5 * (low + high)
        volume = np.minimum(middle / np.array(spacing_mm), shape).prod()
        low, high = (middle, high) if volume <= patch_voxels else (low, middle)
    sides = np.minimum(np.ceil(high / np.array(spacing_mm) - 1e-6), shape)
    return [max(1, int(side)) for side in sides]


def _reduced(patch: Sequence[int], median_shape: Sequence[int], divisor: Sequence[int]) -> list[int]:
    """Return the patch with its relatively longest axis one step shorter."""
    share = [size / full if size > step else 0.0 for size, full, step in zip(patch, median_shape, divisor, strict=True)]
    axis = int(np.argmax(share))
    smaller = list(patch)
    smaller[axis] = max(1, smaller[axis] - int(divisor[axis]))
    return smaller


def _levels(
    spacing_mm: Sequence[float], patch: Sequence[int], *, exact: bool
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return stride and kernel per level, finest first; `exact` halves only sizes that are even."""
    spacing, size = [float(value) for value in spacing_mm], list(patch)
    strides: list[tuple[int, ...]] = [(1,) * len(size)]
    kernels = [_kernel(spacing, before=(1,) * len(size))]
    while True:
        halved = _axes_to_halve(spacing, size, exact=exact)
        if not halved:
            return strides, kernels
        strides.append(tuple(2 if axis in halved else 1 for axis in range(len(size))))
        size = [-(-value // 2) if axis in halved else value for axis, value in enumerate(size)]
        spacing = [value * 2 if axis in halved else value for axis, value in enumerate(spacing)]
        kernels.append(_kernel(spacing, before=kernels[-1]))


def _axes_to_halve(spacing: Sequence[float], size: Sequence[int], *, exact: bool) -> list[int]:
    axes = [axis for axis, value in enumerate(size) if value >= 2 * _LEAST_SIZE and not (exact and value % 2)]
    if not axes:
        return []
    finest = min(spacing[axis] for axis in axes)
    axes = [axis for axis in axes if spacing[axis] / finest < _ANISOTROPY]
    if len(axes) == 1 and len(size) > 1 and size[axes[0]] < 3 * _LEAST_SIZE:
        return []
    return axes


def _kernel(spacing: Sequence[float], *, before: Sequence[int]) -> tuple[int, ...]:
    """Return 3 along the axes that are fine enough, and where a finer level has it already."""
    finest = min(spacing)
    return tuple(
        3 if was == 3 or value / finest < _ANISOTROPY else 1 for value, was in zip(spacing, before, strict=True)
    )

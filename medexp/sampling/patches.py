"""Which patch of a case: a pure function of (seed, epoch, index), whatever the worker, rank or batch."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from jaxtyping import Int16

# What a generator is for: the streams of one key are independent.
ORDER: Final = 0
POSITION: Final = 1
AUGMENTATION: Final = 2


def generator_of(purpose: int, *, seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator for one purpose of one sample."""
    return np.random.default_rng([seed, epoch, index, purpose])


def patch_start(
    generator: np.random.Generator,
    *,
    shape: Sequence[int],
    patch_size: Sequence[int],
    foreground_fraction: float,
    foreground: Callable[[], Int16[np.ndarray, "voxel column"]],
) -> tuple[int, ...]:
    """Return the first voxel of a patch; negative where the volume is smaller and lies in the patch's middle.

    Args:
        generator: Draws.
        shape: Of the volume, without channels.
        patch_size: Of the patch.
        foreground_fraction: Probability that the patch is centered on a labelled voxel: of a label that is
            drawn from those present, whatever their size. At the volume's edge the patch is moved inside.
        foreground: Gives the labelled voxels as rows (label, i, j, k); called only when one is needed. If
            there are none, the patch lies anywhere.
    """
    ranges = [_starts(length, size) for length, size in zip(shape, patch_size, strict=True)]
    rows = foreground() if generator.random() < foreground_fraction else None
    if rows is not None and len(rows):
        center = _labelled_voxel(generator, rows)
        wanted = [voxel - size // 2 for voxel, size in zip(center, patch_size, strict=True)]
        return tuple(min(max(start, low), high) for start, (low, high) in zip(wanted, ranges, strict=True))
    return tuple(int(generator.integers(low, high + 1)) for low, high in ranges)


def _starts(length: int, size: int) -> tuple[int, int]:
    """Return the lowest and highest start along one axis."""
    return (0, length - size) if length >= size else ((length - size) // 2, (length - size) // 2)


def _labelled_voxel(generator: np.random.Generator, rows: Int16[np.ndarray, "voxel column"]) -> tuple[int, ...]:
    labels = rows[:, 0]
    label = generator.choice(np.unique(labels))
    row = generator.choice(np.flatnonzero(labels == label))
    return tuple(int(index) for index in rows[row, 1:])

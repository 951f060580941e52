"""Which patch of a case: a pure function of (seed, epoch, index), whatever the worker, rank or batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer, UInt8

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
    foreground: Callable[[], Integer[np.ndarray, "voxel column"]],
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


@runtime_checkable
class Labelled(Protocol):
    """What positions are chosen from: a stored case."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size without channels."""
        ...

    def foreground(self) -> Integer[np.ndarray, "voxel column"]:
        """Return labelled voxels as rows (label, coordinates)."""
        ...

    def label(self) -> UInt8[np.ndarray, "*spatial"]:
        """Return the label map; memory-mapped, so that a part costs no more than its size."""
        ...


@runtime_checkable
class Positions(Protocol):
    """Where patches lie."""

    def start(self, generator: np.random.Generator, case: Any, *, patch_size: Sequence[int]) -> tuple[int, ...]:
        """Return the first voxel of a patch of a case (`Labelled`): a pure function of the generator's state."""
        ...


@dataclass(frozen=True)
class LabelPositions:
    """A share of the patches is centered on a labelled voxel, the others lie anywhere; see `patch_start`."""

    foreground_fraction: float

    def start(self, generator: np.random.Generator, case: Labelled, *, patch_size: Sequence[int]) -> tuple[int, ...]:
        """Return the first voxel of a patch."""
        return patch_start(
            generator,
            shape=case.shape,
            patch_size=patch_size,
            foreground_fraction=self.foreground_fraction,
            foreground=case.foreground,
        )


@runtime_checkable
class Planned(Protocol):
    """What positions of doses are chosen from: a stored case."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size without channels."""
        ...

    def high_dose(self) -> Integer[np.ndarray, "voxel column"]:
        """Return voxels of a considerable dose as rows (1, coordinates)."""
        ...


@dataclass(frozen=True)
class HighDosePositions:
    """A share of the patches is centered on a voxel of a considerable dose, the others lie anywhere."""

    high_dose_fraction: float

    def start(self, generator: np.random.Generator, case: Planned, *, patch_size: Sequence[int]) -> tuple[int, ...]:
        """Return the first voxel of a patch."""
        return patch_start(
            generator,
            shape=case.shape,
            patch_size=patch_size,
            foreground_fraction=self.high_dose_fraction,
            foreground=case.high_dose,
        )


def moved_start(
    start: Sequence[int], shift: Sequence[int], *, shape: Sequence[int], patch_size: Sequence[int]
) -> tuple[int, ...]:
    """Return where a patch begins that was moved, but no farther than to where the volume ends.

    A patch shows voxels of the volume all over. One that is larger than the volume goes on to show all of it.
    """
    ends = [sorted((0, length - size)) for length, size in zip(shape, patch_size, strict=True)]
    return tuple(min(max(first + by, low), high) for first, by, (low, high) in zip(start, shift, ends, strict=True))


@dataclass(frozen=True)
class ObjectPositions:
    """A share of the patches lies on objects, not always in their middle; the others hold little or nothing of them.

    Attributes:
        foreground_fraction: Probability of a patch on an object: centered on one of its pixels, then moved.
        jitter: By how much at most, along each axis, as a share of the patch.
        negative_coverage: The other patches hold less than this share of object pixels.
        negative_tries: Places that are tried for one; if none will do, the one with the fewest object pixels is it.
    """

    foreground_fraction: float
    jitter: float
    negative_coverage: float
    negative_tries: int

    def start(self, generator: np.random.Generator, case: Labelled, *, patch_size: Sequence[int]) -> tuple[int, ...]:
        """Return the first pixel of a patch."""
        ranges = [_starts(length, size) for length, size in zip(case.shape, patch_size, strict=True)]
        rows = case.foreground()
        if generator.random() < self.foreground_fraction and len(rows):
            center = _labelled_voxel(generator, rows)
            moved = [generator.uniform(-self.jitter, self.jitter) * size for size in patch_size]
            wanted = [round(voxel - size / 2 + by) for voxel, size, by in zip(center, patch_size, moved, strict=True)]
            return tuple(min(max(start, low), high) for start, (low, high) in zip(wanted, ranges, strict=True))
        return self._negative(generator, case.label(), ranges, patch_size)

    def _negative(
        self,
        generator: np.random.Generator,
        label: UInt8[np.ndarray, "*spatial"],
        ranges: Sequence[tuple[int, int]],
        patch_size: Sequence[int],
    ) -> tuple[int, ...]:
        best: tuple[int, tuple[int, ...]] | None = None
        allowed = self.negative_coverage * float(np.prod(patch_size))
        for _ in range(self.negative_tries):
            start = tuple(int(generator.integers(low, high + 1)) for low, high in ranges)
            window = tuple(slice(max(first, 0), first + size) for first, size in zip(start, patch_size, strict=True))
            held = int(np.count_nonzero(label[window]))
            if best is None or held < best[0]:
                best = (held, start)
            if held < allowed:
                break
        assert best is not None  # at least one try
        return best[1]


def _starts(length: int, size: int) -> tuple[int, int]:
    """Return the lowest and highest start along one axis."""
    return (0, length - size) if length >= size else ((length - size) // 2, (length - size) // 2)


def _labelled_voxel(generator: np.random.Generator, rows: Integer[np.ndarray, "voxel column"]) -> tuple[int, ...]:
    labels = rows[:, 0]
    label = generator.choice(np.unique(labels))
    row = generator.choice(np.flatnonzero(labels == label))
    return tuple(int(index) for index in rows[row, 1:])

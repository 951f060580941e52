"""Stored arrays as they lie on the disk: files that stay mapped, the part of a volume under a patch, quick copies."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

Slices = tuple[slice, ...]


class MappedFiles:
    """Files that stay mapped after their first patch: mapping one anew costs as much as copying the patch."""

    def __init__(self, most: int | None = None) -> None:
        """Start with nothing.

        Args:
            most: Files that stay mapped, the latest ones; None: all. What was read of a mapped file counts as this
                process' memory as long as it is mapped.
        """
        self.most = most
        self._mapped: dict[Path, tuple[tuple[int, ...] | None, np.ndarray]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the files out: a worker maps its own, and pickle would copy their content."""
        return {**self.__dict__, "_mapped": {}}

    def __len__(self) -> int:
        return len(self._mapped)

    def array(self, path: Path, mapped: Callable[[], np.ndarray]) -> Shaped[np.ndarray, "..."]:
        """Return the array that was mapped before, unless the file has changed: reading beyond its end would crash."""
        state = _state(path)
        if path not in self._mapped or self._mapped[path][0] != state:
            array = np.asarray(mapped())
            self._mapped[path] = (_state(path), array)
            while self.most is not None and len(self._mapped) > self.most:
                del self._mapped[next(iter(self._mapped))]
        return self._mapped[path][1]


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:  # the case says what is wrong, or makes the file anew
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def overlap(
    start: Sequence[int], *, shape: Sequence[int], size: Sequence[int], flips: Sequence[int] = ()
) -> tuple[Slices, Slices]:
    """Return the voxels of the volume that a patch shows, and where in the mirrored patch they go."""
    source, target = [], []
    for axis, (begin, length, side) in enumerate(zip(start, shape, size, strict=True)):
        first, stop = max(begin, 0), min(begin + side, length)
        source.append(slice(first, stop))
        place = begin + side - stop if axis in flips else first - begin
        target.append(slice(place, place + stop - first))
    return tuple(source), tuple(target)


def covers(target: Slices, size: Sequence[int]) -> bool:
    """Return whether a part of a patch is the whole patch."""
    return all(part.stop - part.start == length for part, length in zip(target, size, strict=True))


def filled(
    part: Shaped[np.ndarray, "*region"], stored: Shaped[np.ndarray, "*region"], flips: Sequence[int] = ()
) -> Shaped[Tensor, "*region"]:
    """Copy to `part` and return it as a tensor, mirrored along `flips`.

    NumPy reverses whole lines as fast as it copies them; torch reverses within lines, and halves only as integers.
    """
    last = stored.ndim - 1
    lines = tuple(slice(None, None, -1 if axis in flips else 1) for axis in range(last))
    np.copyto(part, stored[lines])
    values = torch.from_numpy(part)
    if last not in flips:
        return values
    return values.view(torch.int16).flip(-1).view(values.dtype) if part.itemsize == 2 else values.flip(-1)

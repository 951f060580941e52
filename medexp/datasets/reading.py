"""Voxels of stored cases as tensors: named channels in order, normalized, and no more of them than asked for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Num, Shaped, UInt8
from torch import Tensor

from medexp.datasets.buffers import empty
from medexp.io.prepared import ChannelStatistics, StoredCase
from medexp.transforms.draws import Draw, turn
from medexp.transforms.spatial import Box, centered_offset, empty_source, resample_image, resample_label, source_box

Slices = tuple[slice, ...]


class VoxelReader:
    """How stored arrays become network input.

    A file stays mapped after its first patch: mapping it anew costs as much as copying the patch.
    """

    def __init__(
        self, channel_order: Sequence[int], statistics: ChannelStatistics | None, *, max_mapped: int | None = None
    ) -> None:
        """Choose the input.

        Args:
            channel_order: Which stored channel stands at each place.
            statistics: Normalize on reading; None: the store is normalized.
            max_mapped: Files that stay mapped, the latest ones; None: all. What was read of a mapped file counts as
                this process' memory as long as it is mapped.
        """
        self.channel_order, self.statistics = tuple(channel_order), statistics
        self.max_mapped = max_mapped
        self._mapped: dict[Path, tuple[tuple[int, ...] | None, np.ndarray]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapped files out: a worker maps its own, and pickle would copy their content."""
        return {**self.__dict__, "_mapped": {}}

    def volume(self, case: StoredCase) -> Float32[Tensor, "channel *spatial"]:
        """Return a whole image."""
        image = empty((len(self.channel_order), *case.shape), np.float32)
        self._read_image(case, tuple(slice(0, length) for length in case.shape), image)
        return image

    def read_patch(
        self,
        case: StoredCase,
        image: Float32[Tensor, "channel *patch"],
        label: UInt8[Tensor, "*patch"],
        *,
        start: Sequence[int],
        draw: Draw,
    ) -> None:
        """Fill `image` and `label` with the patch that begins at `start` and overlaps the volume, moved as `draw` says.

        Beyond the volume lie zeros and background. Only the voxels that end up in the patch are read.
        """
        if draw.matrix is None:
            self._copy_patch(case, image, label, start=start, flips=draw.flips)
        else:
            self._resample_patch(case, image, label, start=start, draw=draw)
        turn(image, draw)
        turn(label, draw)

    def _copy_patch(
        self,
        case: StoredCase,
        image: Float32[Tensor, "channel *patch"],
        label: UInt8[Tensor, "*patch"],
        *,
        start: Sequence[int],
        flips: Sequence[int],
    ) -> None:
        source, target = _overlap(start, shape=case.shape, size=label.shape, flips=flips)
        if any(part.stop - part.start < length for part, length in zip(target, label.shape, strict=True)):
            image.zero_()
            label.zero_()
        self._read_image(case, source, image[(slice(None), *target)], flips=flips)
        part = np.empty(label[target].shape, np.uint8)
        label[target] = _filled(part, self._label(case)[source], flips)

    def _resample_patch(
        self,
        case: StoredCase,
        image: Float32[Tensor, "channel *patch"],
        label: UInt8[Tensor, "*patch"],
        *,
        start: Sequence[int],
        draw: Draw,
    ) -> None:
        assert draw.matrix is not None  # the caller saw to it
        offset = centered_offset(draw.matrix, start=start, size=label.shape)
        box: Box = source_box(draw.matrix, offset, size=label.shape, shape=case.shape)
        region = tuple(slice(first, stop) for first, stop in box)
        lengths = [stop - first for first, stop in box]
        offset = offset - [first for first, _ in box]
        voxels = empty_source(len(self.channel_order), lengths, draw.matrix)
        self._read_image(case, region, voxels)
        resample_image(voxels, image, matrix=draw.matrix, offset=offset)
        labels = torch.from_numpy(np.array(self._label(case)[region], order="C"))
        resample_label(labels, label, matrix=draw.matrix, offset=offset)

    def _image(self, case: StoredCase) -> Num[np.ndarray, "channel *stored"]:
        return self._held(case.folder / "image.npy", case.image)

    def _label(self, case: StoredCase) -> UInt8[np.ndarray, "*stored"]:
        return self._held(case.folder / "label.npy", case.label)

    def _held(self, path: Path, mapped: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the array that was mapped before, unless the file has changed: reading beyond its end would crash."""
        state = _state(path)
        if path not in self._mapped or self._mapped[path][0] != state:
            array = np.asarray(mapped())
            self._mapped[path] = (_state(path), array)
            while self.max_mapped is not None and len(self._mapped) > self.max_mapped:
                del self._mapped[next(iter(self._mapped))]
        return self._mapped[path][1]

    def _read_image(
        self, case: StoredCase, region: Slices, out: Float32[Tensor, "channel *region"], *, flips: Sequence[int] = ()
    ) -> None:
        """Convert channel by channel: the copy of one stays in the cache, and torch converts halves fast."""
        stored = self._image(case)
        part = np.empty(out.shape[1:], stored.dtype)
        for target, index in zip(out, self.channel_order, strict=True):
            target.copy_(_filled(part, stored[index][region], flips))
            if self.statistics is not None:
                _normalize(target, self.statistics, index)


def _filled(
    part: Shaped[np.ndarray, "*region"], stored: Shaped[np.ndarray, "*region"], flips: Sequence[int]
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


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:  # the case says what is wrong, or makes the file anew
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _normalize(channel: Float32[Tensor, "*region"], statistics: ChannelStatistics, index: int) -> None:
    channel.clamp_(statistics.lower[index], statistics.upper[index])
    channel.sub_(statistics.mean[index]).div_(statistics.deviation[index])


def _overlap(
    start: Sequence[int], *, shape: Sequence[int], size: Sequence[int], flips: Sequence[int]
) -> tuple[Slices, Slices]:
    """Return the voxels of the volume that a patch shows, and where in the mirrored patch they go."""
    source, target = [], []
    for axis, (begin, length, side) in enumerate(zip(start, shape, size, strict=True)):
        first, stop = max(begin, 0), min(begin + side, length)
        source.append(slice(first, stop))
        place = begin + side - stop if axis in flips else first - begin
        target.append(slice(place, place + stop - first))
    return tuple(source), tuple(target)

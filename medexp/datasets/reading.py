"""Voxels of stored cases as tensors: named channels in order, normalized, and no more of them than asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Shaped, UInt8
from torch import Tensor

from medexp.io.prepared import ChannelStatistics, StoredCase
from medexp.transforms.draws import Draw
from medexp.transforms.spatial import Box, centered_offset, resample_image, resample_label, source_box

Slices = tuple[slice, ...]


def empty(shape: Sequence[int], dtype: type[np.generic]) -> Shaped[Tensor, "*shape"]:
    """Return an uninitialized tensor. NumPy asks for huge pages, torch does not: a new patch costs 4 ms, not 14."""
    return torch.from_numpy(np.empty(tuple(shape), dtype))


@dataclass(frozen=True, eq=False)
class VoxelReader:
    """How stored arrays become network input.

    `channel_order` says which stored channel stands at each place. `statistics` normalize on reading; None:
    the store is normalized.
    """

    channel_order: tuple[int, ...]
    statistics: ChannelStatistics | None

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
        self._read_image(case, source, image[(slice(None), *target)])
        np.copyto(label.numpy()[target], case.label()[source])

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
        voxels = empty((len(self.channel_order), *lengths), np.float32)
        self._read_image(case, region, voxels)
        resample_image(voxels, image, matrix=draw.matrix, offset=offset)
        labels = torch.from_numpy(np.array(case.label()[region], order="C"))
        resample_label(labels, label, matrix=draw.matrix, offset=offset)

    def _read_image(self, case: StoredCase, region: Slices, out: Float32[Tensor, "channel *region"]) -> None:
        """Convert channel by channel: the copy of one stays in the cache, and torch converts halves fast."""
        stored = case.image()
        part = np.empty(out.shape[1:], stored.dtype)
        for target, index in zip(out, self.channel_order, strict=True):
            np.copyto(part, stored[index][region])
            target.copy_(torch.from_numpy(part))
            if self.statistics is not None:
                _normalize(target, self.statistics, index)


def _normalize(channel: Float32[Tensor, "*region"], statistics: ChannelStatistics, index: int) -> None:
    channel.clamp_(statistics.lower[index], statistics.upper[index])
    channel.sub_(statistics.mean[index]).div_(statistics.deviation[index])


def _overlap(
    start: Sequence[int], *, shape: Sequence[int], size: Sequence[int], flips: Sequence[int]
) -> tuple[Slices, Slices]:
    """Return the voxels of the volume that a patch shows, backwards along `flips`, and where in the patch they go."""
    source, target = [], []
    for axis, (begin, length, side) in enumerate(zip(start, shape, size, strict=True)):
        first, stop = max(begin, 0), min(begin + side, length)
        if axis in flips:
            source.append(slice(stop - 1, first - 1 if first > 0 else None, -1))
            target.append(slice(begin + side - stop, begin + side - first))
        else:
            source.append(slice(first, stop))
            target.append(slice(first - begin, stop - begin))
    return tuple(source), tuple(target)

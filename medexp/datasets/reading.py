"""Voxels of stored cases as tensors: named channels in order, normalized, and no more of them than asked for."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Num, Shaped, UInt8
from torch import Tensor

from medexp.datasets.buffers import empty
from medexp.datasets.mapped import MappedFiles, Slices, covers, filled, overlap
from medexp.io.prepared import ChannelStatistics, PreparedCohort, StoredCase
from medexp.keys import CASE, IMAGE, LABEL
from medexp.transforms.draws import Draw, turn
from medexp.transforms.spatial import Box, centered_offset, empty_source, resample_image, resample_label, source_box
from medexp.types import DataContract

Inputs = dict[str, Shaped[Tensor, "..."]]

_MAPPED_IMAGE_FILES = 64


@runtime_checkable
class WholeReader(Protocol):
    """Reads cases whole: what a model predicts from, and what it is validated with."""

    def inputs(self, case: StoredCase) -> Inputs:
        """Return what a network gets of a case, without a batch axis."""
        ...

    def whole(self, case: StoredCase) -> dict[str, Any]:
        """Return a case as a batch of one, its answer included; see `medexp.keys`."""
        ...


class VoxelReader:
    """How stored arrays become network input."""

    def __init__(
        self, channel_order: Sequence[int], statistics: ChannelStatistics | None, *, max_mapped: int | None = None
    ) -> None:
        """Choose the input.

        Args:
            channel_order: Which stored channel stands at each place.
            statistics: Normalize on reading; None: the store is normalized.
            max_mapped: Files that stay mapped; see `MappedFiles`.
        """
        self.channel_order, self.statistics = tuple(channel_order), statistics
        self.files = MappedFiles(max_mapped)

    @classmethod
    def of(cls, cohort: PreparedCohort, contract: DataContract, *, fold: int) -> "VoxelReader":
        """Return the reader of a cohort's cases; CT is normalized by the fold's training cases."""
        order = tuple(cohort.channels.index(channel) for channel in contract.channels)
        mapped = _MAPPED_IMAGE_FILES if cohort.kind == "images" else None  # mapping a small file anew costs little
        return cls(order, cohort.channel_statistics(fold), max_mapped=mapped)

    def volume(self, case: StoredCase) -> Float32[Tensor, "channel *spatial"]:
        """Return a whole image."""
        image = empty((len(self.channel_order), *case.shape), np.float32)
        self._read_image(case, tuple(slice(0, length) for length in case.shape), image)
        return image

    def inputs(self, case: StoredCase) -> Inputs:
        """Return what a network gets of a case."""
        return {IMAGE: self.volume(case)}

    def whole(self, case: StoredCase) -> dict[str, Any]:
        """Return a case with its label as a batch of one."""
        label = torch.from_numpy(np.array(case.label()))
        return {IMAGE: self.volume(case)[None], LABEL: label[None], CASE: [case.case]}

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
        source, target = overlap(start, shape=case.shape, size=label.shape, flips=flips)
        if not covers(target, label.shape):
            image.zero_()
            label.zero_()
        self._read_image(case, source, image[(slice(None), *target)], flips=flips)
        part = np.empty(label[target].shape, np.uint8)
        label[target] = filled(part, self._label(case)[source], flips)

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
        return self.files.array(case.folder / "image.npy", case.image)

    def _label(self, case: StoredCase) -> UInt8[np.ndarray, "*stored"]:
        return self.files.array(case.folder / "label.npy", case.label)

    def _read_image(
        self, case: StoredCase, region: Slices, out: Float32[Tensor, "channel *region"], *, flips: Sequence[int] = ()
    ) -> None:
        """Convert channel by channel: the copy of one stays in the cache, and torch converts halves fast."""
        stored = self._image(case)
        part = np.empty(out.shape[1:], stored.dtype)
        for target, index in zip(out, self.channel_order, strict=True):
            target.copy_(filled(part, stored[index][region], flips))
            if self.statistics is not None:
                _normalize(target, self.statistics, index)


def _normalize(channel: Float32[Tensor, "*region"], statistics: ChannelStatistics, index: int) -> None:
    channel.clamp_(statistics.lower[index], statistics.upper[index])
    channel.sub_(statistics.mean[index]).div_(statistics.deviation[index])

"""Volumes turned about their last axis: where a plane reads is worked out once, whole lines along k are blended.

Linear interpolation in space is bilinear where k stays what it is. Four neighbors of a pixel are four lines, each
contiguous in memory, so that a patch of ten channels takes a sixth of what sampling it point by point takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int32
from torch import Tensor
from torch.nn.functional import embedding_bag

from medexp.transforms.spatial import Box, source_box

_ROWS = 32  # of the patch that are made at a time: what they read stays in the cache


@dataclass(frozen=True, eq=False)
class PlaneTaps:
    """Where the pixels of a plane read.

    Attributes:
        box: The part of the array's first two axes that is read; empty along an axis: the patch lies beside it.
        size: Of the plane.
        neighbors: Of each pixel, as places in the box, row by row.
        weights: Of the neighbors.
        outside: What is lacking to a weight of 1, because neighbors lie outside of the array; None: nothing.
    """

    box: Box
    size: tuple[int, int]
    neighbors: Int32[Tensor, "pixel 4"]
    weights: Float32[Tensor, "pixel 4"]
    outside: Float32[Tensor, " pixel"] | None

    @property
    def box_shape(self) -> tuple[int, int]:
        """Size of the part that is read."""
        (first, stop), (second, end) = self.box
        return stop - first, end - second

    @classmethod
    def of(
        cls,
        matrix: Float64[np.ndarray, "2 2"],
        offset: Float64[np.ndarray, "2"],
        *,
        size: tuple[int, int],
        shape: Sequence[int],
    ) -> "PlaneTaps":
        """Return the taps of a plane; pixel `o` shows what lies at `offset + matrix @ o` in an array of `shape`."""
        box = source_box(matrix, offset, size=size, shape=shape)
        pixels = np.indices(size).reshape(2, -1)
        places = matrix @ pixels + offset[:, None]
        corner = np.floor(places)
        share = places - corner
        first, second = corner.astype(np.int64)
        (low, stop), (left, end) = box
        neighbors, weights, lacking = [], [], np.zeros(pixels.shape[1])
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            row, column = first + down, second + right
            inside = (row >= low) & (row < stop) & (column >= left) & (column < end)
            weight = (share[0] if down else 1.0 - share[0]) * (share[1] if right else 1.0 - share[1])
            neighbors.append(np.where(inside, (row - low) * (end - left) + column - left, 0))
            weights.append(np.where(inside, weight, 0.0))
            lacking += weight - weights[-1]
        return cls(
            box=box,
            size=size,
            neighbors=torch.from_numpy(np.stack(neighbors, axis=1).astype(np.int32)),
            weights=torch.from_numpy(np.stack(weights, axis=1).astype(np.float32)),
            outside=torch.from_numpy(lacking.astype(np.float32)) if lacking.any() else None,
        )


def resample_planes(
    source: Float32[Tensor, "a b k"], out: Float32[Tensor, "i j k"], taps: PlaneTaps, *, outside: float
) -> None:
    """Fill `out` by linear interpolation of every plane.

    Args:
        source: The part of an array that `taps.box` says, contiguous.
        out: Of the size of the taps in its first two axes.
        taps: Where it reads.
        outside: What lies beyond the array.
    """
    if source.numel() == 0:
        out.fill_(outside)
        return
    lines = source.view(-1, source.shape[2])
    width = taps.size[1]
    for row in range(0, taps.size[0], _ROWS):
        rows = out[row : row + _ROWS]
        pixels = slice(row * width, row * width + len(rows) * width)
        blended = embedding_bag(taps.neighbors[pixels], lines, per_sample_weights=taps.weights[pixels], mode="sum")
        if taps.outside is not None:
            blended.add_(taps.outside[pixels, None], alpha=outside)
        rows.copy_(blended.view(rows.shape))

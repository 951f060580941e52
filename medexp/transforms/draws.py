"""What was drawn for one patch, and how it is applied to tensors on any device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Float64, Shaped, UInt8
from torch import Tensor

from medexp.transforms import intensity
from medexp.transforms.spatial import centered_offset, resample_image, resample_label

_Value = TypeVar("_Value")

PerChannel = tuple[float | None, ...]
PerChannelAndAxis = tuple[tuple[float, ...] | None, ...]


@dataclass(frozen=True, eq=False)
class Draw:
    """What happens to one patch; None is nothing.

    `matrix` takes a voxel's distance from the patch's center to the distance in the source: rotation,
    scaling and flips together. Without rotation and scaling only `flips` is set, because a copy is enough.
    `quarter_turns` follow, in the plane of the last two axes.
    """

    flips: tuple[int, ...] = ()
    matrix: Float64[np.ndarray, "axis axis"] | None = None
    noise: float | None = None
    noise_seed: int = 0
    blur: PerChannelAndAxis | None = None
    brightness: PerChannel | None = None
    shift: PerChannel | None = None
    contrast: PerChannel | None = None
    low_resolution: PerChannelAndAxis | None = None
    inverted_gamma: PerChannel | None = None
    gamma: PerChannel | None = None
    keep_background: bool = False
    quarter_turns: int = 0

    @property
    def moves_background(self) -> bool:
        """Whether a change of intensity can turn zeros into something else."""
        changes = (self.blur, self.shift, self.contrast, self.low_resolution, self.inverted_gamma, self.gamma)
        return self.noise is not None or any(change is not None for change in changes)


def turn(patch: Shaped[Tensor, "*patch"], draw: Draw) -> None:
    """Apply the quarter turns of a draw to an image or a label, in place."""
    if draw.quarter_turns:
        patch.copy_(torch.rot90(patch, draw.quarter_turns, (-2, -1)).clone())


def change_intensities(image: Float32[Tensor, "channel *patch"], draw: Draw) -> None:
    """Apply every change of intensity of a draw to one patch, in place.

    One channel after the other, so that it stays in the processor's cache.
    """
    inside = intensity.occupied(image) if draw.keep_background and draw.moves_background else None
    generator = torch.Generator(image.device).manual_seed(draw.noise_seed)
    for index, channel in enumerate(image):
        _change_channel(channel, draw, index, generator)
        if inside is not None:
            channel.mul_(inside)


def _change_channel(channel: Float32[Tensor, "*patch"], draw: Draw, index: int, generator: torch.Generator) -> None:
    if draw.noise is not None:
        intensity.add_noise(channel, deviation=draw.noise, generator=generator)
    if (sigmas_voxels := _of(draw.blur, index)) is not None:
        intensity.blur(channel, sigmas_voxels)
    factor, amount = _of(draw.brightness, index), _of(draw.shift, index)
    if factor is not None or amount is not None:
        intensity.scale_and_shift(channel, 1.0 if factor is None else factor, 0.0 if amount is None else amount)
    if (factor := _of(draw.contrast, index)) is not None:
        intensity.change_contrast(channel, factor)
    if (factors := _of(draw.low_resolution, index)) is not None:
        intensity.lower_resolution(channel, factors)
    if (exponent := _of(draw.inverted_gamma, index)) is not None:
        intensity.change_gamma(channel, exponent, inverted=True)
    if (exponent := _of(draw.gamma, index)) is not None:
        intensity.change_gamma(channel, exponent, inverted=False)


def _of(values: Sequence[_Value | None] | None, index: int) -> _Value | None:
    return None if values is None else values[index]


def augmented(
    image: Float32[Tensor, "batch channel *patch"], label: UInt8[Tensor, "batch *patch"], draws: Sequence[Draw]
) -> tuple[Float32[Tensor, "batch channel *patch"], UInt8[Tensor, "batch *patch"]]:
    """Return a batch with one draw applied to each patch, on the device where it lies; the arguments stay.

    Here space ends at the patch: what rotation and scaling bring in from beyond is zero. The loader, which
    has the volume at hand, reads it instead (medexp.datasets.loading).
    """
    new_image, new_label = torch.empty_like(image), torch.empty_like(label)
    for index, draw in enumerate(draws):
        if draw.matrix is None:
            new_image[index] = torch.flip(image[index], [axis + 1 for axis in draw.flips])
            new_label[index] = torch.flip(label[index], draw.flips)
        else:
            size = label.shape[1:]
            offset = centered_offset(draw.matrix, start=[0] * len(size), size=size)
            resample_image(image[index], new_image[index], matrix=draw.matrix, offset=offset)
            resample_label(label[index], new_label[index], matrix=draw.matrix, offset=offset)
        turn(new_image[index], draw)
        turn(new_label[index], draw)
        change_intensities(new_image[index], draw)
    return new_image, new_label

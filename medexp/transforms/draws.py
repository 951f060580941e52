"""What was drawn for one patch, and how it is applied to tensors on any device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from medexp.transforms import intensity
from medexp.transforms.spatial import centered_offset, resample_image, resample_label

PerChannel = tuple[float | None, ...]
PerChannelAndAxis = tuple[tuple[float, ...] | None, ...]


@dataclass(frozen=True, eq=False)
class Draw:
    """What happens to one patch; None is nothing.

    `matrix` takes a voxel's distance from the patch's center to the distance in the source: rotation,
    scaling and flips together. Without rotation and scaling only `flips` is set, because a copy is enough.
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

    @property
    def moves_background(self) -> bool:
        """Whether a change of intensity can turn zeros into something else."""
        changes = (self.blur, self.shift, self.contrast, self.low_resolution, self.inverted_gamma, self.gamma)
        return self.noise is not None or any(change is not None for change in changes)


def change_intensities(image: Float32[Tensor, "channel *patch"], draw: Draw) -> None:
    """Apply every change of intensity of a draw to one patch, in place."""
    outside = intensity.background(image) if draw.keep_background and draw.moves_background else None
    if draw.noise is not None:
        intensity.add_noise(image, deviation=draw.noise, seed=draw.noise_seed)
    if draw.blur is not None:
        intensity.blur(image, draw.blur)
    if draw.brightness is not None:
        intensity.scale(image, draw.brightness)
    if draw.shift is not None:
        intensity.shift(image, draw.shift)
    if draw.contrast is not None:
        intensity.change_contrast(image, draw.contrast)
    if draw.low_resolution is not None:
        intensity.lower_resolution(image, draw.low_resolution)
    if draw.inverted_gamma is not None:
        intensity.change_gamma(image, draw.inverted_gamma, inverted=True)
    if draw.gamma is not None:
        intensity.change_gamma(image, draw.gamma, inverted=False)
    if outside is not None:
        image.masked_fill_(outside, 0.0)


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
        change_intensities(new_image[index], draw)
    return new_image, new_label

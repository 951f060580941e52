"""Changes of intensity, each in place on one channel of a patch `[*spatial]`, on any device.

The recipe is nnU-Net v2's default training augmentation (Isensee et al. 2021, Nature Methods 18, supplement;
batchgeneratorsv2 0.3, Apache-2.0), written anew: means come from sums and dot products, the blur is a sum of
shifted copies.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_SMALLEST_RANGE = 1e-7


def add_noise(channel: Float[Tensor, "*patch"], *, deviation: float, generator: torch.Generator) -> None:
    """Add normal noise. Another kind of device draws other values from the same seed."""
    channel.add_(torch.empty_like(channel).normal_(generator=generator), alpha=deviation)


def blur(channel: Float[Tensor, "*patch"], sigmas_voxels: Sequence[float]) -> None:
    """Convolve with a Gaussian, one sigma per axis, cut at three sigmas; edges are mirrored."""
    result = channel
    for axis, sigma in enumerate(sigmas_voxels):
        result = _blurred_along(result, axis, sigma)
    channel.copy_(result)


def scale_and_shift(channel: Float[Tensor, "*patch"], factor: float, amount: float) -> None:
    """Multiply, then add, in one pass."""
    shift = torch.tensor(amount, dtype=channel.dtype, device=channel.device)
    torch.add(shift, channel, alpha=factor, out=channel)


def change_contrast(channel: Float[Tensor, "*patch"], factor: float) -> None:
    """Scale the distances from the mean; values stay in their range."""
    lowest, highest = (float(bound) for bound in torch.aminmax(channel))
    mean = float(channel.mean())
    scale_and_shift(channel, factor, mean * (1.0 - factor))
    channel.clamp_(lowest, highest)


def lower_resolution(channel: Float[Tensor, "*patch"], factors: Sequence[float]) -> None:
    """Simulate coarser voxels: nearest sampling to the size times the axis' factor, linear back."""
    size = list(channel.shape)
    coarse = [max(1, round(length * factor)) for length, factor in zip(size, factors, strict=True)]
    small = functional.interpolate(channel[None, None], coarse, mode="nearest-exact")
    mode = "bilinear" if channel.ndim == 2 else "trilinear"
    channel.copy_(functional.interpolate(small, size, mode=mode, align_corners=False)[0, 0])


def change_gamma(channel: Float[Tensor, "*patch"], exponent: float, *, inverted: bool) -> None:
    """Raise values, scaled to 0..1, to a power; mean and standard deviation stay the same.

    Args:
        channel: Changed in place.
        exponent: The power.
        inverted: Work on the negative: bright parts change instead of dark ones.
    """
    lowest, highest = (float(bound) for bound in torch.aminmax(channel))
    extent = max(highest - lowest, _SMALLEST_RANGE)
    mean, deviation = _mean_and_deviation(channel)
    if inverted:
        channel.neg_().add_(highest).div_(extent)
    else:
        channel.sub_(lowest).div_(extent)
    channel.clamp_(min=0.0).pow_(exponent)  # rounding leaves values a little below 0
    new_mean, new_deviation = _mean_and_deviation(channel)
    factor = deviation / max(new_deviation, _SMALLEST_RANGE) * (-1.0 if inverted else 1.0)
    scale_and_shift(channel, factor, mean - factor * new_mean)


def occupied(image: Float[Tensor, "channel *patch"]) -> Float[Tensor, "*patch"]:
    """Return 1 where some channel is not 0; 0 outside the head of a skull-stripped image, and in padding."""
    squares = image[0] * image[0]
    for channel in image[1:]:
        squares.addcmul_(channel, channel)
    return squares.sign_()


def _blurred_along(channel: Float[Tensor, "*patch"], axis: int, sigma_voxels: float) -> Float[Tensor, "*patch"]:
    length = channel.shape[axis]
    radius = min(max(1, math.floor(3.0 * sigma_voxels)), length - 1)
    weights = [math.exp(-0.5 * (distance / sigma_voxels) ** 2) for distance in range(radius + 1)]
    total = weights[0] + 2.0 * sum(weights[1:])
    margins = [0] * (2 * channel.ndim)
    last = 2 * (channel.ndim - axis)  # torch counts margins from the last axis
    margins[last - 2 : last] = radius, radius
    padded = functional.pad(channel[None], margins, mode="reflect")[0]
    result = padded.narrow(axis, radius, length) * (weights[0] / total)
    for distance in range(1, radius + 1):
        for start in (radius - distance, radius + distance):
            result.add_(padded.narrow(axis, start, length), alpha=weights[distance] / total)
    return result


def _mean_and_deviation(channel: Float[Tensor, "*patch"]) -> tuple[float, float]:
    """Return both from a sum and a dot product: `torch.std` takes forty times as long."""
    flat = channel.reshape(-1)
    mean = float(flat.mean())
    variance = float(torch.dot(flat, flat)) / flat.numel() - mean * mean
    return mean, math.sqrt(max(variance, 0.0))

"""Changes of intensity, each in place on one patch `[channel, *spatial]`; `None` leaves a channel as it is.

The recipe is nnU-Net v2's default training augmentation (Isensee et al. 2021, Nature Methods 18, supplement;
batchgeneratorsv2 0.3, Apache-2.0), written anew: means come from sums and dot products, the blur is a sum of
shifted copies.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

Values = Sequence[float | None]

_SMALLEST_RANGE = 1e-7


def add_noise(image: Float[Tensor, "channel *patch"], *, deviation: float, seed: int) -> None:
    """Add normal noise, drawn on the image's device from `seed`: another kind of device draws other values."""
    generator = torch.Generator(image.device).manual_seed(seed)
    noise = torch.empty_like(image[0])
    for channel in image:
        channel.add_(noise.normal_(generator=generator), alpha=deviation)


def blur(image: Float[Tensor, "channel *patch"], sigmas_voxels: Sequence[Sequence[float] | None]) -> None:
    """Convolve channels with a Gaussian, one sigma per axis, cut at three sigmas; edges are mirrored."""
    for channel, sigmas in zip(image, sigmas_voxels, strict=True):
        if sigmas is not None:
            channel.copy_(_blurred(channel, sigmas))


def scale(image: Float[Tensor, "channel *patch"], factors: Values) -> None:
    """Multiply channels: nnU-Net's brightness."""
    image.mul_(_per_channel(image, factors, neutral=1.0))


def shift(image: Float[Tensor, "channel *patch"], amounts: Values) -> None:
    """Add to channels, in units of the normalized image."""
    image.add_(_per_channel(image, amounts, neutral=0.0))


def change_contrast(image: Float[Tensor, "channel *patch"], factors: Values) -> None:
    """Scale the distance from the channel's mean; values stay in the channel's range."""
    for channel, factor in zip(image, factors, strict=True):
        if factor is not None:
            lowest, highest = (float(bound) for bound in torch.aminmax(channel))
            mean = float(channel.mean())
            channel.mul_(factor).add_(mean * (1.0 - factor)).clamp_(lowest, highest)


def lower_resolution(image: Float[Tensor, "channel *patch"], scales: Sequence[Sequence[float] | None]) -> None:
    """Simulate coarser voxels: nearest sampling to `scale` times the size, one scale per axis, linear back."""
    mode = "bilinear" if image.ndim == 3 else "trilinear"
    size = list(image.shape[1:])
    for channel, factors in zip(image, scales, strict=True):
        if factors is not None:
            coarse = [max(1, round(length * factor)) for length, factor in zip(size, factors, strict=True)]
            small = functional.interpolate(channel[None, None], coarse, mode="nearest-exact")
            channel.copy_(functional.interpolate(small, size, mode=mode, align_corners=False)[0, 0])


def change_gamma(image: Float[Tensor, "channel *patch"], exponents: Values, *, inverted: bool) -> None:
    """Raise channels, scaled to 0..1, to a power; mean and standard deviation stay the same.

    Args:
        image: Changed in place.
        exponents: One per channel.
        inverted: Work on the negative of the image: bright parts change instead of dark ones.
    """
    for channel, exponent in zip(image, exponents, strict=True):
        if exponent is None:
            continue
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
        channel.mul_(factor).add_(mean - factor * new_mean)


def background(image: Float[Tensor, "channel *patch"]) -> Shaped[Tensor, "*patch"]:
    """Return where every channel is exactly 0: outside the head of a skull-stripped image, and padding."""
    outside = image[0] == 0
    for channel in image[1:]:
        outside &= channel == 0
    return outside


def _blurred(channel: Float[Tensor, "*patch"], sigmas_voxels: Sequence[float]) -> Float[Tensor, "*patch"]:
    for axis, sigma in enumerate(sigmas_voxels):
        radius = min(max(1, math.floor(3.0 * sigma)), channel.shape[axis] - 1)
        weights = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in range(radius + 1)]
        total = weights[0] + 2.0 * sum(weights[1:])
        length = channel.shape[axis]
        mirrored = torch.arange(-radius, length + radius, device=channel.device).abs_()
        mirrored = torch.where(mirrored >= length, 2 * (length - 1) - mirrored, mirrored)
        padded = channel.index_select(axis, mirrored)
        result = padded.narrow(axis, radius, length) * (weights[0] / total)
        for distance in range(1, radius + 1):
            for start in (radius - distance, radius + distance):
                result.add_(padded.narrow(axis, start, length), alpha=weights[distance] / total)
        channel = result
    return channel


def _per_channel(image: Float[Tensor, "channel *patch"], values: Values, *, neutral: float) -> Tensor:
    filled = [neutral if value is None else value for value in values]
    return torch.tensor(filled, dtype=image.dtype, device=image.device).view(-1, *[1] * (image.ndim - 1))


def _mean_and_deviation(channel: Float[Tensor, "*patch"]) -> tuple[float, float]:
    """Return both from a sum and a dot product: `torch.std` takes forty times as long."""
    flat = channel.reshape(-1)
    mean = float(flat.mean())
    variance = float(torch.dot(flat, flat)) / flat.numel() - mean * mean
    return mean, math.sqrt(max(variance, 0.0))

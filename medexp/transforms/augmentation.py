"""Random changes of training patches: what is drawn is apart from how it is applied.

`Augmentation.draw` is a pure function of a generator. Its result can be applied on any device, replayed and
counted. The order is nnU-Net's: space, noise, blur, brightness, contrast, resolution, gamma.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float64

from medexp.errors import ConfigurationError
from medexp.transforms.draws import Draw
from medexp.transforms.spatial import rotation_matrix
from medexp.types import Share

_Value = TypeVar("_Value")

_ANISOTROPIC = 3.0  # longest over shortest side of a patch from which nnU-Net turns it in its plane only
_POSITIVE = frozenset({"scaling", "blur_sigma_voxels", "low_resolution", "gamma"})
_RANGE_OF = {
    "rotation_probability": "rotation_deg",
    "scaling_probability": "scaling",
    "noise_probability": "noise_deviation",
    "blur_probability": "blur_sigma_voxels",
    "brightness_probability": "brightness",
    "shift_probability": "shift",
    "contrast_probability": "contrast",
    "low_resolution_probability": "low_resolution",
    "gamma_probability": "gamma",
    "inverted_gamma_probability": "gamma",
}


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """A recipe of random changes. A probability of 0 switches a change off; ranges are [lowest, highest].

    Attributes:
        flip_axes: Each of these axes is mirrored with probability 0.5.
        rotation_probability: Of a patch being turned, about every axis by an angle of its own; flat patches
            only in their plane.
        rotation_deg: Angles.
        scaling_probability: Of a patch being scaled, all axes alike.
        scaling: Voxels of the source per voxel of the patch: above 1 things become smaller.
        noise_probability: Of normal noise with one deviation for all channels.
        noise_deviation: Its standard deviation.
        blur_probability: Of a patch being blurred.
        blur_channel_probability: Of each of its channels being one of them.
        blur_sigma_voxels: Drawn per channel and axis.
        brightness_probability: Of channels being multiplied, each by its own factor.
        brightness: Factors; below and above 1 are equally likely.
        shift_probability: Of an amount being added to each channel.
        shift: Amounts, in units of the normalized image.
        contrast_probability: Of distances from the channel's mean being multiplied.
        contrast: Factors; below and above 1 are equally likely.
        low_resolution_probability: Of coarser voxels being simulated.
        low_resolution_channel_probability: Of each channel being one of them.
        low_resolution: Size relative to the original, the same for all axes.
        gamma_probability: Of a gamma correction of the channels.
        inverted_gamma_probability: Of one on the negative of the channels, before that.
        gamma: Exponents; below and above 1 are equally likely.
        keep_background: Voxels that were 0 in all channels are 0 in the end.
        quarter_turn_probability: Of a patch being turned by 90, 180 or 270 degrees in the plane of its last two axes,
            which must be equally long; no value is interpolated.
    """

    flip_axes: Sequence[int]
    rotation_probability: Share = 0.0
    rotation_deg: Sequence[float] | None = None
    scaling_probability: Share = 0.0
    scaling: Sequence[float] | None = None
    noise_probability: Share = 0.0
    noise_deviation: Sequence[float] | None = None
    blur_probability: Share = 0.0
    blur_channel_probability: Share = 1.0
    blur_sigma_voxels: Sequence[float] | None = None
    brightness_probability: Share = 0.0
    brightness: Sequence[float] | None = None
    shift_probability: Share = 0.0
    shift: Sequence[float] | None = None
    contrast_probability: Share = 0.0
    contrast: Sequence[float] | None = None
    low_resolution_probability: Share = 0.0
    low_resolution_channel_probability: Share = 1.0
    low_resolution: Sequence[float] | None = None
    gamma_probability: Share = 0.0
    inverted_gamma_probability: Share = 0.0
    gamma: Sequence[float] | None = None
    keep_background: bool = False
    quarter_turn_probability: Share = 0.0

    def __post_init__(self) -> None:
        """Refuse an impossible recipe.

        Raises:
            ConfigurationError: A probability or range is impossible or missing; the message names the key.
        """
        if len(set(self.flip_axes)) != len(self.flip_axes) or not set(self.flip_axes) <= {0, 1, 2}:
            raise ConfigurationError(f"augmentation.flip_axes: expected some of 0, 1, 2, got {list(self.flip_axes)}")
        for name in (field for field in self.__dataclass_fields__ if field.endswith("_probability")):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigurationError(f"augmentation.{name}: expected 0 to 1, got {getattr(self, name)}")
        for name, range_name in _RANGE_OF.items():
            bounds = getattr(self, range_name)
            if getattr(self, name) > 0.0 and bounds is None:
                message = f"augmentation.{range_name}: expected [lowest, highest], because {name} is set, got null"
                raise ConfigurationError(message)
            if bounds is not None:
                _require_range(range_name, bounds)

    def draw(self, generator: np.random.Generator, *, num_channels: int, patch_size: Sequence[int]) -> Draw:
        """Return what happens to one patch: a pure function of the generator's state."""
        dice = _Dice(generator, num_channels)
        flips, matrix = self._draw_space(dice, patch_size)
        noise = dice.uniform(self.noise_deviation) if dice.happens(self.noise_probability) else None
        return Draw(
            flips=flips,
            matrix=matrix,
            noise=noise,
            noise_seed=int(generator.integers(2**62)),
            blur=dice.per_channel(
                self.blur_probability,
                lambda: tuple(dice.uniform(self.blur_sigma_voxels) for _ in patch_size),
                share=self.blur_channel_probability,
            ),
            brightness=dice.per_channel(self.brightness_probability, lambda: dice.around_one(self.brightness)),
            shift=dice.per_channel(self.shift_probability, lambda: dice.uniform(self.shift)),
            contrast=dice.per_channel(self.contrast_probability, lambda: dice.around_one(self.contrast)),
            low_resolution=dice.per_channel(
                self.low_resolution_probability,
                lambda: _in_plane(dice.uniform(self.low_resolution), patch_size),
                share=self.low_resolution_channel_probability,
            ),
            inverted_gamma=dice.per_channel(self.inverted_gamma_probability, lambda: dice.around_one(self.gamma)),
            gamma=dice.per_channel(self.gamma_probability, lambda: dice.around_one(self.gamma)),
            keep_background=self.keep_background,
            quarter_turns=self._draw_quarter_turns(dice, patch_size),
        )

    def _draw_quarter_turns(self, dice: "_Dice", patch_size: Sequence[int]) -> int:
        """Draw last of all, so that a recipe without turns draws what it drew before there were any."""
        if not dice.happens(self.quarter_turn_probability):
            return 0
        if patch_size[-1] != patch_size[-2]:
            message = f"augmentation.quarter_turn_probability: expected 0 for patches of {list(patch_size)}"
            raise ConfigurationError(
                f"{message}, because only squares can be turned, got {self.quarter_turn_probability}"
            )
        return int(dice.generator.integers(1, 4))

    def _draw_space(
        self, dice: "_Dice", patch_size: Sequence[int]
    ) -> tuple[tuple[int, ...], Float64[np.ndarray, "axis axis"] | None]:
        axes = range(len(patch_size))
        flips = tuple(axis for axis in self.flip_axes if dice.happens(0.5) and axis in axes)
        turned, scaled = dice.happens(self.rotation_probability), dice.happens(self.scaling_probability)
        if not (turned or scaled):
            return flips, None
        flat = _flat_axis(patch_size)
        angles_deg = [dice.uniform(self.rotation_deg) if turned else 0.0 for _ in (axes if len(axes) == 3 else (0,))]
        angles_deg = [0.0 if flat is not None and axis != flat else angle for axis, angle in enumerate(angles_deg)]
        factors = _in_plane(dice.uniform(self.scaling) if scaled else 1.0, patch_size)
        signs = [-1.0 if axis in flips else 1.0 for axis in axes]
        matrix = np.diag(np.multiply(factors, signs))
        return (), rotation_matrix(angles_deg) @ matrix if turned else matrix


@dataclass(frozen=True)
class _Dice:
    """One patch's generator. Every patch needs draws of the same kinds, whatever the recipe."""

    generator: np.random.Generator
    num_channels: int

    def happens(self, probability: float) -> bool:
        return bool(self.generator.random() < probability)

    def uniform(self, bounds: Sequence[float] | None) -> float:
        assert bounds is not None  # the recipe saw to it
        return float(self.generator.uniform(bounds[0], bounds[1]))

    def around_one(self, bounds: Sequence[float] | None) -> float:
        assert bounds is not None  # the recipe saw to it
        below = (bounds[0], min(1.0, bounds[1]))
        above = (max(1.0, bounds[0]), bounds[1])
        choices = [side for side in (below, above) if side[0] < side[1]] or [(bounds[0], bounds[1])]
        return self.uniform(choices[int(self.happens(0.5)) % len(choices)])

    def per_channel(
        self, probability: float, one: Callable[[], _Value], *, share: float = 1.0
    ) -> tuple[_Value | None, ...] | None:
        if not self.happens(probability):
            return None
        return tuple(one() if self.happens(share) else None for _ in range(self.num_channels))


def _require_range(name: str, bounds: Sequence[float]) -> None:
    least = 0.0 if name == "noise_deviation" else -math.inf
    if len(bounds) != 2 or not least <= bounds[0] <= bounds[1] or (name in _POSITIVE and bounds[0] <= 0.0):
        kind = "two positive numbers" if name in _POSITIVE else "two numbers"
        raise ConfigurationError(f"augmentation.{name}: expected {kind}, the lower one first, got {list(bounds)}")


def _flat_axis(patch_size: Sequence[int]) -> int | None:
    """Return the axis along which a patch is so short that turning it out of its plane would smear slices."""
    flat = len(patch_size) == 3 and max(patch_size) / min(patch_size) > _ANISOTROPIC
    return int(np.argmin(patch_size)) if flat else None


def _in_plane(factor: float, patch_size: Sequence[int]) -> tuple[float, ...]:
    flat = _flat_axis(patch_size)
    return tuple(1.0 if axis == flat else factor for axis in range(len(patch_size)))

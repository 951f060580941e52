"""Whole volumes of dose prediction: what lies around them, where the patient is, and their mirror image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from medexp.errors import ConfigurationError
from medexp.inference.ensembling import average
from medexp.inference.sliding_window import SlidingWindow
from medexp.transforms.dose_augmentation import LEFT_RIGHT
from medexp.transforms.doses import AIR, FAR
from medexp.types import DoseContract

_TISSUE = 0.375  # -500 HU: what is denser belongs to the patient or the couch

NetworkFunction = Callable[[Tensor], Tensor]
Slices = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Surrounded:
    """A volume in the middle of air, so that a window fits into it, and where a dose is looked for.

    `image` is CT and distances as a network gets them, `sought` where dose may be and the CT shows more than air or a
    structure is near. `inside` is where the volume itself lies.
    """

    image: Float[Tensor, "channel i j k"]
    sought: Bool[Tensor, "1 i j k"]
    inside: Slices

    @classmethod
    def of(
        cls, image: Float[Tensor, "channel i j k"], possible: Bool[Tensor, "i j k"], least: Sequence[int]
    ) -> "Surrounded":
        """Return the volume at least as large as `least`; beyond it lies air, far from every structure."""
        missing = [max(side - length, 0) for length, side in zip(image.shape[1:], least, strict=True)]
        before = [total // 2 for total in missing]
        spatial = tuple(slice(start, start + length) for start, length in zip(before, image.shape[1:], strict=True))
        sought = possible[None] & ((image[:1] > _TISSUE) | (image[1:].amin(0, keepdim=True) < FAR))
        if any(missing):
            margins = [(first, total - first) for first, total in zip(before, missing, strict=True)]
            sides = [side for axis in reversed(margins) for side in axis]
            image = torch.cat([pad(image[:1], sides, value=AIR), pad(image[1:], sides, value=FAR)])
            sought = pad(sought, sides)
        return cls(image, sought, (slice(None), *spatial))

    def cut(self, dose: Float[Tensor, "1 i j k"], possible: Bool[Tensor, "i2 j2 k2"]) -> Float[Tensor, "1 i2 j2 k2"]:
        """Return the part of a dose that belongs to the volume itself, 0 where no dose may be."""
        return dose[self.inside].where(possible[None], 0.0)


@dataclass(frozen=True, eq=False)
class Covering:
    """How windows cover one volume, and its mirror image if that is asked for.

    Attributes:
        volume: With its surroundings.
        window: Covers it.
        size: Of the windows.
        flip_axes: Average the network over the copies that are mirrored along these axes.
        channels: The network's, in the order that they have in a mirror.
    """

    volume: Surrounded
    window: SlidingWindow
    size: tuple[int, ...]
    flip_axes: tuple[int, ...]
    channels: tuple[int, ...]

    def run(self, network: NetworkFunction, image: Float[Tensor, "channel i j k"]) -> Float[Tensor, "output i j k"]:
        """Return what the network says of an image on the volume's grid."""
        mirrored = average_mirrored(network, self.flip_axes, self.channels)
        return self.window(mirrored, image, patch_size=self.size, foreground=self.volume.sought)

    def reached(self) -> Bool[Tensor, "1 i j k"]:
        """Return the voxels of the windows that are run."""
        image = self.volume.image[:1]
        if not self.window.skip_background:
            return torch.ones_like(image, dtype=torch.bool)
        return self.window(torch.ones_like, image, patch_size=self.size, foreground=self.volume.sought) > 0.5


def mirrored_channels(contract: DoseContract, *, leading: int = 0) -> list[int]:
    """Return which channel stands at each place after a left-right mirror: left structures become right ones.

    Args:
        contract: Names the pairs.
        leading: Channels before the contract's own, which stay.
    """
    exchanged = {one: other for pair in contract.mirrored for one, other in (pair, pair[::-1])}
    own = [leading] + [leading + contract.channel_of(exchanged.get(name, name)) for name in contract.structures]
    return [*range(leading), *own]


def average_mirrored(network: NetworkFunction, axes: Sequence[int], channels: Sequence[int]) -> NetworkFunction:
    """Return a network whose output is the mean over its input and its left-right mirror, mirrored back.

    Raises:
        ConfigurationError: Another axis is asked for: a patient lies neither on the belly nor upside down.
    """
    if not axes:
        return network
    if tuple(axes) != (LEFT_RIGHT,):
        message = f"predict.flips: expected [{LEFT_RIGHT}] (left-right), the only flip of a patient, got {list(axes)}"
        raise ConfigurationError(message)
    dimension = 2 + LEFT_RIGHT
    order = list(channels)

    def averaged(image: Float[Tensor, "batch channel i j k"]) -> Float[Tensor, "batch output i j k"]:
        copies = (image, image[:, order].flip(dimension))
        return average(network(one).flip(dimension) if index else network(one) for index, one in enumerate(copies))

    return averaged

"""Where structures are, read from the signed distances among a network's inputs."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medexp.losses.ranks import mean_over_ranks
from medexp.types import DoseContract


def inside(
    image: Float[Tensor, "batch channel i j k"], contract: DoseContract, structure: str
) -> Bool[Tensor, "batch i j k"]:
    """Return the voxels of a structure; none where it is absent."""
    return image[:, contract.channel_of(structure)] < 0


def near_surface(
    image: Float[Tensor, "batch channel i j k"], contract: DoseContract, structure: str, *, margin_mm: float
) -> Bool[Tensor, "batch i j k"]:
    """Return the voxels within a distance of a structure's surface, on either side."""
    return image[:, contract.channel_of(structure)].abs() * contract.distance_clip_mm <= margin_mm


def inside_any(
    image: Float[Tensor, "batch channel i j k"], contract: DoseContract, structures: tuple[str, ...]
) -> Bool[Tensor, "batch i j k"]:
    """Return the voxels that are in at least one of the structures."""
    found = torch.zeros_like(image[:, 0], dtype=torch.bool)
    for structure in structures:
        found |= inside(image, contract, structure)
    return found


def organs_of(contract: DoseContract) -> tuple[str, ...]:
    """Return the structures that are no targets."""
    return tuple(structure for structure in contract.structures if structure not in contract.targets)


def targets_of(contract: DoseContract) -> tuple[str, ...]:
    """Return the targets, that of the highest prescribed dose first."""
    return tuple(sorted(contract.targets, key=lambda name: -contract.targets[name]))


def exact(dose: Float[Tensor, "batch 1 i j k"]) -> Float[Tensor, "batch i j k"]:
    """Return a dose without its channel, in float32 at least: losses do not follow the network's precision."""
    return dose[:, 0].to(torch.promote_types(dose.dtype, torch.float32))


def mean_of_all(values: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Return this rank's part of the mean over the global batch."""
    return values.sum() / mean_over_ranks(values.new_tensor(float(values.numel())))


def mean_where(values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Return this rank's part of the mean over the global batch's chosen voxels; 0 where there is none."""
    count = mean_over_ranks(mask.sum().to(values.dtype))
    return torch.where(mask, values, 0.0).sum() / count.clamp_min(torch.finfo(values.dtype).tiny)

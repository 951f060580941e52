"""Means over a global batch of which each rank holds a part.

A loss that is a sum over the rank's samples divided by the mean of all ranks' denominators has, averaged over ranks as
DDP averages gradients, the value that one process would find for the whole batch, also where ranks hold unequal parts.
"""

import torch
from jaxtyping import Float
from torch import Tensor, distributed


def mean_over_ranks(value: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Return the mean of a number over all ranks, without a gradient; the number itself where there is one rank."""
    if not _are_several():
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def mean_over_samples(values: Float[Tensor, "batch label"]) -> Float[Tensor, ""]:
    """Return this rank's part of the mean over the global batch."""
    if not _are_several():
        return values.mean()
    return values.sum() / mean_over_ranks(torch.tensor(float(values.numel()), device=values.device))


def _are_several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1

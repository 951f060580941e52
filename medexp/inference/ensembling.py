"""Bring outputs together: over mirrored copies of a window, and over several models."""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from medexp.inference.decisions import Decision

Combination = Literal["average", "vote", "best_confidence"]
NetworkFunction = Callable[[Tensor], Tensor]


def flip_subsets(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return every subset of spatial axes, as dimensions of a batch `[batch, channel, *spatial]`; none first."""
    dimensions = [2 + axis for axis in axes]
    return [subset for size in range(len(dimensions) + 1) for subset in combinations(dimensions, size)]


def average_flips(network: NetworkFunction, axes: Sequence[int]) -> NetworkFunction:
    """Return a network whose output is the mean over the copies of its input mirrored along `axes`, mirrored back."""
    subsets = flip_subsets(axes)

    def averaged(image: Float[Tensor, "batch channel *spatial"]) -> Float[Tensor, "batch output *spatial"]:
        return average(network(image.flip(subset)).flip(subset) for subset in subsets)

    return averaged


def average(outputs: Iterable[Float[Tensor, "*shape"]]) -> Float[Tensor, "*shape"]:
    """Return the mean of equally shaped outputs in float32, holding one of them at a time.

    Raises:
        ValueError: There are none.
    """
    total, count = None, 0
    for output in outputs:
        total = output.float() if total is None else total.add_(output)
        count += 1
    if total is None:
        raise ValueError("expected at least one output to average, got none")
    return total if count == 1 else total.div_(count)


def combine(
    outputs: Iterable[Float[Tensor, "output *spatial"]], decision: Decision, how: Combination
) -> tuple[Float[Tensor, "output *spatial"], Decision]:
    """Return what several models say together, and how to decide on it; one of them is held at a time.

    Args:
        outputs: Probabilities of each model.
        decision: Of the models.
        how: `average` of the probabilities; `vote`: the share of models that decide so, more than half win; or
            `best_confidence`: for each voxel the model that is surest there, the first on a tie.

    Raises:
        ValueError: There are none.
    """
    if how == "vote":
        return average(decision.votes(output) for output in outputs), decision.of_votes()
    if how == "best_confidence":
        return _surest(outputs, decision), decision
    return average(outputs), decision


def _surest(
    outputs: Iterable[Float[Tensor, "output *spatial"]], decision: Decision
) -> Float[Tensor, "output *spatial"]:
    best = None
    for output in outputs:
        values, confidence = output.float(), decision.confidence(output.float())
        if best is None:
            best = (values.clone(), confidence)
            continue
        surer = confidence > best[1]
        best = (torch.where(surer, values, best[0]), torch.where(surer, confidence, best[1]))
    if best is None:
        raise ValueError("expected at least one output to combine, got none")
    return best[0]

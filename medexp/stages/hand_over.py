"""The hand-over between two stages of a curriculum: weights only, verified, and nothing else."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from medexp.errors import CheckpointMismatchError
from medexp.runs.ledger import Run

log = logging.getLogger(__name__)


def take_over(model: nn.Module, run: Run) -> str:
    """Load the best weights of an earlier stage's run into `model` and return a line that says so.

    The file's SHA-256 must be the recorded one, and every tensor must find its place: both stages are built
    from the same configuration. Optimizer, schedules and hyperparameters of the earlier stage are not looked at.

    Raises:
        CheckpointMismatchError: The file has changed, or tensors are missing, unexpected or of another shape.
    """
    output = run.output("best")
    path = output.verified()
    weights = dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    _check(model.state_dict(), weights, path)
    model.load_state_dict(weights, strict=True)
    values = sum(weight.numel() for weight in weights.values())
    line = f"initial weights: {len(weights)} of {len(weights)} tensors ({values:,} values) from the best of {run.name}"
    return f"{line}, sha256 {output.sha256}"


def _check(wanted: dict[str, Tensor], found: dict[str, Tensor], path: Path) -> None:
    problems = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "of another shape": sorted(
            name for name in wanted.keys() & found.keys() if wanted[name].shape != found[name].shape
        ),
    }
    if any(problems.values()):
        counts = "; ".join(f"{len(names)} {kind} {names[:3]}" for kind, names in problems.items() if names)
        raise CheckpointMismatchError(
            f"{path}: expected all {len(wanted)} tensors of this model, got {counts}. Run the earlier stage again with "
            "this model and dataset, or start from its weights with model.weights"
        )

"""The hand-over between two stages of a curriculum: weights only, verified, and nothing else."""

from torch import nn

from medexp.networks.pretrained import load_all
from medexp.networks.weights import read_weights
from medexp.runs.ledger import Run


def take_over(model: nn.Module, run: Run) -> str:
    """Load the best weights of an earlier stage's run into `model` and return a line that says so.

    The file's SHA-256 must be the recorded one, and every tensor must find its place: both stages are built
    from the same configuration. Optimizer, schedules and hyperparameters of the earlier stage are not looked at.

    Raises:
        CheckpointMismatchError: The file has changed, or tensors are missing, unexpected or of another shape.
    """
    output = run.output("best")
    coverage = load_all(model, read_weights(output.path, sha256=output.sha256))
    return f"{source_of(run)}, {coverage}"


def source_of(run: Run) -> str:
    """Say which file of an earlier stage's run the initial weights came from."""
    return f"initial weights: the best of {run.name}, sha256 {run.output('best').sha256}"

"""Rules that make one loss of several terms."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medexp.errors import ConfigurationError
from medexp.types import Amount


class FixedWeights(nn.Module):
    """The sum of the terms, each times its weight.

    Args:
        names: Of the terms.
        weights: By the terms' names, one for each.

    Raises:
        ConfigurationError: Terms and weights differ in their names, or a weight is negative, or all are zero.
    """

    def __init__(self, *, names: tuple[str, ...], weights: Mapping[str, Amount]) -> None:
        super().__init__()
        if set(weights) != set(names):
            raise ConfigurationError(
                f"model.loss.combine.weights: expected a weight for each term {sorted(names)}, got "
                f"{sorted(weights)}: name every term once in both"
            )
        if min(weights.values()) < 0 or max(weights.values()) == 0:
            raise ConfigurationError(
                f"model.loss.combine.weights: expected none below 0 and one above, got {dict(weights)}"
            )
        self.weights = {name: float(weights[name]) for name in names}

    def forward(self, parts: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the sum; a term of weight 0 has no part in it, whatever its value."""
        return torch.stack([weight * parts[name] for name, weight in self.weights.items() if weight]).sum()


class UncertaintyWeights(nn.Module):
    """Weights that are learned: sum of L / (2 sigma^2) + log sigma, with a sigma per term.

    The logarithms of sigma^2 are parameters. Weight decay would pull them to weights of one half: leave it out.
    For a term that stays at L the best value is log L, at which all terms weigh alike whatever their scale.

    Args:
        names: Of the terms.
        calibration: A JSON file with a typical value of each term, at whose best sigma the training starts; None:
            sigma starts at 1.

    Raises:
        ConfigurationError: The file does not hold one positive number per term.

    Source:
        Kendall et al., CVPR 2018, equation 10.
    """

    def __init__(self, *, names: tuple[str, ...], calibration: str | Path | None = None) -> None:
        super().__init__()
        start = dict.fromkeys(names, 1.0) if calibration is None else _read(Path(calibration), names)
        self.names = names
        self.log_variances = nn.Parameter(torch.tensor([math.log(start[name]) for name in names]))

    def forward(self, parts: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Return the sum."""
        values = torch.stack([parts[name] for name in self.names])
        return (0.5 * torch.exp(-self.log_variances) * values + 0.5 * self.log_variances).sum()


def _read(path: Path, names: tuple[str, ...]) -> dict[str, float]:
    key = f"model.loss.combine.calibration={path}"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigurationError(f"{key}: expected a JSON file with a number per term, got '{error}'") from error
    if not isinstance(values, dict) or set(values) != set(names):
        found = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise ConfigurationError(f"{key}: expected the terms {sorted(names)}, got {found}: name each once")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ConfigurationError(f"{key}: expected positive numbers, got {name}: {value}")
    return {name: float(value) for name, value in values.items()}

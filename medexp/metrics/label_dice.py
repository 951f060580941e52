"""Dice per label and region of whole volumes, counted where the volumes are."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Integer
from torch import Tensor


class LabelDice:
    """Collects cases, then averages: 2 n(A and B) / (n(A) + n(B)) per case, the mean over cases.

    A case whose reference and prediction both lack a label says nothing about it and is left out of that label's
    mean; the number of cases that count is returned beside it. A label predicted where the reference has none
    counts as 0.

    Args:
        labels: Values of the foreground labels.
        regions: Values that form each region.
    """

    def __init__(self, labels: Mapping[str, int], regions: Mapping[str, tuple[int, ...]]) -> None:
        self._labels = tuple(labels)
        self._groups = {**{name: (value,) for name, value in labels.items()}, **regions}
        self._num_values = max(labels.values()) + 1
        self._confusions: list[Tensor] = []

    def clear(self) -> None:
        """Forget all cases."""
        self._confusions = []

    def add(self, prediction: Integer[Tensor, "*spatial"], label: Integer[Tensor, "*spatial"]) -> None:
        """Count one case; nothing leaves the device."""
        pairs = label.flatten().to(torch.int32) * self._num_values + prediction.flatten()
        counts = torch.bincount(pairs, minlength=self._num_values**2)
        self._confusions.append(counts.view(self._num_values, self._num_values))  # reference, prediction

    def per_case(self) -> dict[str, Float[Tensor, " case"]]:
        """Return each case's Dice by label and region, `nan` where both are empty."""
        if not self._confusions:
            return {name: torch.empty(0) for name in self._groups}
        confusion = torch.stack(self._confusions).double().cpu()  # case, reference, prediction
        scores = {}
        for name, values in self._groups.items():
            chosen = list(values)
            both = confusion[:, chosen][:, :, chosen].sum((1, 2))
            sizes = confusion[:, chosen].sum((1, 2)) + confusion[:, :, chosen].sum((1, 2))
            scores[name] = (2 * both / sizes).float()  # 0 / 0 is nan
        return scores

    def summary(self) -> dict[str, float]:
        """Return `dice/<name>` and `cases/<name>` for what any case holds, and `dice/mean` over the labels."""
        scores = self.per_case()
        known = {name: values[~values.isnan()] for name, values in scores.items()}
        means = {name: float(values.mean()) for name, values in known.items() if len(values)}
        of_labels = [means[name] for name in self._labels if name in means]
        mean = sum(of_labels) / len(of_labels) if of_labels else float("nan")
        return {
            **{f"dice/{name}": value for name, value in means.items()},
            **{f"cases/{name}": float(len(values)) for name, values in known.items()},
            "dice/mean": mean,
        }

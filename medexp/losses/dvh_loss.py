"""What a planner reads from a dose-volume histogram, as something to train on."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medexp.errors import ConfigurationError
from medexp.losses.ranks import mean_over_ranks
from medexp.losses.structures import exact, inside, targets_of
from medexp.types import Amount, Count, DoseContract, Positive

_COVERED_SHARE = 0.95
_SMOOTHED_REACH = 3.0  # temperatures below zero dose: there a volume without dose is covered to more than 95 %
_LEAST_SLOPE = 1e-4  # per bin: where no voxel is near D95, it jumps, and its gradient has no bound otherwise
_LARGEST_DOSE = 1.5  # of the prescription; no plan goes there


class DvhError(nn.Module):
    """Squared differences of D95 in targets, of Vx and of the mean dose, each averaged over what the batch holds.

    They are those of the structure's part inside the patch. D95 counts only where it is lower than planned. A
    structure that is absent or outside the patch contributes nothing, and is not counted.

    A step is smoothed to a sigmoid whose width is the temperature, in fractions of the prescription: 0.1 is 7 Gy of
    70. Smoothing moves D95 down by 2.9 temperatures, of both doses alike. (The VMAT system's own sigmoid of Vx was
    ten times as wide as its argument said, and nearly flat.)

    Args:
        contract: Targets, structures and the prescription.
        d95_weights: Of the targets, by falling prescribed dose; as many as there are targets, or more.
        d95_weight: Of all D95 together.
        volumes: Dose levels x in Gy, by structure.
        volume_weight: Of all Vx together.
        mean_weight: Of the mean doses of all structures together.
        num_bins: Bins of the histogram from which D95 is read.
        temperature: Width of the sigmoid.

    Raises:
        ConfigurationError: A structure is not the dataset's, a target has no weight, or the histogram is too coarse.
    """

    nodes: Tensor
    smoothing: Tensor

    def __init__(
        self,
        *,
        contract: DoseContract,
        d95_weights: Sequence[float],
        d95_weight: Amount,
        volumes: Mapping[str, Sequence[float]],
        volume_weight: Amount,
        mean_weight: Amount,
        num_bins: Count,
        temperature: Positive,
    ) -> None:
        super().__init__()
        _check(contract, d95_weights, volumes, num_bins=num_bins, temperature=temperature)
        self.contract, self.temperature = contract, temperature
        self.target_weights = dict(zip(targets_of(contract), d95_weights, strict=False))  # more weights are allowed
        self.volumes = {name: [level / contract.prescription_gy for level in volumes[name]] for name in volumes}
        self.d95_weight, self.volume_weight, self.mean_weight = d95_weight, volume_weight, mean_weight
        nodes = torch.linspace(-_SMOOTHED_REACH * temperature, _LARGEST_DOSE, num_bins + 1)
        self.register_buffer("nodes", nodes, persistent=False)
        self.register_buffer("smoothing", ((nodes - nodes[:, None]) / temperature).sigmoid(), persistent=False)

    def forward(
        self,
        prediction: Float[Tensor, "batch 1 i j k"],
        target: Float[Tensor, "batch 1 i j k"],
        image: Float[Tensor, "batch channel i j k"],
    ) -> Float[Tensor, ""]:
        """Return the loss; 0 for a batch without structures."""
        predicted, planned = exact(prediction), exact(target)
        parts: dict[str, list[Tensor]] = {"d95": [], "volume": [], "mean": []}
        for name in self.contract.structures:
            for mask, found, wanted in zip(inside(image, self.contract, name), predicted, planned, strict=True):
                self._compare(name, found[mask], wanted[mask], parts)
        nothing = 0.0 * predicted.sum()  # keeps the graph where no structure is there
        weights = {"d95": self.d95_weight, "volume": self.volume_weight, "mean": self.mean_weight}
        return nothing + sum(weights[key] * _mean(values, like=nothing) for key, values in parts.items())

    def _compare(
        self, name: str, found: Float[Tensor, " voxel"], wanted: Float[Tensor, " voxel"], parts: dict[str, list[Tensor]]
    ) -> None:
        """Add the squared differences of one structure of one example."""
        if not len(found):
            return
        parts["mean"].append((found.mean() - wanted.mean()).square())
        for level in self.volumes.get(name, ()):
            parts["volume"].append((self.volume_above(found, level) - self.volume_above(wanted, level)).square())
        if self.d95_weight and name in self.target_weights:
            lacking = (self.dose_covering(wanted) - self.dose_covering(found)).relu()
            parts["d95"].append(self.target_weights[name] * lacking.square())

    def volume_above(self, dose: Float[Tensor, " voxel"], level: float) -> Float[Tensor, ""]:
        """Return the share of voxels with at least this dose, smoothed."""
        return ((dose - level) / self.temperature).sigmoid().mean()

    def dose_covering(self, dose: Float[Tensor, " voxel"]) -> Float[Tensor, ""]:
        """Return D95, smoothed: where the cumulative histogram falls below 95 %.

        Each voxel is shared between the two nodes beside it, so that the cost is that of a histogram and the
        gradient reaches all voxels; the histogram is then smoothed.
        """
        nodes, smoothing = self.nodes.to(dose.dtype), self.smoothing.to(dose.dtype)
        step = nodes[1] - nodes[0]
        place = ((dose - nodes[0]) / step).clamp(0, len(nodes) - 1)
        below = place.detach().floor().clamp_max(len(nodes) - 2)
        share = place - below
        counts = torch.zeros_like(nodes).index_add(0, below.long(), 1 - share).index_add(0, below.long() + 1, share)
        covered = smoothing @ (counts / len(dose))  # share of the volume above each node
        first = (covered.detach() >= _COVERED_SHARE).sum().sub(1).clamp(0, len(nodes) - 2)
        upper, lower = covered[first], covered[first + 1]
        return nodes[first] + step * (upper - _COVERED_SHARE) / (upper - lower).clamp_min(_LEAST_SLOPE)


def _mean(values: Sequence[Float[Tensor, ""]], *, like: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Return this rank's part of the mean over what the global batch holds; 0 where that is nothing."""
    count = mean_over_ranks(like.detach().new_tensor(float(len(values)))).clamp_min(torch.finfo(like.dtype).tiny)
    return torch.stack([*values, torch.zeros_like(like)]).sum() / count


def _check(
    contract: DoseContract,
    d95_weights: Sequence[float],
    volumes: Mapping[str, Sequence[float]],
    *,
    num_bins: int,
    temperature: float,
) -> None:
    unknown = sorted(set(volumes) - set(contract.structures))
    if unknown:
        raise ConfigurationError(
            f"volumes of the DVH loss: expected structures of the dataset {list(contract.structures)}, got {unknown}"
        )
    if len(d95_weights) < len(contract.targets) or min(d95_weights, default=0.0) < 0:
        raise ConfigurationError(
            f"d95_weights of the DVH loss: expected a weight of at least 0 for each target "
            f"{list(targets_of(contract))}, got {list(d95_weights)}"
        )
    step = (_LARGEST_DOSE + _SMOOTHED_REACH * temperature) / max(num_bins, 1)
    if temperature <= 0 or num_bins < 1 or step > temperature:
        raise ConfigurationError(
            f"num_bins and temperature of the DVH loss: expected bins no wider than the temperature, got {num_bins} "
            f"bins of {step:.3g} and a temperature of {temperature}: take more bins"
        )

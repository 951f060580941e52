"""What a network's outputs mean, stated once by the model: probabilities, decisions, and what stands for background."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from medexp.errors import ConfigurationError
from medexp.types import DataContract, Share

_BACKGROUND_LOGIT = 20.0  # of voxels in windows that were not run: background beyond 1 - 1e-7


@dataclass(frozen=True)
class Softmax:
    """One output per label and one for the background; the largest wins, the lower one on a tie."""

    def num_outputs(self, contract: DataContract) -> int:
        """Return the number of outputs of a network."""
        return contract.num_labels

    def background(self, contract: DataContract) -> tuple[float, ...]:
        """Return the logits of a voxel that is certainly background."""
        return (_BACKGROUND_LOGIT, *(0.0 for _ in contract.labels))

    def probabilities(self, logits: Float[Tensor, "label *spatial"]) -> Float[Tensor, "label *spatial"]:
        """Return the probabilities of the outputs, background first."""
        return logits.softmax(0)

    def decide(self, probabilities: Float[Tensor, "label *spatial"]) -> UInt8[Tensor, "*spatial"]:
        """Return label values."""
        return probabilities.argmax(0).to(torch.uint8)

    def votes(self, probabilities: Float[Tensor, "label *spatial"]) -> Float[Tensor, "label *spatial"]:
        """Return 1 for the label decided on and 0 for the others."""
        winners = probabilities.argmax(0, keepdim=True)
        return torch.zeros_like(probabilities).scatter_(0, winners, 1.0)

    def confidence(self, probabilities: Float[Tensor, "label *spatial"]) -> Float[Tensor, "*spatial"]:
        """Return how sure each voxel is."""
        return probabilities.amax(0)

    def at(self, threshold: float) -> "Softmax":
        """Refuse a threshold.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(
            f"predict.threshold: expected null, because labels exclude each other and the largest wins, got {threshold}"
        )

    def of_votes(self) -> "Softmax":
        """Return the decision over votes."""
        return self

    def to_json(self) -> dict[str, Any]:
        """Return plain values, which a checkpoint keeps."""
        return {"activation": "softmax"}


@dataclass(frozen=True)
class Sigmoid:
    """One output for the one label; object is what lies above the threshold.

    Attributes:
        threshold: Of the probability.
    """

    threshold: Share

    def num_outputs(self, contract: DataContract) -> int:
        """Return the number of outputs of a network.

        Raises:
            ConfigurationError: The dataset has several labels.
        """
        if len(contract.labels) != 1:
            message = "model.decision: expected Softmax for several labels, got Sigmoid with"
            raise ConfigurationError(f"{message} {list(contract.labels)}")
        return 1

    def background(self, contract: DataContract) -> tuple[float, ...]:
        """Return the logit of a voxel that is certainly background."""
        return (-_BACKGROUND_LOGIT,)

    def probabilities(self, logits: Float[Tensor, "1 *spatial"]) -> Float[Tensor, "1 *spatial"]:
        """Return the probability of the label."""
        return logits.sigmoid()

    def decide(self, probabilities: Float[Tensor, "1 *spatial"]) -> UInt8[Tensor, "*spatial"]:
        """Return 1 where the label is decided on."""
        return self._above(probabilities)[0].to(torch.uint8)

    def votes(self, probabilities: Float[Tensor, "1 *spatial"]) -> Float[Tensor, "1 *spatial"]:
        """Return 1 where the label is decided on and 0 elsewhere."""
        return self._above(probabilities).to(probabilities.dtype)

    def confidence(self, probabilities: Float[Tensor, "1 *spatial"]) -> Float[Tensor, "*spatial"]:
        """Return how far each voxel is from undecided, in units of the side that it is on."""
        distance = probabilities[0] - self.threshold
        return torch.where(
            distance > 0, distance / max(1.0 - self.threshold, 1e-6), -distance / max(self.threshold, 1e-6)
        )

    def _above(self, probabilities: Float[Tensor, "1 *spatial"]) -> Bool[Tensor, "1 *spatial"]:
        return probabilities > self.threshold

    def at(self, threshold: float) -> "Sigmoid":
        """Return the decision at another threshold."""
        return replace(self, threshold=threshold)

    def of_votes(self) -> "Sigmoid":
        """Return the decision over shares of votes: more than half."""
        return replace(self, threshold=0.5)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, which a checkpoint keeps."""
        return {"activation": "sigmoid", "threshold": self.threshold}


@dataclass(frozen=True)
class Dose:
    """One output: the dose as a fraction of the prescription. Nothing is decided, but no dose is negative.

    Attributes:
        prescription_gy: What 1 stands for.
    """

    prescription_gy: float

    def dose_gy(self, fraction: Float[Tensor, "1 *spatial"]) -> Float[Tensor, "*spatial"]:
        """Return the dose in Gy."""
        return fraction[0].float().clamp_min(0.0) * self.prescription_gy

    def at(self, threshold: float) -> "Dose":
        """Refuse a threshold.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(f"predict.threshold: expected null, because a dose is no decision, got {threshold}")

    def to_json(self) -> dict[str, Any]:
        """Return plain values, which a checkpoint keeps."""
        return {"activation": "dose", "prescription_gy": self.prescription_gy}


Decision = Softmax | Sigmoid
AnyDecision = Decision | Dose


def decision_from_json(record: Mapping[str, Any] | None) -> AnyDecision:
    """Read what a checkpoint keeps; one without it decides by the largest of several outputs."""
    if record is None or record["activation"] == "softmax":
        return Softmax()
    if record["activation"] == "dose":
        return Dose(float(record["prescription_gy"]))
    return Sigmoid(float(record["threshold"]))

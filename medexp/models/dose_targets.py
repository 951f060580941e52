"""What both kinds of dose models need: the contract in a checkpoint, air around a patient, errors of a batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medexp.errors import ConfigurationError
from medexp.inference.decisions import Dose
from medexp.inference.sliding_window import SlidingWindow
from medexp.keys import CONSTRAINTS, DOSE, IMAGE, POSSIBLE, SPACING
from medexp.metrics.dose_validation import DoseValidation
from medexp.types import DoseContract


def dose_record(contract: DoseContract, channels: Sequence[str], decision: Dose) -> dict[str, Any]:
    """Return the contract as plain values, which a checkpoint can hold; `channels` are the network's own."""
    return {
        "name": contract.name,
        "channels": list(channels),
        "structures": list(contract.structures),
        "targets": dict(contract.targets),
        "mirrored": [list(pair) for pair in contract.mirrored],
        "num_constraints": contract.num_constraints,
        "prescription_gy": contract.prescription_gy,
        "distance_clip_mm": contract.distance_clip_mm,
        "patch_size": list(contract.patch_size),
        "plan": contract.plan.to_json(),
        "decision": decision.to_json(),
    }


def in_air(window: SlidingWindow) -> SlidingWindow:
    """Return the window, after a look at its padding: what lies around a small patient is air, and no mirror image.

    Raises:
        ConfigurationError: It would mirror.
    """
    if window.padding != "zeros":
        raise ConfigurationError(f"model.window.padding: expected zeros (air) for doses, got {window.padding}")
    return window


def cases_of(batch: Mapping[str, Any]) -> Iterator[dict[str, Tensor]]:
    """Yield what a model gets of each case of a batch of whole volumes."""
    for image, constraints, possible in zip(batch[IMAGE], batch[CONSTRAINTS], batch[POSSIBLE], strict=True):
        yield {IMAGE: image, CONSTRAINTS: constraints, POSSIBLE: possible}


def validated(
    infer: Callable[[Mapping[str, Tensor]], Tensor],
    batch: Mapping[str, Any],
    scores: DoseValidation,
    contract: DoseContract,
) -> dict[str, Tensor]:
    """Predict a batch of whole volumes, add its cases to the scores and return what a validation step returns."""
    prediction = torch.stack([infer(inputs) for inputs in cases_of(batch)])
    decision = Dose(contract.prescription_gy)
    given = (batch[key] for key in (DOSE, POSSIBLE, IMAGE, SPACING))
    for predicted, dose, possible, image, spacing in zip(prediction, *given, strict=True):
        targets = {name: image[contract.channel_of(name)] < 0 for name in contract.targets}
        reference_gy = dose[0] * contract.prescription_gy
        scores.add(decision.dose_gy(predicted), reference_gy, possible.bool(), targets, spacing)
    return {"prediction": prediction}

"""What dose models of every kind share: network and contract, whole volumes in windows, validation in Gy."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medexp.errors import ConfigurationError
from medexp.inference.decisions import Dose
from medexp.inference.dose_volumes import Covering, Surrounded, mirrored_channels
from medexp.inference.sliding_window import SlidingWindow
from medexp.keys import CONSTRAINTS, DOSE, IMAGE, POSSIBLE, SPACING
from medexp.metrics.dose_validation import DoseValidation
from medexp.models.curriculum import Phase
from medexp.models.learning import Learning, Mode, build_network, loss_of
from medexp.types import Count, DoseContract, Share


class DoseLearning(Learning):
    """A network completed with a dose dataset's contract, and one phase of its curriculum.

    Validation runs over whole volumes: `val/mae_gy` is the mean over the cases of their mean absolute error where dose
    may be, `val/mae_gy/<target>` that inside a target. A subclass says what a loss is, and how a volume gets its dose.

    Args:
        contract: What the dataset promises.
        leading: Channels of the network before the contract's own.
        further_inputs: What the network takes after the image, a batch of one of each, to try weights on.
        phase: The curriculum's entry to train; None: the model only predicts.
        network: Takes `in_channels`, `out_channels` and `num_constraints`.
        weights: A file, or a run's checkpoint; None: random values.
        weights_sha256: What the file must hash to; None: it is recorded, not checked.
        weights_channels: The order of channels that the weights were trained on. A checkpoint of medexp knows its own.
        min_weight_coverage: Share of the network's values that the weights must fill.
        loss: The loss of phases that have none of their own.
        loss_arguments: What every loss is completed with.
        compile_network: Compile it.
        channels_last: Keep channels innermost in memory.
        window: Covers whole volumes in validation.
        gamma_proxy_subsample: In validation, judge every n-th voxel along each axis; None: no gamma.
        curriculum: The phases by name.
        monitor: The validation score that chooses the best checkpoint.
        monitor_mode: Whether less or more of it is better.
        record: What a checkpoint keeps beside the contract.

    Raises:
        ConfigurationError: The phase, channels or freeze patterns name nothing that is there, or the window mirrors.
        CheckpointMismatchError: The weights are damaged or cover too little.
    """

    decision: Dose
    scores: DoseValidation

    def __init__(
        self,
        *,
        contract: DoseContract,
        leading: Sequence[str] = (),
        further_inputs: Sequence[Tensor] = (),
        phase: str | None,
        network: Callable[..., nn.Module],
        weights: str | Path | None,
        weights_sha256: str | None,
        weights_channels: Sequence[str] | None,
        min_weight_coverage: Share,
        loss: Callable[..., nn.Module],
        loss_arguments: Mapping[str, Any],
        compile_network: bool,
        channels_last: bool,
        window: SlidingWindow,
        gamma_proxy_subsample: Count | None,
        curriculum: Mapping[str, Phase],
        monitor: str,
        monitor_mode: Mode,
        record: Mapping[str, Any],
    ) -> None:
        decision, channels = Dose(contract.prescription_gy), (*leading, *contract.channels)
        super().__init__(
            contract=contract,
            phase=phase,
            curriculum=curriculum,
            monitor=monitor,
            monitor_mode=monitor_mode,
            record={**_record(contract, channels, decision), **record},
        )
        self.window, self.decision, self._leading = _in_air(window), decision, len(leading)
        offered = {"in_channels": len(channels), "out_channels": 1, "num_constraints": contract.num_constraints}
        self.network = build_network(network, offered)
        if weights is not None:
            self.coverage = self._load_weights(
                str(weights),
                weights_sha256,
                channels=channels,
                weights_channels=weights_channels,
                min_coverage=min_weight_coverage,
                further_inputs=(*further_inputs, torch.zeros(1, contract.num_constraints)),
            )
        self.loss = loss_of(self.phase, loss)(**loss_arguments)
        self.scores = DoseValidation(gamma_proxy_subsample=gamma_proxy_subsample)
        self._take_phase(channels_last=channels_last, compile_network=compile_network)

    @abstractmethod
    def _dose_of(self, covering: Covering, constraints: Float[Tensor, "1 constraint"]) -> Float[Tensor, "1 i j k"]:
        """Return the dose of a volume that windows cover, as a fraction of the prescription."""

    def infer(
        self,
        inputs: Mapping[str, Tensor],
        *,
        window: SlidingWindow,
        flip_axes: Sequence[int] = (),
        tile: Sequence[int] | None = None,
    ) -> Float[Tensor, "1 i j k"]:
        """Return the dose of a whole case as a fraction of the prescription; see `Learning.infer`."""
        size = self.contract.patch_size if tile is None else tuple(tile)
        volume = Surrounded.of(inputs[IMAGE], inputs[POSSIBLE], size)
        channels = mirrored_channels(self.contract, leading=self._leading)
        covering = Covering(volume, window, tuple(size), tuple(flip_axes), tuple(channels))
        return volume.cut(self._dose_of(covering, inputs[CONSTRAINTS][None]), inputs[POSSIBLE])

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Predict whole volumes and count."""
        prediction = torch.stack([self.infer(inputs, window=self.window) for inputs in cases_of(batch)])
        given = (batch[key] for key in (DOSE, POSSIBLE, IMAGE, SPACING))
        for predicted, dose, possible, image, spacing in zip(prediction, *given, strict=True):
            targets = {name: image[self.contract.channel_of(name)] < 0 for name in self.contract.targets}
            reference_gy = dose[0] * self.contract.prescription_gy
            self.scores.add(self.decision.dose_gy(predicted), reference_gy, possible.bool(), targets, spacing)
        return {"prediction": prediction}


def cases_of(batch: Mapping[str, Any]) -> Iterator[dict[str, Tensor]]:
    """Yield what a model gets of each case of a batch of whole volumes."""
    for image, constraints, possible in zip(batch[IMAGE], batch[CONSTRAINTS], batch[POSSIBLE], strict=True):
        yield {IMAGE: image, CONSTRAINTS: constraints, POSSIBLE: possible}


def _record(contract: DoseContract, channels: Sequence[str], decision: Dose) -> dict[str, Any]:
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


def _in_air(window: SlidingWindow) -> SlidingWindow:
    """Return the window, after a look at its padding: what lies around a small patient is air, and no mirror image."""
    if window.padding != "zeros":
        raise ConfigurationError(f"model.window.padding: expected zeros (air) for doses, got {window.padding}")
    return window

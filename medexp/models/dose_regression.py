"""How a network learns to predict the dose of a plan from CT and structures, voxel by voxel."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medexp.inference.decisions import Dose
from medexp.inference.dose_volumes import Surrounded, average_mirrored, mirrored_channels
from medexp.inference.sliding_window import SlidingWindow
from medexp.keys import CONSTRAINTS, DOSE, IMAGE, POSSIBLE
from medexp.losses.doses import DoseLoss
from medexp.metrics.dose_validation import DoseValidation
from medexp.models.curriculum import Phase
from medexp.models.dose_targets import dose_record, in_air, validated
from medexp.models.learning import Learning, Mode, build_network, loss_of
from medexp.types import Count, DoseContract, Share


class DoseRegression(Learning):
    """A network completed with a dose dataset's contract, and one phase of its curriculum.

    It takes CT, signed distances and the protocol's constraints, and returns the dose as a fraction of the
    prescription. Validation runs over whole volumes: `val/mae_gy` is the mean over the cases of their mean absolute
    error where dose may be, `val/mae_gy/<target>` that inside a target.

    Args:
        contract: What the dataset promises.
        phase: The curriculum's entry to train; None: the model only predicts.
        network: Takes `in_channels`, `out_channels` and `num_constraints`.
        weights: A file, or a run's checkpoint; None: random values.
        weights_sha256: What the file must hash to; None: it is recorded, not checked.
        weights_channels: The order of channels that the weights were trained on. A checkpoint of medexp knows its own.
        min_weight_coverage: Share of the network's values that the weights must fill.
        loss: Takes the contract; its terms, if there are several, are logged as `train/loss/<term>`.
        compile: Compile the network.
        channels_last: Keep channels innermost in memory.
        window: Covers whole volumes in validation.
        gamma_proxy_subsample: In validation, judge every n-th voxel along each axis; None: no gamma.
        curriculum: The phases by name.
        monitor: The validation score that chooses the best checkpoint.
        monitor_mode: Whether less or more of it is better.

    Raises:
        ConfigurationError: The phase, channels or freeze patterns name nothing that is there, or the window mirrors.
        CheckpointMismatchError: The weights are damaged or cover too little.
    """

    decision: Dose
    loss: DoseLoss
    scores: DoseValidation

    def __init__(
        self,
        *,
        contract: DoseContract,
        phase: str | None = None,
        network: Callable[..., nn.Module],
        weights: str | Path | None,
        weights_sha256: str | None,
        weights_channels: Sequence[str] | None,
        min_weight_coverage: Share,
        loss: Callable[..., DoseLoss],
        compile: bool,  # noqa: A002 - the configuration's word
        channels_last: bool,
        window: SlidingWindow,
        gamma_proxy_subsample: Count | None,
        curriculum: Mapping[str, Phase],
        monitor: str,
        monitor_mode: Mode,
    ) -> None:
        decision, channels = Dose(contract.prescription_gy), contract.channels
        record = dose_record(contract, channels, decision)
        super().__init__(
            contract=contract,
            phase=phase,
            curriculum=curriculum,
            monitor=monitor,
            monitor_mode=monitor_mode,
            record=record,
        )
        self.window, self.decision = in_air(window), decision
        offered = {"in_channels": len(channels), "out_channels": 1, "num_constraints": contract.num_constraints}
        self.network = build_network(network, offered)
        if weights is not None:
            self.coverage = self._load_weights(
                str(weights),
                weights_sha256,
                channels=channels,
                weights_channels=weights_channels,
                min_coverage=min_weight_coverage,
                further_inputs=(torch.zeros(1, contract.num_constraints),),
            )
        self.loss = loss_of(self.phase, loss)(contract=contract)  # type: ignore[assignment] # a phase has any loss
        self.scores = DoseValidation(gamma_proxy_subsample=gamma_proxy_subsample)
        self._take_phase(channels_last=channels_last, compile_network=compile)

    def forward(
        self, image: Float[Tensor, "batch channel i j k"], constraints: Float[Tensor, "batch constraint"]
    ) -> Float[Tensor, "batch 1 i j k"]:
        """Return the dose as a fraction of the prescription."""
        return self.network(self._in_memory_format(image), constraints)

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
        constraints = inputs[CONSTRAINTS][None]

        def run(patches: Float[Tensor, "batch channel i j k"]) -> Float[Tensor, "batch 1 i j k"]:
            return self(patches, constraints.expand(len(patches), -1))

        network = average_mirrored(run, flip_axes, mirrored_channels(self.contract))
        dose = window(network, volume.image, patch_size=size, foreground=volume.sought)
        return volume.cut(dose, inputs[POSSIBLE])

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Float[Tensor, ""]:
        """Return the loss of a batch, scaled so that each optimizer step uses the mean over its batches."""
        parts = self.loss.parts(self(batch[IMAGE], batch[CONSTRAINTS]), batch[DOSE], batch[IMAGE])
        size = len(batch[IMAGE])
        if len(parts) > 1:  # a single one is the loss itself
            for name, value in parts.items():
                self.log(f"train/loss/{name}", value.detach(), on_step=True, on_epoch=False, batch_size=size)
        return self._scaled(self.loss.combine(parts), batch_idx, size=size)

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Predict whole volumes and count."""
        return validated(partial(self.infer, window=self.window), batch, self.scores, self.contract)

"""How a network learns to predict the dose of a plan from CT and structures, voxel by voxel."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from medexp.inference.dose_volumes import Covering
from medexp.inference.sliding_window import SlidingWindow
from medexp.keys import CONSTRAINTS, DOSE, IMAGE
from medexp.losses.doses import DoseLoss
from medexp.models.curriculum import Phase
from medexp.models.dose_learning import DoseLearning
from medexp.models.learning import Mode
from medexp.types import Count, DoseContract, Share


class DoseRegression(DoseLearning):
    """Takes CT, signed distances and the protocol's constraints, returns the dose as a fraction of the prescription.

    Args:
        loss: Takes the contract; its terms, if there are several, are logged as `train/loss/<term>`.
        compile: Compile the network.

    The others are those of `DoseLearning`, and so is what it raises.
    """

    loss: DoseLoss

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
        super().__init__(
            contract=contract,
            phase=phase,
            network=network,
            weights=weights,
            weights_sha256=weights_sha256,
            weights_channels=weights_channels,
            min_weight_coverage=min_weight_coverage,
            loss=loss,
            loss_arguments={"contract": contract},
            compile_network=compile,
            channels_last=channels_last,
            window=window,
            gamma_proxy_subsample=gamma_proxy_subsample,
            curriculum=curriculum,
            monitor=monitor,
            monitor_mode=monitor_mode,
            record={},
        )

    def forward(
        self, image: Float[Tensor, "batch channel i j k"], constraints: Float[Tensor, "batch constraint"]
    ) -> Float[Tensor, "batch 1 i j k"]:
        """Return the dose as a fraction of the prescription."""
        return self.network(self._in_memory_format(image), constraints)

    def _dose_of(self, covering: Covering, constraints: Float[Tensor, "1 constraint"]) -> Float[Tensor, "1 i j k"]:
        def run(patches: Float[Tensor, "batch channel i j k"]) -> Float[Tensor, "batch 1 i j k"]:
            return self(patches, constraints.expand(len(patches), -1))

        return covering.run(run, covering.volume.image)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Float[Tensor, ""]:
        """Return the loss of a batch, scaled so that each optimizer step uses the mean over its batches."""
        parts = self.loss.parts(self(batch[IMAGE], batch[CONSTRAINTS]), batch[DOSE], batch[IMAGE])
        size = len(batch[IMAGE])
        if len(parts) > 1:  # a single one is the loss itself
            for name, value in parts.items():
                self.log(f"train/loss/{name}", value.detach(), on_step=True, on_epoch=False, batch_size=size)
        return self._scaled(self.loss.combine(parts), batch_idx, size=size)

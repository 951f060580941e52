"""An exponential moving average of the weights, used wherever weights are judged or handed on."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from medexp.types import PartialShare


class ExponentialMovingAverage(Callback):
    """Average the trained weights after every optimizer step: average = decay * average + (1 - decay) * weights.

    Validation runs on the average, and a checkpoint's `state_dict` holds it, so best.ckpt, the next stage and
    `predict` use it; the weights that training goes on from stand beside it as `training_weights`. Frozen
    weights and buffers are not averaged. `decay=0` switches the callback off.

    Source:
        Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992.
    """

    def __init__(self, *, decay: PartialShare) -> None:
        self._decay = decay
        self._names: list[str] = []
        self._weights: list[nn.Parameter] = []
        self._averages: list[Tensor] = []
        self._restored: dict[str, Tensor] = {}
        self._seen_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from the initial weights, or from the average that a checkpoint held."""
        self._seen_step = trainer.global_step
        if self._decay > 0:
            trained = [(name, weight) for name, weight in pl_module.named_parameters() if weight.requires_grad]
            self._names, self._weights = [name for name, _ in trained], [weight for _, weight in trained]
            self._averages = [
                self._restored.get(name, weight).detach().to(weight.device, copy=True) for name, weight in trained
            ]
            self._restored = {}

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update after an optimizer step, not after a batch that was only accumulated."""
        if self._decay > 0 and trainer.global_step != self._seen_step:
            self._seen_step = trainer.global_step
            torch._foreach_lerp_(self._averages, [weight.detach() for weight in self._weights], 1.0 - self._decay)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in place of the weights."""
        self._swap()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights back."""
        self._swap()

    def _swap(self) -> None:
        for weight, average in zip(self._weights, self._averages, strict=True):
            weight.data, average.data = average.data, weight.data

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let the checkpoint hold the average as its weights."""
        if self._names:
            weights = checkpoint["state_dict"]
            checkpoint["training_weights"] = {name: weights[name] for name in self._names}
            checkpoint["state_dict"] = {**weights, **dict(zip(self._names, self._averages, strict=True))}

    @torch.no_grad()
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on from the training weights, with the average as it was."""
        if self._decay > 0 and "training_weights" in checkpoint:
            weights = dict(pl_module.named_parameters())
            for name, value in checkpoint["training_weights"].items():
                weights[name].copy_(value)
                self._restored[name] = checkpoint["state_dict"][name]

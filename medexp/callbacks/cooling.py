"""Pauses for machines that overheat or must stay usable for others."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from medexp.types import Amount, Count


class CoolingPauses(Callback):
    """Sleep `pause_s` seconds after every `every_n_steps`-th optimizer step; 0 seconds: never."""

    def __init__(self, *, every_n_steps: Count, pause_s: Amount) -> None:
        self._every_n_steps, self._pause_s = every_n_steps, pause_s
        self._seen_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from where a resumed run goes on."""
        self._seen_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Pause when it is time."""
        stepped, self._seen_step = trainer.global_step != self._seen_step, trainer.global_step
        if self._pause_s > 0 and stepped and trainer.global_step % self._every_n_steps == 0:
            time.sleep(self._pause_s)

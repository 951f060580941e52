"""End training when validation no longer improves."""

import logging
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from medexp.callbacks.checkpoints import is_better, monitored
from medexp.types import Amount, Count

log = logging.getLogger(__name__)


class EarlyStopping(Callback):
    """Stop after `patience` validations in a row without an improvement of more than `min_delta`.

    Counts survive a resume; a run that had stopped stays stopped.
    """

    def __init__(self, *, monitor: str, mode: Literal["min", "max"], patience: Count, min_delta: Amount) -> None:
        self._monitor, self._mode, self._patience, self._min_delta = monitor, mode, patience, min_delta
        self._best = float("nan")
        self._waited = 0
        self.stopped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep a resumed run stopped."""
        trainer.should_stop = trainer.should_stop or self.stopped

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare with the best value so far."""
        if trainer.sanity_checking:
            return
        value = monitored(trainer, self._monitor)
        if is_better(value, self._best, self._mode, self._min_delta):
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited >= self._patience:
            self.stopped = trainer.should_stop = True
            message = "early stop: %s has not improved on %.4f for %d validations"
            log.info(message, self._monitor, self._best, self._waited)

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {"best": self._best, "waited": self._waited, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the counts."""
        self._best, self._waited = float(state_dict["best"]), int(state_dict["waited"])
        self.stopped = bool(state_dict["stopped"])

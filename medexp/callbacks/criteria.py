"""Refuse to call a training a success unless its best validation reached what was asked for."""

import logging
import math
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from medexp.callbacks.checkpoints import is_better, monitored
from medexp.errors import CriteriaError

log = logging.getLogger(__name__)


class Criteria(Callback):
    """Fail the run at its end if the best value of `monitor` did not get beyond `limit`.

    A sanity check of data and model: it says within minutes whether there is anything to be learnt. The best value
    survives a resume.
    """

    def __init__(self, *, monitor: str, mode: Literal["min", "max"], limit: float) -> None:
        self._monitor, self._mode, self._limit = monitor, mode, limit
        self._best = math.nan

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the best value."""
        if not trainer.sanity_checking:
            value = monitored(trainer, self._monitor)
            self._best = value if is_better(value, self._best, self._mode) else self._best

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare.

        Raises:
            CriteriaError: The best value is not beyond the limit.
        """
        word = "above" if self._mode == "max" else "below"
        if not is_better(self._best, self._limit, self._mode):
            message = f"{self._monitor}: expected a best value {word} {self._limit:g}, got {self._best:.4f}"
            raise CriteriaError(f"{message} after {trainer.current_epoch} epochs; look at qc.html and the examples")
        log.info("%s: the best value %.4f is %s %g, as asked for", self._monitor, self._best, word, self._limit)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up."""
        self._best = float(state_dict["best"])

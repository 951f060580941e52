"""End a run on SIGTERM, a scheduler's warning or Ctrl-C so that it can go on later as if nothing had happened."""

import logging
import signal
import threading
import time
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from medexp.callbacks.checkpoints import LastCheckpoint

log = logging.getLogger(__name__)

# Slurm warns with SIGTERM before it preempts, and with one of the others if `--signal` says so.
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
EXIT_KEYBOARD = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM
_GRACE_S = 20.0  # schedulers commonly kill after 30


class Interruption(Checkpoint):
    """Finish the current optimizer step, save it, and exit with 143 (Ctrl-C: 130).

    During validation, which cannot be taken up in the middle, the run waits up to `_GRACE_S` for its end;
    after that it leaves with the checkpoint before it. A second Ctrl-C ends the run at once.

    Args:
        last: Who saves.
    """

    def __init__(self, last: LastCheckpoint | None) -> None:
        self._last = last
        self._signal: int | None = None
        self._received_s = 0.0
        self._seen_step = 0
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace Lightning's own handlers, which exit with 0 and save nothing."""
        self._seen_step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal is None:
            self._signal, self._received_s = number, time.monotonic()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Leave after a whole step; the last step of an epoch is left to the epoch's end."""
        stepped, self._seen_step = trainer.global_step != self._seen_step, trainer.global_step
        if stepped and not trainer.is_last_batch and _any_rank(trainer, self._signal is not None):
            self._leave(trainer, save=True)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Leave a long validation."""
        waited_s = 0.0 if self._signal is None else time.monotonic() - self._received_s
        if _any_rank(trainer, waited_s > _GRACE_S):
            self._leave(trainer, save=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave after the epoch's own checkpoint."""
        if _any_rank(trainer, self._signal is not None):
            self._leave(trainer, save=True)

    def _leave(self, trainer: Trainer, *, save: bool) -> None:
        if save and self._last is not None:
            self._last.save(trainer)
            log.warning("interrupted after step %d, which is saved; the same command continues", trainer.global_step)
        else:
            log.warning("interrupted; the same command continues from the last checkpoint")
        raise SystemExit(EXIT_KEYBOARD if self._signal == signal.SIGINT else EXIT_TERMINATED)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the handlers back."""
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the handlers back after an error as well: Lightning then leaves out `teardown`."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def _any_rank(trainer: Trainer, decision: bool) -> bool:  # noqa: FBT001 - a decision is a bool
    """Say whether any rank decided so: all leave together, for a rank that is alone waits for ever."""
    if trainer.world_size == 1:
        return decision
    return bool(trainer.strategy.reduce_boolean_decision(decision, all=False))

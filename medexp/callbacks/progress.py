"""Progress for people: a live bar on a terminal, one plain line per epoch elsewhere."""

import logging
import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)

_REFRESH_S = 0.5  # a bar that refreshes by itself would take time from every step


class Progress(Callback):
    """Show epoch, step, loss, the last validation and the time left."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._drawn_s = 0.0
        self._started_s = 0.0
        self._first_epoch = 0
        self._done_here = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and the bar where there is a terminal."""
        self._started_s, self._done_here = time.monotonic(), 0
        if trainer.is_global_zero and sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task("", total=self._total(trainer), completed=self._done(trainer), detail="")
            self._bar.start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar, twice a second at most."""
        self._done_here += 1
        if self._bar is not None and time.monotonic() - self._drawn_s > _REFRESH_S:
            self._drawn_s = time.monotonic()
            self._draw(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how the epoch went."""
        if not trainer.is_global_zero:
            return
        if self._bar is not None:
            self._draw(trainer)
            return
        epochs = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        log.info("epoch %s  step %d  %s  %s left", epochs, trainer.global_step, _scores(trainer), self._left(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the terminal tidy."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal tidy."""
        self._close()

    def _draw(self, trainer: Trainer) -> None:
        description = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        detail = f"{_scores(trainer)}  {self._left(trainer)} left"
        self._bar.update(self._task, description=description, completed=self._done(trainer), detail=detail)
        self._bar.refresh()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    @staticmethod
    def _total(trainer: Trainer) -> int:
        return int(trainer.max_epochs or 1) * int(trainer.num_training_batches)

    @staticmethod
    def _done(trainer: Trainer) -> int:
        return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)

    def _left(self, trainer: Trainer) -> str:
        """Return the time left, from the pace since this process started, validations included."""
        remaining = max(self._total(trainer) - self._done(trainer), 0)
        seconds = (time.monotonic() - self._started_s) / max(self._done_here, 1) * remaining
        hours, rest = divmod(round(seconds), 3600)
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


def _scores(trainer: Trainer) -> str:
    shown = {
        key: trainer.callback_metrics.get(key)
        for key in ("train/loss", getattr(trainer.lightning_module, "monitor", ""))
    }
    return "  ".join(f"{key} {float(value):.4f}" for key, value in shown.items() if value is not None)


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[detail]}"))
    return Bar(*columns, console=Console(stderr=True), auto_refresh=False)

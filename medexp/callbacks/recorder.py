"""Writes what training logs: one line per optimizer step and validation, one row per epoch."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from medexp.runs.files import atomic_write
from medexp.tracking import Tracker


class Recorder(Callback):
    """Log to the tracker, whose lines are on the disk before a checkpoint of the same step is.

    Steps count optimizer steps from 1. What the model logs as `train/...` is averaged over the batches of an
    accumulated step; `val/...` belongs to the step after which validation ran. `history.csv` has a row per epoch.

    Args:
        tracker: Where lines go.
        folder: Where `history.csv` is written.
    """

    def __init__(self, tracker: Tracker, *, folder: Path) -> None:
        self._tracker, self._path = tracker, folder / "history.csv"
        self._group: dict[str, list[float]] = {}
        self._sums: dict[str, list[float]] = {}  # metric -> sum and number of steps in this epoch
        self._notes: dict[str, float | int] = {}
        self._epoch: dict[str, float | int] = {}
        self._seen_step = 0
        self._rows: list[dict[str, str]] = []
        self._started_s = 0.0

    @property
    def tracker(self) -> Tracker:
        """Where figures can be sent."""
        return self._tracker

    def note(self, values: Mapping[str, float | int]) -> None:
        """Add values to the line of the step that is being taken."""
        self._notes.update(values)

    def note_epoch(self, values: Mapping[str, float | int]) -> None:
        """Add values to the row of this epoch."""
        self._epoch.update(values)

    def scores_at(self, step: int) -> dict[str, float]:
        """Return the validation scores of the epoch that ended with `step`."""
        rows = [row for row in self._rows if int(row["step"]) == step]
        found = rows[-1] if rows else {}
        return {key: float(value) for key, value in found.items() if key.startswith("val/") and value}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the history up to the step that training goes on from."""
        self._seen_step = trainer.global_step
        self._started_s = time.perf_counter()
        if trainer.global_step > 0 and self._path.exists():
            with self._path.open(newline="", encoding="utf-8") as stream:
                self._rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= trainer.global_step]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a new row."""
        self._sums, self._epoch = {}, {}
        self._started_s = time.perf_counter()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Note the learning rate that this step uses."""
        self._notes["lr"] = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Collect what the model logged; write a line when a step was taken."""
        for key, value in trainer.callback_metrics.items():
            if key.startswith("train/"):
                self._group.setdefault(key, []).append(float(value))
        if trainer.global_step == self._seen_step:
            return
        self._seen_step = trainer.global_step
        line = {key: sum(values) / len(values) for key, values in self._group.items()} | self._notes
        for key, value in line.items():
            total = self._sums.setdefault(key, [0.0, 0.0])
            total[0] += value
            total[1] += 1.0
        self._tracker.log_metrics(line, trainer.global_step)
        self._group, self._notes = {}, {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the scores of this validation."""
        if trainer.sanity_checking:
            return
        scores = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
        if scores:
            self._tracker.log_metrics({"epoch": trainer.current_epoch, **scores}, trainer.global_step)
            self._epoch.update(scores)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write this epoch's row; a mean over steps for what was logged per step."""
        elapsed = {"epoch_time_s": round(time.perf_counter() - self._started_s, 3)}
        means = {key: total / count for key, (total, count) in self._sums.items()}
        extra = {key: value for key, value in self._epoch.items() if not key.startswith("val/")}
        self._tracker.log_metrics({**elapsed, **extra}, trainer.global_step)
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, **means, **self._epoch, **elapsed}
        self._rows.append({key: str(value) for key, value in row.items()})
        if trainer.is_global_zero:
            self._write()

    def _write(self) -> None:
        columns = list(dict.fromkeys(key for row in self._rows for key in row))
        with (
            atomic_write(self._path, durable=False) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.DictWriter(stream, columns, restval="")
            writer.writeheader()
            writer.writerows(self._rows)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of an unfinished epoch."""
        return {"sums": {key: list(total) for key, total in self._sums.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up an unfinished epoch."""
        self._sums = {key: list(total) for key, total in state_dict["sums"].items()}


def recorder_of(trainer: Trainer) -> Recorder | None:
    """Return the trainer's recorder, if it has one."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, Recorder)), None)  # type: ignore[attr-defined]


def note(trainer: Trainer, values: Mapping[str, float | int]) -> None:
    """Add values to the line of the step that is being taken, if somebody writes one."""
    recorder = recorder_of(trainer)
    if recorder is not None:
        recorder.note(values)

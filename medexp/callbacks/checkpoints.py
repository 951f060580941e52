"""Three independent ways to keep weights: the best, every n epochs, the last.

A monitored checkpoint with `save_last=True` would freeze `last.ckpt` at the best epoch; hence separate files.
"""

import math
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from medexp.callbacks.checkpoint_files import name_of, point_to
from medexp.errors import ConfigurationError
from medexp.types import Count


def checkpoint_folder(trainer: Trainer) -> Path:
    """Return where the run's checkpoints lie."""
    return Path(trainer.default_root_dir) / "checkpoints"


def monitored(trainer: Trainer, monitor: str) -> float:
    """Return the monitored value of the validation that has just ended.

    Raises:
        ConfigurationError: The model logs no such value.
    """
    if monitor not in trainer.callback_metrics:
        known = sorted(key for key in trainer.callback_metrics if key.startswith("val/"))
        raise ConfigurationError(f"monitor={monitor}: expected one of the logged values {known}; choose one of them")
    return float(trainer.callback_metrics[monitor])


def is_better(value: float, than: float, mode: str, min_delta: float = 0.0) -> bool:
    """Say whether `value` improves on `than`; NaN never does, and anything improves on NaN."""
    if math.isnan(value):
        return False
    if math.isnan(than):
        return True
    return value > than + min_delta if mode == "max" else value < than - min_delta


class BestCheckpoints(Checkpoint):
    """Keep the `top_k` checkpoints with the best monitored value; `best.ckpt` stands for the best of them.

    At equal values the earlier one is better. A superseded file is removed only when a later checkpoint
    knows about its successor, so that a resumed run finds every file that its state names.
    """

    def __init__(self, *, monitor: str, mode: Literal["min", "max"], top_k: Count) -> None:
        self.monitor, self.mode, self.top_k = monitor, mode, top_k
        self.ranking: list[tuple[float, int, int]] = []  # value, step, epoch; best first
        self._superseded: list[int] = []

    @property
    def best(self) -> tuple[float, int, int] | None:
        """The best value so far with its step and epoch."""
        return self.ranking[0] if self.ranking else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After a resume, let `best.ckpt` stand for what the restored state calls the best."""
        if self.best is not None and trainer.is_global_zero:
            self._point(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Rank the epoch that was just validated."""
        if trainer.sanity_checking:
            return
        value, step = monitored(trainer, self.monitor), trainer.global_step
        rank = sum(not is_better(value, entry[0], self.mode) for entry in self.ranking)
        if rank >= self.top_k or (math.isnan(value) and self.ranking) or step in {entry[1] for entry in self.ranking}:
            return
        self.ranking.insert(rank, (value, step, trainer.current_epoch))
        self._superseded += [entry[1] for entry in self.ranking[self.top_k :]]
        del self.ranking[self.top_k :]
        trainer.save_checkpoint(checkpoint_folder(trainer) / name_of("best", step))
        if trainer.is_global_zero:
            self._point(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove what was superseded before the last checkpoint."""
        self._remove_superseded(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove what was superseded in the last epoch."""
        self._remove_superseded(trainer)

    def _point(self, trainer: Trainer) -> None:
        folder = checkpoint_folder(trainer)
        point_to(folder / "best.ckpt", folder / name_of("best", self.ranking[0][1]))

    def _remove_superseded(self, trainer: Trainer) -> None:
        for step in self._superseded:
            trainer.strategy.remove_checkpoint(checkpoint_folder(trainer) / name_of("best", step))
        self._superseded.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {"ranking": [list(entry) for entry in self.ranking], "superseded": list(self._superseded)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the ranking."""
        self.ranking = [(float(value), int(step), int(epoch)) for value, step, epoch in state_dict["ranking"]]
        self._superseded = [int(step) for step in state_dict["superseded"]]


class RegularCheckpoints(Checkpoint):
    """Keep a checkpoint of every `every_n_epochs`-th epoch."""

    def __init__(self, *, every_n_epochs: Count) -> None:
        self._every_n_epochs = every_n_epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save when it is this epoch's turn."""
        if (trainer.current_epoch + 1) % self._every_n_epochs == 0:
            trainer.save_checkpoint(checkpoint_folder(trainer) / name_of("regular", trainer.global_step))


class LastCheckpoint(Checkpoint):
    """Keep the state of the last `every_n_steps`-th step or epoch, and the one before it."""

    def __init__(self, *, every_n_steps: Count) -> None:
        self._every_n_steps = every_n_steps
        self._kept: list[int] = []
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
        """Save after every n-th optimizer step; the last of an epoch is left to the epoch's end."""
        stepped, self._seen_step = trainer.global_step != self._seen_step, trainer.global_step
        if stepped and trainer.global_step % self._every_n_steps == 0 and not trainer.is_last_batch:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after training and validation."""
        self.save(trainer)

    def save(self, trainer: Trainer) -> Path:
        """Save now; the newest two stay."""
        folder, step = checkpoint_folder(trainer), trainer.global_step
        path = folder / name_of("last", step)
        if step not in self._kept:
            outdated = self._kept[:-1]
            self._kept = [*self._kept[-1:], step]
            trainer.save_checkpoint(path)
            if trainer.is_global_zero:
                point_to(folder / "last.ckpt", path)
            for old in outdated:
                trainer.strategy.remove_checkpoint(folder / name_of("last", old))
        return path

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {"kept": list(self._kept)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up which files there are."""
        self._kept = [int(step) for step in state_dict["kept"]]

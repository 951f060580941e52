"""How much memory training takes, and how long it waits for its data."""

import logging
import sys
import time

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler

from medexp.callbacks.recorder import recorder_of

log = logging.getLogger(__name__)

_NEXT_BATCH = "[_TrainingEpochLoop].train_dataloader_next"


class LoaderWait(Profiler):
    """Lightning's profiler reduced to one question: how long did the loop wait for its next batch?"""

    def __init__(self) -> None:
        super().__init__()
        self.waited_s = 0.0
        self._since_s = 0.0

    def start(self, action_name: str) -> None:
        """Note the time before a batch is asked for."""
        if action_name == _NEXT_BATCH:
            self._since_s = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Add the time until it came."""
        if action_name == _NEXT_BATCH:
            self.waited_s += time.perf_counter() - self._since_s


class Resources(Callback):
    """Log per epoch `loader_wait_percent`, the share of training time spent waiting for data, and memory in GB.

    The share leaves out the first batch of a run, which waits for the workers to start, and validation.
    """

    def __init__(self) -> None:
        self._started_s = 0.0
        self._waited_s = 0.0
        self._is_first = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run's peak."""
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks."""
        self._start(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Start the clocks again behind the first batch of the run."""
        if self._is_first:
            self._is_first = False
            self._start(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clocks: the loop validates at the end of an epoch."""
        if not trainer.sanity_checking:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log; say the share once."""
        self._stop(trainer)
        recorder = recorder_of(trainer)
        if recorder is not None:
            recorder.note_epoch({"loader_wait_percent": self._percent, **memory_gb(pl_module.device)})
        if trainer.current_epoch == 0:
            advice = "; more hardware.num_workers may help" if self._percent > 5.0 else ""
            log.info("waiting for data: %.1f %% of the first epoch's training time%s", self._percent, advice)

    def _start(self, trainer: Trainer) -> None:
        self._started_s, self._percent = time.perf_counter(), float("nan")
        self._waited_s = _waited_s(trainer)

    def _stop(self, trainer: Trainer) -> None:
        if self._percent != self._percent:  # not yet stopped in this epoch
            elapsed_s = max(time.perf_counter() - self._started_s, 1e-9)
            self._percent = 100.0 * (_waited_s(trainer) - self._waited_s) / elapsed_s


def _waited_s(trainer: Trainer) -> float:
    profiler = trainer.profiler  # type: ignore[attr-defined] # set by Lightning
    return profiler.waited_s if isinstance(profiler, LoaderWait) else float("nan")


def memory_gb(device: torch.device) -> dict[str, float]:
    """Return the peak memory so far: of the CUDA device, and of this process."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage reports bytes there, kilobytes elsewhere
    found = {"memory/process_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
    if device.type == "cuda":
        found["memory/device_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    elif device.type == "mps":
        found["memory/device_gb"] = torch.mps.current_allocated_memory() / 1e9
    return {key: round(value, 4) for key, value in found.items()}

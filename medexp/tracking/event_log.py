"""A TensorBoard log beside MLflow: the same numbers, in the run's folder, for who likes to watch them there."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
_NOT_SCALARS = frozenset({"time"})


class EventLog:
    """Appends events below a run's folder; what a resumed run repeats replaces what was there.

    The package `tensorboard` is imported with the first number. That it is installed is known from the composition.
    """

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder / FOLDER
        self._writer: SummaryWriter | None = None
        self._purge_step: int | None = None

    def log(self, metrics: Mapping[str, float | int], step: int) -> None:
        """Add the numbers of a step."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=self._purge_step)
        for key, value in metrics.items():
            if key not in _NOT_SCALARS:
                self._writer.add_scalar(key, value, step)

    def rewind(self, step: int) -> None:
        """Let what follows replace the numbers behind `step`."""
        self._purge_step = step + 1

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()

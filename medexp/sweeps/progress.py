"""How far a running job is, from the end of its metrics file."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medexp.runs.lineage import Recipe

# Holds the last epochs' lines, unless epochs have hundreds of steps; then the last known values stay.
_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class Progress:
    """What a table shows of a running job; None where nothing is known yet.

    Attributes:
        epoch: Epochs that are done.
        num_epochs: How many there will be.
        score: The last value of the score that ranks checkpoints.
        left_s: Time to the end, if the coming epochs take what the last took.
    """

    epoch: int | None = None
    num_epochs: int | None = None
    score: float | None = None
    left_s: float | None = None

    @property
    def text(self) -> str:
        """Return it in a few words."""
        parts = []
        if self.epoch is not None:
            parts.append(f"epoch {self.epoch}" + (f"/{self.num_epochs}" if self.num_epochs else ""))
        if self.score is not None:
            parts.append(f"{self.score:.4f}")
        if self.left_s is not None:
            parts.append(f"{duration(self.left_s)} left")
        return ", ".join(parts)


def progress_of(folder: Path | None, recipe: Recipe) -> Progress:
    """Return the progress of the run in a folder; empty for stages that count no epochs."""
    lines = [] if folder is None else _last_lines(folder / "metrics.jsonl")
    epochs = [line for line in lines if "epoch" in line]
    times = [float(line["epoch_time_s"]) for line in lines if "epoch_time_s" in line]
    if not epochs:
        return Progress()
    done, num_epochs = int(epochs[-1]["epoch"]) + 1, _num_epochs(recipe)
    left_s = max(0, num_epochs - done) * times[-1] if num_epochs and times else None
    return Progress(done, num_epochs, _number(epochs[-1].get(_monitor(recipe))), left_s)


def duration(seconds: float) -> str:
    """Return a time to two figures of the units that matter, for example `3 min 20 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _last_lines(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _TAIL_BYTES))
            raw = stream.read().split(b"\n")
    except OSError:
        return []
    # The first may have lost its beginning, the last may still be written.
    return [json.loads(line) for line in raw[bool(size > _TAIL_BYTES) : -1] if line]


def _num_epochs(recipe: Recipe) -> int | None:
    call = recipe.received
    model = call.get("model")
    curriculum = model.get("curriculum", {}) if isinstance(model, Mapping) else {}
    phase = curriculum.get(call.get("curriculum"), {})
    trainer = call.get("trainer")
    own = trainer.get("max_epochs") if isinstance(trainer, Mapping) else None
    found = own if isinstance(own, int) else phase.get("max_epochs")
    return found if isinstance(found, int) and found > 0 else None


def _monitor(recipe: Recipe) -> str:
    callbacks = recipe.received.get("callbacks")
    best = callbacks.get("best") if isinstance(callbacks, Mapping) else None
    return str(best.get("monitor", "")) if isinstance(best, Mapping) else ""


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None

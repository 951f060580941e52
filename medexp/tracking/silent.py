"""A tracker that says nothing, for processes that take part in a run which another process records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medexp.tracking.tracker import Status, Tracker


class SilentTracker(Tracker):
    """Takes everything that a `Tracker` takes and writes none of it."""

    def __init__(self) -> None:
        """Need no run."""

    def log_metrics(self, metrics: Mapping[str, float | int], step: int) -> None:
        """Drop them; the leader logs the same."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Drop them."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Drop it."""

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Drop them."""

    def rewind(self, step: int) -> int:
        """Leave the lines to the leader."""
        return 0

    def finish(self, status: Status) -> None:
        """Have nothing to send."""

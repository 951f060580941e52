"""Where messages go: the terminal in a readable form, a file with everything."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

_HYDRAS_LINE = "Error executing job with overrides:"
_LOGGER = logging.getLogger("medexp")


class _Console(logging.StreamHandler[TextIO]):
    """Writes to whatever sys.stdout is at the moment, so that captured and redirected output works."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        self.setFormatter(logging.Formatter("%(message)s"))
        self.addFilter(lambda record: record.exc_info is None)  # the entrypoint shows errors, once

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


class _WithoutHydrasLine:
    """A stream that drops what Hydra writes before it hands a run's error on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return len(text) if text.startswith(_HYDRAS_LINE) else int(self._stream.write(text))


@contextmanager
def errors_said_once() -> Iterator[None]:
    """Leave it to the entrypoint to say why a run failed; Hydra has no switch for its own line."""
    before = sys.stderr
    sys.stderr = _WithoutHydrasLine(before)  # type: ignore[assignment] # it behaves like one
    try:
        yield
    finally:
        sys.stderr = before


def log_to_console() -> None:
    """Show medexp's messages on the terminal; calling it again changes nothing."""
    _LOGGER.setLevel(logging.INFO)
    if not any(isinstance(handler, _Console) for handler in _LOGGER.handlers):
        _LOGGER.addHandler(_Console())


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append every message, with time, level and traceback, to `path`."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()

"""Where messages go: the terminal in a readable form, a file with everything."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

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

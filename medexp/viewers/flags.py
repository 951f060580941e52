"""What a reviewer flagged: a CSV file that is whole at any time."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from medexp.errors import ManifestError
from medexp.io.tables import read_table, write_table
from medexp.viewers.slides import Slide

COLUMNS = ("image_path", "mask_path", "flag_reason", "reviewer", "timestamp")
_LONGEST_REASON = 500  # characters


@dataclass(frozen=True)
class Flag:
    """One flagged slide; the time is UTC, ISO 8601."""

    reason: str
    reviewer: str
    timestamp: str


class Flags:
    """The flags of a review, written after every change; those of an earlier session are read first.

    Args:
        path: flags.csv.
        slides: What is reviewed; flags of others stay in the file.
        reviewer: Who flags.

    Raises:
        ManifestError: The file is there and is not a table of flags.
    """

    def __init__(self, path: Path, slides: Sequence[Slide], reviewer: str) -> None:
        self._path, self._slides, self._reviewer = path, tuple(slides), reviewer
        self._lock = threading.Lock()
        self._flags: dict[tuple[str, str], Flag] = {}
        if path.is_file():
            self._flags = read_flags(path)
        else:
            self._write()

    def of(self, index: int) -> Flag | None:
        """Return a slide's flag."""
        return self._flags.get(self._key(index))

    def reasons(self) -> dict[int, str]:
        """Return the reasons of all flagged slides by their place."""
        found = {index: self.of(index) for index in range(len(self._slides))}
        return {index: flag.reason for index, flag in found.items() if flag is not None}

    def set(self, index: int, reason: str) -> None:
        """Flag a slide; an earlier flag of it is replaced."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._lock:
            self._flags[self._key(index)] = Flag(_plain(reason), self._reviewer, now)
            self._write()

    def remove(self, index: int) -> None:
        """Take a slide's flag away."""
        with self._lock:
            self._flags.pop(self._key(index), None)
            self._write()

    def _key(self, index: int) -> tuple[str, str]:
        return str(self._slides[index].image), str(self._slides[index].mask)

    def _write(self) -> None:
        rows = [
            {
                "image_path": image,
                "mask_path": mask,
                "flag_reason": flag.reason,
                "reviewer": flag.reviewer,
                "timestamp": flag.timestamp,
            }
            for (image, mask), flag in sorted(self._flags.items())
        ]
        write_table(self._path, rows, columns=COLUMNS)


def read_flags(path: Path) -> dict[tuple[str, str], Flag]:
    """Return flags by (image, mask).

    Raises:
        ManifestError: The file is not a table of flags.
    """
    rows = read_table(path)
    if any(set(COLUMNS) - set(row) for row in rows):
        raise ManifestError(f"{path}: expected the columns {', '.join(COLUMNS)}; name a flags.csv of stage=view")
    return {
        (row["image_path"], row["mask_path"]): Flag(row["flag_reason"], row["reviewer"], row["timestamp"])
        for row in rows
    }


def _plain(reason: str) -> str:
    """Return one line of printable text that no spreadsheet takes for a formula."""
    text = "".join(character if character.isprintable() else " " for character in reason)[:_LONGEST_REASON].strip()
    return f"'{text}" if text[:1] in {"=", "+", "-", "@"} else text

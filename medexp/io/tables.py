"""Tables as CSV files: one header line, numbers with every digit, undefined as `nan` and infinite as `inf`."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medexp.errors import ManifestError
from medexp.runs.files import atomic_write


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], *, columns: Sequence[str] | None = None) -> None:
    """Write rows; the columns are those of the rows in the order in which they first appear.

    Args:
        path: The file.
        rows: A cell that a row lacks stays empty.
        columns: To be given where there may be no row.
    """
    listed = [dict(row) for row in rows]
    names = list(columns) if columns is not None else list(dict.fromkeys(name for row in listed for name in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in listed)


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table as text.

    Raises:
        ManifestError: The file cannot be read, or a row has more cells than the header line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:  # spreadsheets write a mark in front
            rows = list(csv.DictReader(stream, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        message = f"{path}: expected a table, got '{error}'"
        raise ManifestError(f"{message}; write it anew, or run the stage that made it again") from error
    for number, row in enumerate(rows, start=2):
        if None in row:
            message = f"{path}: line {number}: expected {len(row) - 1} cells as in the header"
            raise ManifestError(f"{message}, got {len(row) - 1 + len(row[None])}; correct the row")
    return rows


def number(cell: str | None) -> float:
    """Return a cell as a number; an empty or missing one is `nan`."""
    return float(cell) if cell else float("nan")


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else value

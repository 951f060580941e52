"""The files that people and later stages want of every case beside the store: its npz and its picture.

They lie in the folder of the prepare run, `cases/<case>.npz` and `cases/<case>.png`. Where the file system allows it
they are further names of the store's own files and cost no space; who writes into one damages the entry, which is
found out and made anew. Files that are as they should be are left alone.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medexp.io.prepared import PICTURE, REFERENCE, entry_folder
from medexp.runs.files import atomic_write, sha256_of
from medexp.runs.processes import for_each

CASES = "cases"


@dataclass(frozen=True)
class _Placed:
    """A case and its entry in the store."""

    case: str
    entry: Path


def place_references(records: Sequence[dict[str, Any]], *, folder: Path, store: Path, num_workers: int | None) -> None:
    """Give every case its files in `folder`, and write path and SHA-256 of the npz into its record.

    Args:
        records: The manifest's entries of the usable cases.
        folder: Of the run.
        store: The prepared store.
        num_workers: Processes; None: one per core.

    Raises:
        StorageError: A file cannot be written.
    """
    cases = [_Placed(str(record["case"]), entry_folder(store, str(record["store"]))) for record in records]
    place = partial(_place, folder=folder / CASES)
    hashes = dict(for_each(place, cases, num_workers=num_workers, what="reference files written"))
    for index, record in enumerate(records):
        record["reference"] = {"path": f"{CASES}/{record['case']}.npz", "sha256": hashes[index]}


def _place(case: _Placed, *, folder: Path) -> str:
    npz = folder / f"{case.case}.npz"
    _put(case.entry / REFERENCE, npz)
    _put(case.entry / PICTURE, folder / f"{case.case}.png")
    return sha256_of(npz)


def _put(source: Path, target: Path) -> None:
    if target.is_file() and (target.samefile(source) or sha256_of(target) == sha256_of(source)):
        return
    with atomic_write(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, temporary)

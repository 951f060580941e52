"""Folders of corrected masks, with the record of who corrected what, when, and from which prediction.

A folder holds `<image's name>_mask.tif` files and, if stage=view imported them, `corrections.json`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medexp.errors import CohortError, ManifestError
from medexp.io.tiff import EXTENSIONS
from medexp.runs.files import read_json, sha256_of

RECORD = "corrections.json"
FORMAT = 1
SUFFIX = "_mask"


@dataclass(frozen=True)
class Correction:
    """A corrected mask and what is recorded of it; nothing, where somebody made the folder by hand."""

    path: Path
    record: Mapping[str, Any]


def read_corrections(folder: Path) -> dict[str, Correction]:
    """Return the corrected masks of a folder by the name of their image; recorded ones are checked.

    Raises:
        CohortError: There is no such folder, or masks are missing or have changed since they were imported.
        ManifestError: The record cannot be read.
    """
    if not folder.is_dir():
        raise CohortError(f"{folder}: expected a folder of corrected masks, found none")
    masks: dict[str, Path] = {}
    for path in sorted(filter(_is_mask, folder.iterdir())):
        first = masks.setdefault(path.stem.removesuffix(SUFFIX), path)
        if first != path:
            raise CohortError(f"{folder}: expected one mask per image, got {first.name} and {path.name}; remove one")
    records = _records(folder / RECORD)
    wrong = [f"{name}: is missing" for name in records if name not in masks]
    for name, record in records.items():
        if name in masks and sha256_of(masks[name]) != record["sha256"]:
            wrong.append(f"{name}: {masks[name].name} has changed")
    if wrong:
        listing = "".join(f"\n  {line}" for line in wrong)
        message = f"{folder}: expected the corrected masks as they were imported, but:{listing}"
        raise CohortError(f"{message}\nImport them again (stage=view view.action=import).")
    return {name: Correction(path, records.get(name, {})) for name, path in masks.items()}


def _is_mask(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def _records(path: Path) -> dict[str, Mapping[str, Any]]:
    if not path.is_file():
        return {}
    content = read_json(path)
    entries = content.get("masks") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all({"name", "sha256"} <= set(entry) for entry in entries):
        raise ManifestError(f"{path}: expected a list 'masks' with 'name' and 'sha256' in each; import them again")
    return {str(entry["name"]): entry for entry in entries}

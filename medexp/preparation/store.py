"""The prepared store: one folder per case, named by what it was made from, so that it can never be stale.

    <store>/<key[:2]>/<key>/   image.npy  ...  picture.png  case.json

Which arrays and files are beside the image is a matter of the kind of case: of an image with a label map these are
label.npy, foreground.npy and intensities.npy; of a planned dose see `medexp.preparation.dose_entry`.

`case.json` is written last into a temporary folder, which takes its final name when it is complete. Two
processes may make the same entry at the same time; the second finds the first's and drops its own.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from medexp.errors import ManifestError
from medexp.io.prepared import PICTURE, StoredCase, entry_folder
from medexp.preparation.dose_entry import DoseTransform
from medexp.preparation.entry import Entry, Transform
from medexp.preparation.entry_code import code_version
from medexp.preparation.image_entry import ImageTransform
from medexp.preparation.raw_cases import RawCase
from medexp.preparation.verification import RawContent, read_content
from medexp.runs.files import read_json, sha256_of, storage_error, write_json
from medexp.runs.identity import identity_of

_log = logging.getLogger(__name__)

AnyTransform = Transform | ImageTransform | DoseTransform
_TRANSFORMS = {kind.kind: kind for kind in (Transform, ImageTransform, DoseTransform)}

_MAKING, _DAMAGED = ".making-", ".damaged-"
_LEFTOVER_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Outcome:
    """What became of one raw case: the facts of its entry, or the reasons why it has none.

    `key` addresses the entry, `source` holds the SHA-256 of the raw files, `sizes` the bytes of the entry's.
    """

    case: RawCase
    key: str | None
    source: Mapping[str, str]
    facts: Mapping[str, Any]
    sizes: Mapping[str, int]
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    reused: bool = False


def entry_key(source: Mapping[str, str], transform: AnyTransform) -> str:
    """Return the name of the entry that these raw files and this transform make."""
    return identity_of({"source": dict(source), "transform": transform.to_json(), "code": code_version(transform.kind)})


def store_case(case: RawCase, transform: AnyTransform, store: Path) -> Outcome:
    """Verify a raw case and make its entry, or find the one that is there.

    A damaged entry is made anew with a warning. Problems that the search for cases found, and every reason
    that its files give, are in the outcome; only a store that cannot be written raises.

    Raises:
        StorageError: The entry cannot be written.
    """
    content = read_content(case.images, case.label)
    source = content.source()
    if case.problems or content.reasons:
        _, reasons = transform.verify(content)
        return Outcome(case, None, source, {}, {}, tuple(dict.fromkeys((*case.problems, *reasons))))
    key = entry_key(source, transform)
    record, damage = _intact(entry_folder(store, key))
    if record is not None:
        return Outcome(case, key, source, record["facts"], record["sizes"], reused=True)
    warnings = () if damage is None else (f"its store entry was damaged ({damage}) and has been made anew",)
    for warning in warnings:
        _log.warning("%s: %s", case.case, warning)
    return _made(case, key, content, transform, store, warnings)


def _made(
    case: RawCase, key: str, content: RawContent, transform: AnyTransform, store: Path, warnings: tuple[str, ...]
) -> Outcome:
    entry, reasons = transform.entry(content)
    source = content.source()
    if entry is None:
        return Outcome(case, None, source, {}, {}, reasons)
    record = _write(entry, entry_folder(store, key), source=source, transform=transform)
    return Outcome(case, key, source, record["facts"], record["sizes"], warnings=warnings)


def _intact(folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Return the record of an entry whose files are what was written, or None and what is wrong with it, if it is."""
    if not folder.exists():
        return None, None
    try:
        record = dict(read_json(folder / "case.json"))
        seal = record.pop("seal")
        damaged = [name for name, digest in record["sha256"].items() if sha256_of(folder / name) != digest]
    except (ManifestError, OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        return None, str(error)
    if seal != identity_of(record):
        damaged.append("case.json")
    return (None, f"{', '.join(damaged)} changed") if damaged else (record, None)


def _write(entry: Entry, folder: Path, *, source: Mapping[str, str], transform: AnyTransform) -> dict[str, Any]:
    temporary = folder.with_name(f"{_MAKING}{folder.name[:16]}-{uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        record = _write_files(entry, temporary, source=source, transform=transform)
        _take_place(temporary, folder)
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return record


def _write_files(entry: Entry, folder: Path, *, source: Mapping[str, str], transform: AnyTransform) -> dict[str, Any]:
    for name, array in entry.arrays.items():
        with (folder / f"{name}.npy").open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
            stream.flush()
            os.fsync(stream.fileno())
    for name, write in entry.files.items():
        write(folder / name)
    (folder / PICTURE).write_bytes(transform.picture(entry))
    sealed = [*(f"{name}.npy" for name in entry.arrays), *entry.files]
    record = {
        "transform": transform.to_json(),
        "source": dict(source),
        "facts": dict(entry.facts),
        "sha256": {name: sha256_of(folder / name) for name in sealed},
        "sizes": {name: (folder / name).stat().st_size for name in sealed},
    }
    record = json.loads(json.dumps(record))  # as a reader finds it
    write_json(folder / "case.json", {**record, "seal": identity_of(record)})
    return record


def _take_place(temporary: Path, folder: Path) -> None:
    """Give a complete entry its name; an entry that is there and damaged makes room, an intact one stays."""
    while True:
        try:
            os.rename(temporary, folder)  # noqa: PTH104 - refuses a folder that is not empty, as it must
        except OSError:
            if not folder.exists():
                raise
        else:
            return
        if _intact(folder)[0] is not None:
            return
        aside = folder.with_name(f"{_DAMAGED}{folder.name[:16]}-{uuid4().hex}")
        try:
            os.rename(folder, aside)  # noqa: PTH104
        except FileNotFoundError:
            continue
        shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(store: Path) -> None:
    """Remove what killed writers left in the store; what is younger than a day may belong to a living one."""
    now = time.time()
    for folder in (*store.glob(f"??/{_MAKING}*"), *store.glob(f"??/{_DAMAGED}*")):
        if now - folder.stat().st_mtime > _LEFTOVER_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Rebuilder:
    """Makes the damaged entry of a prepared case anew from its raw files.

    `transform` is the manifest's; see `Rebuilder.of`.
    """

    transform: AnyTransform

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "Rebuilder":
        """Return the rebuilder for the cases of a manifest."""
        return cls(_TRANSFORMS[manifest.get("kind", Transform.kind)].from_json(manifest["transform"]))

    def __call__(self, case: StoredCase) -> None:
        """Make the entry.

        Raises:
            ManifestError: The raw files are not what they were; the message names the case.
        """
        raw = RawCase(case.case, case.patient, case.role, case.image_paths, case.label_path, case.case)
        store = case.folder.parent.parent
        outcome = store_case(raw, self.transform, store)
        if outcome.key != case.folder.name:
            reason = "; ".join(outcome.reasons) or "the raw files or medexp have changed since"
            raise ManifestError(f"{case.case}: expected to rebuild its store entry, but {reason}; run stage=prepare")

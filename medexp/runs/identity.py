"""A run's identity: the hash of what its stage receives."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_SHORT = 10


def identity_of(received: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a resolved, plain record, independent of the order of its keys."""
    text = json.dumps(received, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def short(identity: str) -> str:
    """Return the part of an identity that names its folder."""
    return identity[:_SHORT]


def listing_digest(roots: Iterable[str]) -> str:
    """Return a hash of the files below `roots`: relative names, sizes and modification times.

    A file's content is not read; touching or replacing a file changes the digest. A root that does not
    exist counts as empty: the stage that needs it says so.
    """
    digest = hashlib.sha256()
    for number, root in enumerate(roots):
        for name, size, mtime_ns in sorted(_files(Path(root))):
            digest.update(f"{number}\0{name}\0{size}\0{mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(root: Path) -> Iterable[tuple[str, int, int]]:
    if root.is_file():
        status = root.stat()
        yield root.name, status.st_size, status.st_mtime_ns
        return
    pending = [str(root)]
    while pending:
        folder = pending.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:  # unreadable or absent: the stage itself reports it with its reason
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            else:
                status = entry.stat(follow_symlinks=False)
                yield os.path.relpath(entry.path, root), status.st_size, status.st_mtime_ns


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys in which two plain records differ, with both values (None where absent)."""
    old, new = flatten(before), flatten(after)
    return {
        key: (old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)
    }


def flatten(record: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested record as dotted keys; lists stay values."""
    if not isinstance(record, Mapping):
        return {prefix: record}
    return {
        name: value
        for key, child in record.items()
        for name, value in flatten(child, f"{prefix}.{key}" if prefix else str(key)).items()
    }

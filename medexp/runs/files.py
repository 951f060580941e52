"""Write files so that a reader never meets half of one."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medexp.errors import ManifestError, StorageError

_CHUNK_BYTES = 1 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CANNOT_WRITE = _FULL | {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EIO,
    errno.ENAMETOOLONG,
    errno.EEXIST,
}


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the final name, on any failure it is removed.

    The temporary name keeps the suffixes of the final one, so that writers which look at them
    (`.nii.gz`) behave. With `durable` the bytes are on the disk before the name changes.

    Raises:
        StorageError: The disk is full or the place cannot be written. Earlier files are untouched.
    """
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            _sync(temporary)
        os.replace(temporary, path)  # noqa: PTH105 - Path.replace hides that it overwrites
        if durable:
            _sync(path.parent)
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        raise storage_error(path, error, written=temporary) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def storage_error(path: Path, error: OSError, *, written: Path | None = None) -> StorageError:
    """Return `error` as one that names the file, the bytes written so far and the remedy."""
    size = written.stat().st_size if written is not None and written.exists() else 0
    full = error.errno in _FULL
    remedy = "free some space and run the same command again" if full else "check the folder's permissions"
    reason = error.strerror or str(error)
    return StorageError(f"{path}: expected to write it, got '{reason}' after {size:,} bytes; {remedy}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write `text` in UTF-8."""
    with atomic_write(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, record: Any, *, durable: bool = True) -> None:
    """Write plain lists, dictionaries, numbers and strings; NaN becomes null."""
    write_text(path, json.dumps(without_nan(record), indent=1, allow_nan=False) + "\n", durable=durable)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        ManifestError: The file is missing or is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ManifestError(f"{path}: expected a file, found none") from error
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: expected JSON, got '{error}'; remove it and run its stage again") from error


def without_nan(record: Any) -> Any:
    """Return `record` with NaN and infinities as None: JSON has no word for them."""
    if isinstance(record, dict):
        return {str(key): without_nan(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [without_nan(value) for value in record]
    if isinstance(record, float) and (record != record or record in {float("inf"), float("-inf")}):
        return None
    return record


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()

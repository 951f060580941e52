"""Keep secrets out of whatever is recorded."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "<redacted>"
_SECRET = re.compile(
    r"token|secret|passw(or)?d|passphrase|api_?key|access_?key|private_?key|credential|authorization|cookie",
    re.IGNORECASE,
)
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")
_MIN_LENGTH = 6  # a shorter value would also match ordinary words


def redact(record: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Return a plain record without secrets.

    Hidden are the values under keys that look like secrets, the values of environment variables whose
    names do, wherever they occur in a text, and user names and passwords in addresses.
    """
    variables = os.environ if environment is None else environment
    known = [value for name, value in variables.items() if is_secret_key(name) and len(value) >= _MIN_LENGTH]
    return _redacted(record, sorted(known, key=len, reverse=True))


def is_secret_key(key: str) -> bool:
    """Say whether a key's or variable's name suggests that its value is a secret."""
    return _SECRET.search(key) is not None


def _redacted(record: Any, known: Iterable[str]) -> Any:
    if isinstance(record, Mapping):
        return {
            key: HIDDEN if is_secret_key(str(key)) and isinstance(value, str) else _redacted(value, known)
            for key, value in record.items()
        }
    if isinstance(record, list | tuple):
        return [_redacted(value, known) for value in record]
    if not isinstance(record, str):
        return record
    for value in known:
        record = record.replace(value, HIDDEN)
    return _USER_INFO.sub(f"{HIDDEN}@", record)

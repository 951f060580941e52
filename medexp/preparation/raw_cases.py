"""Raw cases as a format's `find_cases` discovers them: which files belong together, nothing read yet."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medexp.errors import CohortError, ConfigurationError

_PLAIN = re.compile(r"[A-Za-z0-9._-]")
_MAX_IDENTIFIER = 100  # characters; a suffix, an extension and a temporary name must still fit into 255 bytes
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))}


@dataclass(frozen=True)
class RawCase:
    """One case's files.

    `case` is safe in a path; `name` is what the raw folder or file is called. `role` is "train" or "test".
    `problems` are the reasons, found without opening a file, why the case cannot be used. `notes` are plain values
    that go to the manifest as they are.
    """

    case: str
    patient: str
    role: str
    images: Mapping[str, Path]
    label: Path | None
    name: str
    problems: tuple[str, ...] = field(default=())
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RawCohort:
    """The cases of one or more roots with the names of their channels and labels."""

    cases: tuple[RawCase, ...]
    channels: tuple[str, ...]
    labels: Mapping[str, int]


def case_identifier(name: str) -> str:
    """Return a case's name in a form that is safe as a file name on any system.

    Letters, digits, `.`, `_` and `-` stay, but no name begins with a sign or is a device of Windows;
    everything else becomes `%` and the hexadecimal UTF-8 bytes, so that different names stay different. A name
    that is too long keeps its beginning and ends in a hash.
    """
    escape_first = not name[:1].isalnum() or name.split(".")[0].upper() in _RESERVED
    safe = "".join(
        character if _PLAIN.fullmatch(character) and not (escape_first and index == 0) else _escaped(character)
        for index, character in enumerate(name)
    )
    if len(safe) <= _MAX_IDENTIFIER:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{safe[: _MAX_IDENTIFIER - 17].rstrip('%')}-{digest}"


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))


def patient_matcher(pattern: str) -> re.Pattern[str]:
    """Return the compiled `dataset.patient_pattern`.

    Raises:
        ConfigurationError: It is not a regular expression with a group named `patient`.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        message = f"dataset.patient_pattern: expected a regular expression, got {pattern!r} ({error})"
        raise ConfigurationError(message) from error
    if "patient" not in compiled.groupindex:
        message = f"dataset.patient_pattern: expected a group (?P<patient>...), got {pattern!r}"
        raise ConfigurationError(message)
    return compiled


def patient_of(name: str, matcher: re.Pattern[str]) -> str | None:
    """Return the patient that a case's name tells, or None if the pattern does not match."""
    match = matcher.match(name)
    return match.group("patient") if match is not None else None


def raw_case(
    name: str,
    *,
    matcher: re.Pattern[str],
    role: str,
    images: Mapping[str, Path],
    label: Path | None,
    problems: Iterable[str] = (),
) -> RawCase:
    """Return a case; a name that the patient pattern does not match is one of its problems."""
    patient = patient_of(name, matcher)
    found = list(problems)
    if not patient:
        found.append(f"dataset.patient_pattern {matcher.pattern!r} finds no patient in the name {name!r}")
    return RawCase(case_identifier(name), patient or name, role, dict(images), label, name, tuple(found))


def combined(cases: Iterable[RawCase]) -> tuple[RawCase, ...]:
    """Return the cases sorted by identifier; those that share one are marked as problems."""
    ordered = sorted(cases, key=lambda case: (case.case, case.name, str(_place(case))))
    places: defaultdict[str, list[str]] = defaultdict(list)
    for case in ordered:
        places[case.case].append(str(_place(case)))
    return tuple(_marked(case, places[case.case]) for case in ordered)


def _marked(case: RawCase, places: list[str]) -> RawCase:
    if len(places) == 1:
        return case
    return replace(case, problems=(*case.problems, f"found {len(places)} times: {', '.join(places)}"))


def _place(case: RawCase) -> Path:
    return next(iter(case.images.values()), case.label or Path(case.name))


def required_channels(channels: Sequence[str] | None) -> tuple[str, ...]:
    """Return the configured channels of a format that does not name them itself.

    Raises:
        ConfigurationError: None are configured, or one twice.
    """
    if not channels:
        raise ConfigurationError("dataset.channels: expected the names of the images of a case, got none")
    if len(set(channels)) != len(channels):
        raise ConfigurationError(f"dataset.channels: expected different names, got {list(channels)}")
    return tuple(channels)


def required_labels(labels: Mapping[str, int] | None) -> dict[str, int]:
    """Return the configured labels in the order of their values.

    Raises:
        ConfigurationError: None are configured, or their values are not 1..n.
    """
    ordered = dict(sorted((labels or {}).items(), key=lambda item: item[1]))
    if not ordered or list(ordered.values()) != list(range(1, len(ordered) + 1)) or len(ordered) > 255:
        message = f"dataset.labels: expected the values 1 to n, at most 255, without 0 for background, got {labels}"
        raise ConfigurationError(message)
    return ordered


def require_folders(roots: Iterable[Path]) -> list[Path]:
    """Return the roots after checking that each is a folder.

    Raises:
        CohortError: Lists those that are not.
    """
    places = [Path(os.path.abspath(root)) for root in roots]  # noqa: PTH100 - resolve() would change linked names
    missing = [str(place) for place in places if not place.is_dir()]
    if missing:
        message = f"expected folders of raw data, found none at {', '.join(missing)}"
        raise CohortError(f"{message}; set dataset.roots, dataset.test_roots or data_dir")
    return places

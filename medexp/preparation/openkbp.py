"""OpenKBP: a case is a folder `pt_<number>`, at any depth, with `ct.csv`, `dose.csv` and a file per structure."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from medexp.io.openkbp import CT, DOSE, SIZES, decode_patient
from medexp.preparation.raw_cases import RawCase, RawCohort, combined, patient_matcher, raw_case, require_folders

__all__ = ["OFFICIAL", "decode_patient", "find_cases", "official_side"]

# The published split: side -> first and last number.
OFFICIAL: Final[Mapping[str, tuple[int, int]]] = {"train": (1, 200), "validation": (201, 240), "test": (241, 340)}
_FOLDER = re.compile(r"pt_([0-9]{1,6})")
_ENDING = ".csv"


def official_side(name: str) -> str | None:
    """Return "train", "validation" or "test" for a patient such as `pt_201`, or None for one that OpenKBP has not."""
    match = _FOLDER.fullmatch(name)
    number = int(match.group(1)) if match is not None else 0
    return next((side for side, (first, last) in OFFICIAL.items() if first <= number <= last), None)


def find_cases(
    roots: Sequence[Path],
    *,
    channels: Sequence[str] | None,
    labels: Mapping[str, int] | None,
    patient_pattern: str,
) -> RawCohort:
    """Return the patients below `roots`; the folder's name is the case's.

    `images` are all CSV files by their names without the ending, but the dose, which is the case's label. The side of
    the published split stands in `notes["official"]`, None for a number that it does not hold. Every case has the
    role "train": which split is used is not the format's to say. Names that begin with a dot are not seen.

    Args:
        roots: Folders; `train-pats`, `validation-pats` and `test-pats` below them need not be named.
        channels: Passed on as they are.
        labels: Passed on as they are; doses have none.
        patient_pattern: A regular expression with the group `patient` for the folder's name.

    Raises:
        CohortError: A root is no folder.
        ConfigurationError: The pattern has no group `patient`.
    """
    matcher = patient_matcher(patient_pattern)
    visited: set[tuple[int, int]] = set()
    cases = [
        _case(folder, problem, matcher)
        for root in require_folders(roots)
        for folder, problem in _patients(root, visited)
    ]
    return RawCohort(combined(cases), tuple(channels or ()), dict(labels or {}))


def _case(folder: Path, problem: str | None, matcher: re.Pattern[str]) -> RawCase:
    files = {} if problem else _files(folder)
    dose = files.pop(DOSE, None)
    problems = [problem] if problem else []
    missing = [f"{name}{_ENDING}" for name in (CT, SIZES) if name not in files]
    if missing and not problem:
        problems.append(f"{folder}: expected {' and '.join(missing)}, found none")
    case = raw_case(folder.name, matcher=matcher, role="train", images=files, label=dose, problems=problems)
    return replace(case, notes={"official": official_side(folder.name)})


def _files(folder: Path) -> dict[str, Path]:
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(_ENDING) and path.name[0] != ".")
    return {name.removesuffix(_ENDING): folder / name for name in names}


def _patients(folder: Path, visited: set[tuple[int, int]]) -> Iterator[tuple[Path, str | None]]:
    """Yield the folders named as patients, each once however many links lead to it, with why one cannot be read."""
    is_patient = _FOLDER.fullmatch(folder.name) is not None
    try:
        status = folder.stat()
        inner = sorted(entry.name for entry in os.scandir(folder) if entry.name[0] != "." and _is_folder(entry))
    except OSError as error:
        yield folder, f"{folder}: expected a readable folder, got '{error.strerror}'"
        return
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    if is_patient:
        yield folder, None
    for name in inner:
        yield from _patients(folder / name, visited)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False

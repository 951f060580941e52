"""BraTS: a case is a folder, at any depth, whose files end in `-t1c.nii.gz`, ..., `-seg.nii.gz`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medexp.preparation.raw_cases import (
    RawCase,
    RawCohort,
    combined,
    patient_matcher,
    raw_case,
    require_folders,
    required_channels,
    required_labels,
)

_LABEL = "seg"
_ENDING = ".nii.gz"
_SEPARATORS = ("-", "_")


def find_cases(
    roots: Sequence[Path],
    *,
    channels: Sequence[str] | None,
    labels: Mapping[str, int] | None,
    patient_pattern: str,
) -> RawCohort:
    """Return the cases below `roots`; the folder's name is the case's.

    A folder counts if one of its files has one of the suffixes, or if it holds NIfTI files of other names or
    nothing at all and no folders: what looks like a case and is none is reported, not skipped. Names that
    begin with a dot are not seen.

    Raises:
        CohortError: A root is no folder.
        ConfigurationError: Channels, labels or the pattern do not say what they must.
    """
    names = required_channels(channels)
    matcher = patient_matcher(patient_pattern)
    cases: list[RawCase] = []
    visited: set[tuple[int, int]] = set()
    for root in require_folders(roots):
        for folder, files, problem in _folders(root, visited, is_root=True):
            images, found = _by_suffix(folder, files, (*names, _LABEL))
            problems = [problem] if problem else found
            label = images.pop(_LABEL, None)
            cases.append(
                raw_case(folder.name, matcher=matcher, role="train", images=images, label=label, problems=problems)
            )
    return RawCohort(combined(cases), names, required_labels(labels))


def _folders(
    folder: Path, visited: set[tuple[int, int]], *, is_root: bool = False
) -> Iterator[tuple[Path, list[str], str | None]]:
    """Yield the folders that are cases or look like one, each once however many links lead to it."""
    try:
        status = folder.stat()
        entries = sorted((entry for entry in os.scandir(folder) if entry.name[0] != "."), key=lambda entry: entry.name)
    except OSError as error:
        yield folder, [], f"{folder}: expected a readable folder, got '{error.strerror}'"
        return
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    inner = [entry for entry in entries if _is_folder(entry)]
    files = [entry.name for entry in entries if entry.name.endswith((_ENDING, ".nii")) and entry not in inner]
    if files or not (entries or is_root):
        yield folder, files, None
    for entry in inner:
        yield from _folders(folder / entry.name, visited)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: reading it will say so
        return False


def _by_suffix(folder: Path, files: Sequence[str], suffixes: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    found: dict[str, Path] = {}
    problems = []
    for suffix in suffixes:
        matches = [name for name in files if name.endswith(tuple(f"{mark}{suffix}{_ENDING}" for mark in _SEPARATORS))]
        if len(matches) > 1:
            problems.append(f"{folder}: expected one file ending in -{suffix}{_ENDING}, found {', '.join(matches)}")
        elif matches:
            found[suffix] = folder / matches[0]
        elif suffix != _LABEL:
            problems.append(f"{folder}: expected a file ending in -{suffix}{_ENDING}, found none")
    return found, problems

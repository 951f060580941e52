"""Planned patients as files of the documented npz: one `.npz` is one case."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medexp.errors import CaseError, CohortError
from medexp.io.npz import read_headers
from medexp.preparation.raw_cases import RawCase, RawCohort, combined, patient_matcher, raw_case, require_folders

_ENDING = ".npz"
_ANY_PATIENT = "(?P<patient>.+)"


def find_cases(
    roots: Sequence[Path],
    *,
    channels: Sequence[str] | None,
    labels: Mapping[str, int] | None,
    patient_pattern: str | None,
) -> RawCohort:
    """Return the cases below `roots`; a file's name without its ending is the case's. Hidden files do not count.

    Args:
        roots: Folders.
        channels: Passed on as they are.
        labels: Passed on as they are; doses have none.
        patient_pattern: A regular expression with the group `patient` for the name; None: each file is a patient.

    Raises:
        CohortError: A root is no folder or holds no such file.
        ConfigurationError: The pattern has no group `patient`.
    """
    matcher = patient_matcher(patient_pattern or _ANY_PATIENT)
    cases: list[RawCase] = []
    for root in require_folders(roots):
        paths = sorted(path for path in root.rglob(f"*{_ENDING}") if path.name[0] != "." and path.is_file())
        if not paths:
            raise CohortError(f"{root}: expected {_ENDING} files, found none")
        cases += [_case(path, matcher) for path in paths]
    return RawCohort(combined(cases), tuple(channels or ()), dict(labels or {}))


def _case(path: Path, matcher: re.Pattern[str]) -> RawCase:
    name = path.name.removesuffix(_ENDING)
    case = raw_case(name, matcher=matcher, role="train", images={"case": path}, label=None)
    try:
        has_dose = "dose" in read_headers(path)
    except CaseError as error:
        return replace(case, problems=(*case.problems, str(error)))
    return replace(case, label=path if has_dose else None)

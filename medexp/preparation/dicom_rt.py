"""DICOM-RT patients: a folder per patient, in which objects are found by modality and UID, never by name."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medexp.io.dicom_index import DicomIndex, index_folder
from medexp.preparation.raw_cases import RawCase, RawCohort, case_identifier, combined, patient_matcher, require_folders

_MAGIC, _MAGIC_AT = b"DICM", 128
_DOSE, _CT = "RTDOSE", "CT"


def find_cases(
    roots: Sequence[Path],
    *,
    channels: Sequence[str] | None,
    labels: Mapping[str, int] | None,
    patient_pattern: str | None,
) -> RawCohort:
    """Return the patients below `roots`: every folder directly in a root, or the root itself if it holds DICOM files.

    `images` are the files of one plan, `CT/0001` and so on, `RTSTRUCT`, `RTPLAN` and the doses of further beams; the
    label is the first dose. Only headers are read. The patient is told by a hash of the files' patient identifier,
    so that two plans of one patient stay together; neither identifier nor name goes anywhere.

    Args:
        roots: Folders.
        channels: Passed on as they are.
        labels: Passed on as they are; doses have none.
        patient_pattern: A regular expression with the group `patient` for the folder's name, instead of the hash.

    Raises:
        CohortError: A root is no folder.
        ConfigurationError: The pattern has no group `patient`.
    """
    matcher = None if patient_pattern is None else patient_matcher(patient_pattern)
    cases = []
    for folder in _patient_folders(require_folders(roots)):
        case = _case(folder)
        match = None if matcher is None else matcher.match(folder.name)
        cases.append(case if match is None else _of_patient(case, match.group("patient")))
    return RawCohort(combined(cases), tuple(channels or ()), dict(labels or {}))


def _patient_folders(roots: Sequence[Path]) -> Iterator[Path]:
    for root in roots:
        entries = sorted(path for path in root.iterdir() if path.name[0] != ".")
        if any(_is_dicom(path) for path in entries):
            yield root
        else:
            yield from (path for path in entries if path.is_dir())


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    except OSError:
        return False


def _case(folder: Path) -> RawCase:
    index = index_folder(folder)
    name = case_identifier(folder.name)
    files = _files(index)
    dose = files.pop(_DOSE, None)
    return RawCase(name, index.patient or name, "train", files, dose, folder.name, index.problems)


def _of_patient(case: RawCase, patient: str) -> RawCase:
    return RawCase(case.case, patient, case.role, case.images, case.label, case.name, case.problems)


def _files(index: DicomIndex) -> dict[str, Path]:
    """Return the files of the plan by what they are; of several doses the first is `RTDOSE`, the next `RTDOSE/2`.

    They are numbered in the order of their UIDs, so that equal files are equal cases whatever they are called.
    """
    choice = index.choice
    images = sorted(choice.ct, key=lambda entry: (entry.uid, entry.path))
    doses = sorted(choice.doses, key=lambda entry: (entry.uid, entry.path))
    files = {f"{_CT}/{number:04d}": entry.path for number, entry in enumerate(images, start=1)}
    for entry in (choice.structures, choice.plan):
        if entry is not None:
            files[entry.modality] = entry.path
    for number, entry in enumerate(doses, start=1):
        files[_DOSE if number == 1 else f"{_DOSE}/{number}"] = entry.path
    return files

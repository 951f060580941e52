"""Which DICOM files below a folder belong together: found by modality and UID, never by name, reading headers only."""

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Final

from medexp.io.dicom import DicomError, NotDicomError, items, numbers, parse_stream, quiet, text, texts, uid
from medexp.io.dicom_choice import Choice, DicomEntry, choose
from medexp.io.nifti import MAX_BYTES

if TYPE_CHECKING:
    from pydicom import Dataset

_CONTOURS: Final = 0x30060039  # of a structure set nothing behind them is needed, and they are nearly all of it
_PIXELS: Final = 0x7FE00010
_SUFFIXES: Final = {".dcm", ".dicom", ".ima"}


@dataclass(frozen=True)
class DicomIndex:
    """The DICOM objects below a folder and which of them make up its patient.

    Attributes:
        folder: That was searched.
        entries: Every object, sorted by path.
        others: Files that are no DICOM and do not claim to be.
        choice: The objects of one treatment plan, with what speaks against it.
        problems: Why the folder cannot be used as one patient; empty if it can.
    """

    folder: Path
    entries: tuple[DicomEntry, ...]
    others: tuple[Path, ...]
    choice: Choice
    problems: tuple[str, ...]

    @property
    def patient(self) -> str:
        """A key that tells patients apart and names none; that of the structure set if there are several."""
        for entry in (self.choice.structures, *self.choice.ct, *self.entries):
            if entry is not None:
                return entry.patient or _hashed(entry.study_uid.encode())
        return ""

    @property
    def by_modality(self) -> Mapping[str, tuple[DicomEntry, ...]]:
        """The objects under `CT`, `RTSTRUCT`, `RTDOSE`, `RTPLAN` and whatever else there is."""
        grouped: defaultdict[str, list[DicomEntry]] = defaultdict(list)
        for entry in self.entries:
            grouped[entry.modality].append(entry)
        return {modality: tuple(found) for modality, found in sorted(grouped.items())}

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that `read_patient` is to be given."""
        return tuple(entry.path for entry in self.choice.entries)


def index_folder(folder: Path) -> DicomIndex:
    """Find the objects below a folder, whatever their files are called; nothing is refused, everything is listed.

    Links to folders are followed, each folder once.
    """
    entries, others, problems = [], [], []
    for path in sorted(_regular_files(folder)):
        try:
            entries.append(_entry_at(path))
        except NotDicomError as error:
            if path.suffix.lower() in _SUFFIXES:
                problems.append(f"{path}: {error}")
            else:
                others.append(path)
        except DicomError as error:
            problems.append(f"{path}: {error}")
        except OSError as error:
            problems.append(f"{path}: expected a readable file, got '{error.strerror}'")
    choice = choose(entries)
    return DicomIndex(folder, tuple(entries), tuple(others), choice, (*problems, *choice.problems))


def _regular_files(folder: Path) -> Iterator[Path]:
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(place)  # noqa: PTH116 - os.walk speaks in text
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (path for path in (Path(place, name) for name in names) if not _is_special(path))


def _is_special(path: Path) -> bool:
    """Whether opening a file could wait for ever, or it is a link to nothing."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _entry_at(path: Path) -> DicomEntry:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise DicomError(f"expected at most {MAX_BYTES:,} bytes, got {size:,}")
    with path.open("rb") as stream:
        return entry_of(stream, path)


@quiet()
def entry_of(stream: BufferedIOBase, path: Path) -> DicomEntry:
    """Return what an object's header says about where it belongs.

    Raises:
        DicomError: It is no DICOM object, or its header is malformed.
    """
    dataset = parse_stream(stream, stop=frozenset({_CONTOURS, _PIXELS}))
    if "DirectoryRecordSequence" in dataset:
        return DicomEntry(path=path, modality="DICOMDIR")
    frames = items(dataset, "ReferencedFrameOfReferenceSequence")
    series = _below(_below(frames, "RTReferencedStudySequence"), "RTReferencedSeriesSequence")
    position = numbers(dataset, "ImagePositionPatient") if texts(dataset, "ImagePositionPatient") else ()
    plans = items(dataset, "ReferencedRTPlanSequence")
    beams = _below(_below(plans, "ReferencedFractionGroupSequence"), "ReferencedBeamSequence")
    return DicomEntry(
        path=path,
        modality=text(dataset, "Modality"),
        sop_class_uid=uid(dataset, "SOPClassUID"),
        uid=uid(dataset, "SOPInstanceUID"),
        series_uid=uid(dataset, "SeriesInstanceUID"),
        study_uid=uid(dataset, "StudyInstanceUID"),
        frame_uid=uid(dataset, "FrameOfReferenceUID"),
        frame_uids=_unique(_uids(frames, "FrameOfReferenceUID")),
        patient=_patient(dataset),
        position=tuple(float(value) for value in position),
        is_localizer="LOCALIZER" in texts(dataset, "ImageType"),
        summation=text(dataset, "DoseSummationType"),
        plan_uids=_unique(_uids(plans, "ReferencedSOPInstanceUID")),
        structure_uids=_unique(_uids(items(dataset, "ReferencedStructureSetSequence"), "ReferencedSOPInstanceUID")),
        series_uids=_unique(_uids(series, "SeriesInstanceUID")),
        image_uids=frozenset(_uids(_below(series, "ContourImageSequence"), "ReferencedSOPInstanceUID")),
        beams=tuple(int(number) for beam in beams for number in numbers(beam, "ReferencedBeamNumber")),
    )


def _below(parents: "Iterable[Dataset]", keyword: str) -> "list[Dataset]":
    return [item for parent in parents for item in items(parent, keyword)]


def _uids(parents: "Iterable[Dataset]", keyword: str) -> list[str]:
    return [uid(parent, keyword) for parent in parents]


def _unique(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in found if value))


def _patient(dataset: "Dataset") -> str:
    """Return a key made from the patient's identifier; empty where that is."""
    element = dataset.get_item("PatientID") if "PatientID" in dataset else None
    value = element.value if element is not None else b""
    identifier = value if isinstance(value, bytes) else str(value or "").encode("utf-8", "surrogateescape")
    return _hashed(identifier.strip(b"\0 ")) if identifier.strip(b"\0 ") else ""


def _hashed(identifier: bytes) -> str:
    return f"patient-{hashlib.sha256(identifier).hexdigest()[:12]}"

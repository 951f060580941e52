"""Which of several DICOM objects make up one patient's plan: by their references to each other, or not at all.

A guess here would mix the contours of one plan with the dose of another, so whatever references do not settle is a
problem that a person must solve. Two plans are one even if the dose names its own: the other may be a boost, and
then the dose is not all that the patient gets.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
_SUMMATIONS: Final = ("PLAN", "BEAM")


@dataclass(frozen=True)
class DicomEntry:
    """What an object's header says about where it belongs. Nothing in it names a patient.

    Attributes:
        path: Its file.
        modality: `CT`, `RTSTRUCT`, ...
        sop_class_uid: Its kind.
        uid: Its own (SOP instance).
        series_uid: Its series.
        study_uid: Its study.
        frame_uid: The frame of reference that it says to lie in.
        frame_uids: Frames of reference in which a structure set's regions were drawn.
        patient: Key of the patient; empty where the file has no identifier.
        position: Of its first pixel, as stored.
        is_localizer: Whether it is a scout view.
        summation: What a dose sums: `PLAN`, `BEAM`, ...
        plan_uids: Plans that it refers to.
        structure_uids: Structure sets that it refers to.
        series_uids: Image series that a structure set refers to.
        image_uids: Images that a structure set refers to.
        beams: Numbers of the beams that a dose was computed for.
    """

    path: Path
    modality: str
    sop_class_uid: str = ""
    uid: str = ""
    series_uid: str = ""
    study_uid: str = ""
    frame_uid: str = ""
    frame_uids: tuple[str, ...] = ()
    patient: str = ""
    position: tuple[float, ...] = ()
    is_localizer: bool = False
    summation: str = ""
    plan_uids: tuple[str, ...] = ()
    structure_uids: tuple[str, ...] = ()
    series_uids: tuple[str, ...] = ()
    image_uids: frozenset[str] = frozenset()
    beams: tuple[int, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The objects of one plan; `problems` say why they cannot be used, `warnings` what is odd but usable."""

    ct: tuple[DicomEntry, ...]
    structures: DicomEntry | None
    plan: DicomEntry | None
    doses: tuple[DicomEntry, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def entries(self) -> tuple[DicomEntry, ...]:
        """All of them."""
        return (*self.ct, *(entry for entry in (self.structures, self.plan) if entry is not None), *self.doses)


class _Findings:
    """Problems and warnings as they turn up."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.warnings: list[str] = []


def choose(entries: Sequence[DicomEntry]) -> Choice:
    """Return the objects that belong together; of the same object twice, the first file."""
    findings = _Findings()
    _require_one_patient(entries, findings)
    unique = _without_copies(entries, findings)
    plan = _plan(unique["RTPLAN"], unique["RTDOSE"], findings)
    structures = _structures(unique["RTSTRUCT"], plan, findings)
    doses = _doses(unique["RTDOSE"], plan, findings)
    ct = _series(unique["CT"], structures, doses, findings)
    if ct:
        _require_one_frame(ct[0], [entry for entry in (structures, plan, *doses) if entry is not None], findings)
    return Choice(ct, structures, plan, doses, tuple(findings.problems), tuple(findings.warnings))


def _require_one_patient(entries: Sequence[DicomEntry], findings: _Findings) -> None:
    patients = sorted({entry.patient for entry in entries if entry.patient})
    if len(patients) > 1:
        found = f"{len(patients)} ({', '.join(patients[:5])})"
        findings.problems.append(f"expected the files of one patient, got those of {found}; use a folder for each")


def _without_copies(entries: Sequence[DicomEntry], findings: _Findings) -> defaultdict[str, list[DicomEntry]]:
    kept: dict[str, DicomEntry] = {}
    unique: defaultdict[str, list[DicomEntry]] = defaultdict(list)
    copies = 0
    for entry in entries:
        first = kept.setdefault(entry.uid, entry) if entry.uid else entry
        if first is entry:
            unique[entry.modality].append(entry)
        elif (first.modality, first.position) == (entry.modality, entry.position):
            copies += 1
        else:
            message = f"{entry.path.name}: expected a SOPInstanceUID of its own, got that of {first.path.name}"
            findings.problems.append(f"{message}; export the files again")
    if copies:
        findings.warnings.append(f"{copies} files are copies of others in the same folder and are left out")
    return unique


def _plan(plans: Sequence[DicomEntry], doses: Sequence[DicomEntry], findings: _Findings) -> DicomEntry | None:
    if len(plans) > 1:
        referenced = {uid for dose in doses for uid in dose.plan_uids}
        used = [plan.path.name for plan in plans if plan.uid in referenced]
        message = f"expected one RTPLAN, got {len(plans)} ({_names(plans)})"
        said = f"the RTDOSE refers to {', '.join(used)}" if used else "no RTDOSE refers to one of them"
        findings.problems.append(f"{message}; {said}; leave one plan with its dose in the folder")
    return plans[0] if plans else None


def _structures(sets: Sequence[DicomEntry], plan: DicomEntry | None, findings: _Findings) -> DicomEntry | None:
    if not sets:
        findings.problems.append("expected an RTSTRUCT, got none; export the structure set with the plan")
        return None
    referenced = [one for one in sets if plan is not None and one.uid in plan.structure_uids]
    if len(sets) > 1 and len(referenced) != 1:
        message = f"expected one RTSTRUCT, or a plan that refers to one, got {len(sets)} ({_names(sets)})"
        findings.problems.append(f"{message}; leave the one of the plan in the folder")
    chosen = referenced[0] if referenced else sets[0]
    if plan is not None and plan.structure_uids and not referenced:
        findings.warnings.append("the RTPLAN refers to another structure set than the RTSTRUCT in the folder")
    return chosen


def _doses(doses: Sequence[DicomEntry], plan: DicomEntry | None, findings: _Findings) -> tuple[DicomEntry, ...]:
    foreign = [dose for dose in doses if plan is not None and dose.plan_uids and plan.uid not in dose.plan_uids]
    own = [dose for dose in doses if dose not in foreign]
    if foreign and own:
        findings.warnings.append(f"RTDOSE of other plans are left out ({_names(foreign)})")
    elif foreign:
        message = f"expected an RTDOSE of the plan in the folder, got only ones of other plans ({_names(foreign)})"
        findings.problems.append(f"{message}; export the dose with its plan")
    if plan is not None and any(not dose.plan_uids for dose in own):
        findings.warnings.append("the RTDOSE does not say to which plan it belongs; it is taken for the one there is")
    return _summed(own, findings)


def _summed(doses: Sequence[DicomEntry], findings: _Findings) -> tuple[DicomEntry, ...]:
    """Return the dose of the plan, else those of all beams."""
    plans, beams = ([dose for dose in doses if dose.summation == kind] for kind in _SUMMATIONS)
    others = [dose for dose in doses if dose.summation not in _SUMMATIONS]
    if len(plans) == 1:
        return (plans[0],)
    if plans:
        findings.problems.append(f"expected one RTDOSE of the plan, got {len(plans)} ({_names(plans)}); leave one")
    elif beams:
        computed = [number for dose in beams for number in dose.beams]
        if len(computed) != len(set(computed)):
            findings.problems.append(f"expected one RTDOSE per beam, got several of one ({_names(beams)}); leave one")
        return tuple(beams)
    elif others:
        message = f"expected an RTDOSE that sums the PLAN, or one per BEAM, got others ({_names(others)})"
        findings.problems.append(f"{message}; export the dose of the plan")
    return ()


def _series(
    images: Sequence[DicomEntry],
    structures: DicomEntry | None,
    doses: Sequence[DicomEntry],
    findings: _Findings,
) -> tuple[DicomEntry, ...]:
    series: defaultdict[str, list[DicomEntry]] = defaultdict(list)
    for image in images:
        if not image.is_localizer:
            series[image.series_uid].append(image)
    if not series:
        findings.problems.append("expected a CT series, got none; export the planning CT with the plan")
        return ()
    referenced = _referenced_series(series, structures, doses)
    if len(referenced) != 1:
        message = (
            f"expected one CT series, or references that name one, got {len(series)} with {_counts(series)} images"
        )
        findings.problems.append(f"{message}; leave the planning CT in the folder")
        return ()
    chosen = series[referenced[0]]
    if len(series) > 1:
        findings.warnings.append(f"of {len(series)} CT series ({_counts(series)} images) the referenced one is used")
    if other := sorted({image.sop_class_uid for image in chosen} - {_CT_IMAGE}):
        message = f"expected CT images, one file per slice, got objects of class {', '.join(other)}"
        findings.problems.append(f"{message}; export the series as CT images")
    if structures is not None and structures.series_uids == (referenced[0],):
        missing = len(structures.image_uids - {image.uid for image in chosen})
        if missing:
            findings.warnings.append(f"the RTSTRUCT refers to {missing} CT images that are not in the folder")
    return tuple(chosen)


def _referenced_series(
    series: dict[str, list[DicomEntry]], structures: DicomEntry | None, doses: Sequence[DicomEntry]
) -> list[str]:
    """Return the one series, or those that the structure set names, or those in the frame of contours and dose."""
    if len(series) == 1:
        return list(series)
    if structures is not None and (named := [uid for uid in series if uid in structures.series_uids]):
        return named
    known = [entry for entry in (structures, *doses) if entry is not None]
    frames = {uid for entry in known for uid in (entry.frame_uid, *entry.frame_uids)}
    return [uid for uid, images in series.items() if images[0].frame_uid and images[0].frame_uid in frames]


def _require_one_frame(image: DicomEntry, others: Sequence[DicomEntry], findings: _Findings) -> None:
    if not image.frame_uid:
        findings.warnings.append("the CT names no frame of reference; contours and dose are taken to lie in its")
        return
    for other in others:
        is_foreign = bool(other.frame_uid) and other.frame_uid != image.frame_uid
        if not (other.frame_uid or other.frame_uids):
            if other.modality != "RTPLAN":  # plans seldom name one
                findings.warnings.append(f"{other.modality} {other.path.name} names no frame of reference")
        elif is_foreign or (other.frame_uids and image.frame_uid not in other.frame_uids):
            message = f"{other.modality} {other.path.name}: expected the CT's frame of reference, got another one"
            findings.problems.append(f"{message}; register and resample, or export the objects of one plan")


def _names(entries: Sequence[DicomEntry]) -> str:
    return ", ".join(entry.path.name for entry in entries[:5])


def _counts(series: dict[str, list[DicomEntry]]) -> str:
    return ", ".join(str(len(images)) for images in series.values())

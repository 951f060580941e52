"""One radiotherapy patient from DICOM: CT, structures, dose and plan, each on its own grid, in RAS+."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32, Float64

from medexp.errors import CaseError
from medexp.io.dicom import DicomError
from medexp.io.dicom_choice import Choice, DicomEntry, choose
from medexp.io.dicom_ct import CtVolume, read_ct
from medexp.io.dicom_dose import RtDose, dose_of, summed_dose
from medexp.io.dicom_index import entry_of
from medexp.io.dicom_plan import RtPlan, default_plan, read_plan
from medexp.io.dicom_structures import RtStructure, RtStructureSet, read_structures
from medexp.io.nifti import RawFile, read_file

Part = TypeVar("Part")


@dataclass(frozen=True)
class RtReferences:
    """UIDs through which a new object of a patient refers to those it belongs to; empty where there is none."""

    study_uid: str = ""
    frame_of_reference_uid: str = ""
    ct_series_uid: str = ""
    structure_set_uid: str = ""
    plan_uid: str = ""
    plan_class_uid: str = ""
    dose_uid: str = ""

    def to_json(self) -> dict[str, str]:
        """Return plain text by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "RtReferences":
        """Read what `to_json` wrote; other keys are left alone."""
        return cls(**{field.name: str(record.get(field.name, "")) for field in fields(cls)})


@dataclass(frozen=True, eq=False)
class RtPatient:
    """What the files of one patient say.

    Attributes:
        ct: Hounsfield units on the CT's grid.
        structures: Every region with its contours, in the order of the file.
        dose: On its own grid, all beams; None: not planned yet.
        plan: Prescription and beams; assumed where there is no RTPLAN.
        references: For objects that are to belong to this patient.
        warnings: What a person should look at.
        foreign_structures: Names of regions in another frame of reference than the CT, which are left out.
    """

    ct: CtVolume
    structures: tuple[RtStructure, ...]
    dose: RtDose | None
    plan: RtPlan
    references: RtReferences
    warnings: tuple[str, ...]
    foreign_structures: tuple[str, ...] = ()


def read_patient(files: Sequence[RawFile]) -> RtPatient:
    """Return the patient that files describe; objects of other modalities are left alone.

    Raises:
        CaseError: The patient cannot be used; all reasons that can be found are listed, one per line. None of them
            holds a patient's name, identifier or birth date.
    """
    reasons: list[str] = []
    content = {file.path: file for file in files}
    choice = choose(_entries(files, reasons))
    reasons += choice.problems
    ct = _part(lambda: read_ct([content[entry.path] for entry in choice.ct]), reasons) if choice.ct else None
    structure_set = _structure_set(choice, content, reasons)
    dose_files = [content[entry.path] for entry in choice.doses]
    dose = _part(lambda: summed_dose(dose_files), reasons) if dose_files else None
    plan = default_plan()
    if (planned := choice.plan) is not None:
        plan = _part(lambda: read_plan(content[planned.path]), reasons) or plan
    reasons += _beam_problems(choice, plan)
    if reasons or ct is None or structure_set is None:
        raise CaseError("\n".join(reasons))
    warnings = (*choice.warnings, *ct.warnings, *structure_set.warnings, *plan.warnings)
    foreign = structure_set.foreign
    return RtPatient(ct, structure_set.structures, dose, plan, _references(choice), warnings, foreign)


def read_rtdose(path: Path) -> tuple[Float32[np.ndarray, "i j k"], Float64[np.ndarray, "4 4"]]:
    """Return the dose in Gy and the affine of one RTDOSE, whatever it sums.

    Raises:
        CaseError: It cannot be used; the message names file and reason.
    """
    dose = dose_of(read_file(path))
    return dose.dose_gy, dose.affine


def _part(read: Callable[[], Part], reasons: list[str]) -> Part | None:
    try:
        return read()
    except CaseError as error:
        reasons += str(error).split("\n")
        return None


def _entries(files: Sequence[RawFile], reasons: list[str]) -> list[DicomEntry]:
    entries = []
    for file in files:
        try:
            entries.append(entry_of(BytesIO(file.content), file.path))
        except DicomError as error:
            reasons.append(f"{file.path}: {error}")
    return entries


def _structure_set(choice: Choice, content: Mapping[Path, RawFile], reasons: list[str]) -> RtStructureSet | None:
    if (chosen := choice.structures) is None:
        return None
    frame = choice.ct[0].frame_uid if choice.ct else ""
    return _part(lambda: read_structures(content[chosen.path], frame_of_reference_uid=frame), reasons)


def _beam_problems(choice: Choice, plan: RtPlan) -> list[str]:
    """Return whether doses of single beams leave out one of the plan's."""
    if not plan.beams or not choice.doses or choice.doses[0].summation != "BEAM":
        return []
    planned = {beam.number for beam in plan.beams}
    computed = {number for dose in choice.doses for number in dose.beams}
    if computed == planned or (not computed and len(choice.doses) == len(planned)):
        return []
    found = sorted(computed) if computed else f"{len(choice.doses)} without beam numbers"
    return [f"expected RTDOSE of the beams {sorted(planned)}, got {found}; export the dose of the plan"]


def _references(choice: Choice) -> RtReferences:
    image, plan, structures = choice.ct[0], choice.plan, choice.structures
    return RtReferences(
        study_uid=(plan or structures or image).study_uid,
        frame_of_reference_uid=image.frame_uid,
        ct_series_uid=image.series_uid,
        structure_set_uid=structures.uid if structures is not None else "",
        plan_uid=plan.uid if plan is not None else "",
        plan_class_uid=plan.sop_class_uid if plan is not None else "",
        dose_uid=choice.doses[0].uid if choice.doses else "",
    )

"""DICOM-RT written: a dose as RTDOSE for a planning system, and complete patients made from cases.

A dose is whole numbers, a scaling, and references to the plan and the structure set that it belongs to.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from jaxtyping import Float32, Float64, Shaped, UInt

from medexp.errors import CaseError
from medexp.geometry.contour_tracing import trace
from medexp.io.dicom import DicomError
from medexp.io.dicom_arcs import arc_plan
from medexp.io.dicom_geometry import lps_stack
from medexp.io.dicom_objects import (
    RT_DOSE,
    RT_PLAN,
    RT_STRUCTURE_SET,
    NewUids,
    PatientIdentity,
    add_image,
    decimal,
    decimals,
    derived_uid,
    new_object,
    reference,
    write_object,
)
from medexp.io.dicom_patient import ct_images, structure_set
from medexp.io.dicom_plan import DEFAULT_FRACTIONS
from medexp.io.dicom_rt import RtReferences
from medexp.io.dicom_structures import Contour
from medexp.io.dose_case import DoseCase

if TYPE_CHECKING:
    from pydicom import Dataset

_LEVELS: Final = {16: 2**16 - 1, 32: 2**31 - 1}  # 31 bits: some readers take 32 for signed numbers
_OFFSETS: Final = 0x3004000C  # GridFrameOffsetVector
_COMMENT_CHARACTERS: Final = 64


def write_rtdose(
    path: Path,
    dose_gy: Float32[np.ndarray, "i j k"],
    affine: Float64[np.ndarray, "4 4"],
    *,
    references: RtReferences,
    identity: PatientIdentity | None = None,
    description: str = "Predicted dose",
    comment: str = "Prediction; not for clinical use",
    bits: Literal[16, 32] = 32,
    durable: bool = True,
) -> str:
    """Write the dose of a whole plan and return its SOPInstanceUID.

    The object gets UIDs of its own, derived from everything in it: equal doses of equal patients give equal bytes.
    With 32 bits the file holds the dose to within 2e-8 of its maximum (float32 holds it to 6e-8), with 16 bits to
    within 8e-6.

    Args:
        path: Of the file.
        dose_gy: On a grid along the patient's axes.
        affine: Voxel centers -> RAS+ mm.
        references: To the objects that the dose belongs to; a study or frame that is not known gets a new UID.
        identity: What the file says about the patient; if it is not given, the file's name without its ending.
        description: Of the series, for a person.
        comment: On the dose, for a person; at most 64 characters.
        bits: Of a voxel.
        durable: Wait until the bytes are on the disk.

    Raises:
        CaseError: The dose is negative or not finite, or its grid is oblique.
        StorageError: The file cannot be written.
    """
    if not np.isfinite(dose_gy).all() or dose_gy.min() < 0.0:
        raise CaseError(f"{path}: expected a finite dose of 0 or more, got NaN, infinity or a negative one; clip it")
    try:
        turned, position, spacing = lps_stack(dose_gy, affine)
    except DicomError as error:
        raise CaseError(f"{path}: {error}") from error
    scaling = _scaling(float(dose_gy.max()), _LEVELS[bits])
    levels = _in_levels(turned, float(scaling), np.dtype(f"u{bits // 8}"))
    dataset = _described(references, identity or PatientIdentity(path.stem), description)
    add_image(dataset, levels, position=position, spacing=spacing)
    _add_dose(dataset, levels, scaling=scaling, slice_mm=float(spacing[2]), comment=comment)
    _add_references(dataset, references)
    _name(dataset)
    write_object(path, dataset, durable=durable)
    return str(dataset.SOPInstanceUID)


def _scaling(highest_gy: float, levels: int) -> str:
    """Return Gy per level as it is written: ten digits, rounded up so that the highest dose still fits."""
    if highest_gy <= 0.0:
        return "1.0e-6"  # nothing to scale, but the attribute must be positive
    exact = highest_gy / levels
    digits = 9 - math.floor(math.log10(exact))
    return f"{math.ceil(exact * 10.0**digits) / 10.0**digits:.9e}"


def _in_levels(
    dose_gy: Float32[np.ndarray, "i j k"], scaling: float, dtype: np.dtype
) -> UInt[np.ndarray, "frame row column"]:
    levels = np.empty(dose_gy.shape[::-1], dtype)
    for frame, target in zip(dose_gy.transpose(2, 1, 0), levels, strict=True):  # one at a time: float64 is large
        target[:] = np.rint(frame.astype(np.float64) / scaling)
    return levels


def _described(references: RtReferences, identity: PatientIdentity, description: str) -> "Dataset":
    dataset = new_object(
        class_uid=RT_DOSE,
        modality="RTDOSE",
        identity=identity,
        study_uid=references.study_uid or derived_uid("study", identity.identifier),
        series_uid="",
        frame_uid=references.frame_of_reference_uid or derived_uid("frame", identity.identifier),
    )
    dataset.SeriesDescription = description[:_COMMENT_CHARACTERS]
    return dataset


def _add_dose(
    dataset: "Dataset", levels: Shaped[np.ndarray, "frame row column"], *, scaling: str, slice_mm: float, comment: str
) -> None:
    """Add the modules multi-frame and RT dose."""
    dataset.NumberOfFrames = len(levels)
    dataset.FrameIncrementPointer = _OFFSETS
    dataset.GridFrameOffsetVector = decimals(np.arange(len(levels)) * slice_mm)
    dataset.DoseUnits = "GY"
    dataset.DoseType = "PHYSICAL"
    dataset.DoseSummationType = "PLAN"
    dataset.DoseComment = comment[:_COMMENT_CHARACTERS]
    dataset.DoseGridScaling = decimal(float(scaling))
    dataset.TissueHeterogeneityCorrection = ["IMAGE"]


def _add_references(dataset: "Dataset", references: RtReferences) -> None:
    if references.plan_uid:
        plan = reference(references.plan_class_uid or RT_PLAN, references.plan_uid)
        dataset.ReferencedRTPlanSequence = [plan]
    if references.structure_set_uid:
        dataset.ReferencedStructureSetSequence = [reference(RT_STRUCTURE_SET, references.structure_set_uid)]


def _name(dataset: "Dataset") -> None:
    """Give the object UIDs that depend on everything in it."""
    content = dataset.to_json(
        bulk_data_threshold=1024, bulk_data_element_handler=lambda element: hashlib.sha256(element.value).hexdigest()
    )
    dataset.SOPInstanceUID = derived_uid("dose", content)
    dataset.SeriesInstanceUID = derived_uid("series", content)


def write_patient(
    folder: Path,
    case: DoseCase,
    *,
    contours: Mapping[str, Sequence[Contour]] | None = None,
    identity: PatientIdentity | None = None,
    fractions: int = DEFAULT_FRACTIONS,
    seed: int = 0,
    durable: bool = False,
) -> dict[str, Path]:
    """Write a case as DICOM and return the files: `ct_000`..., `structures`, `plan` and, if there is one, `dose`.

    What is read back is the case: Hounsfield units, masks, grid and prescription exactly, dose to 1e-4 Gy. Files are
    named by their UIDs, which depend on the case's name and the seed only.

    Args:
        folder: Gets the files.
        case: On a grid along the patient's axes.
        contours: Of each structure in RAS+ mm; traced along the voxels of the masks if they are not given.
        identity: What the files say about the patient; the case's name if it is not given.
        fractions: Of the plan.
        seed: Part of every UID.
        durable: Wait until the bytes are on the disk.

    Raises:
        CaseError: The grid is oblique.
        StorageError: A file cannot be written.
    """
    uids = NewUids(f"{case.name} {seed}")
    who = identity or PatientIdentity(case.name)
    if contours is None:
        contours = {name: trace(mask, case.affine) for name, mask in case.masks.items()}
    try:
        hu, position, spacing = lps_stack(case.ct_hu, case.affine)
    except DicomError as error:
        raise CaseError(f"{case.name}: {error}") from error
    objects = {f"ct_{k:03d}": one for k, one in enumerate(ct_images(hu, position, spacing, uids=uids, identity=who))}
    images = [(str(one.SOPInstanceUID), float(position[2] + k * spacing[2])) for k, one in enumerate(objects.values())]
    objects["structures"] = structure_set(contours, images, uids=uids, identity=who)
    objects["plan"] = arc_plan(case, fractions=fractions, uids=uids, identity=who)
    files = {name: folder / f"{one.Modality}.{one.SOPInstanceUID}.dcm" for name, one in objects.items()}
    for name, one in objects.items():
        write_object(files[name], one, durable=durable)
    if case.dose_gy is not None:
        files["dose"] = folder / f"RTDOSE.{uids.of('dose file')}.dcm"
        write_rtdose(
            files["dose"], case.dose_gy, case.affine, references=_own_references(uids), identity=who,
            description="Planned dose", comment="", durable=durable,
        )  # fmt: skip
    return files


def _own_references(uids: NewUids) -> RtReferences:
    return RtReferences(
        study_uid=uids.of("study"),
        frame_of_reference_uid=uids.of("frame"),
        ct_series_uid=uids.of("ct series"),
        structure_set_uid=uids.of("structures"),
        plan_uid=uids.of("plan"),
        plan_class_uid=RT_PLAN,
    )

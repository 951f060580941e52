"""RTDOSE: what a grid of whole numbers, a scaling and a list of frame offsets say in gray."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64

from medexp.errors import CaseError
from medexp.io.dicom import PIXEL_DATA, DicomError, number, numbers, parse, shown, text
from medexp.io.dicom_geometry import Plane, plane_of, slice_distance_mm
from medexp.io.dicom_pixels import layout_of, pixels_of
from medexp.io.nifti import RawFile

if TYPE_CHECKING:
    from pydicom import Dataset

_SAME_PLACE_MM = 0.01


@dataclass(frozen=True, eq=False)
class RtDose:
    """Absorbed dose on its own grid: i column, j row, k frame by rising z; `affine` maps centers to RAS+ mm."""

    dose_gy: Float32[np.ndarray, "i j k"]
    affine: Float64[np.ndarray, "4 4"]
    frame_of_reference_uid: str


def summed_dose(files: Sequence[RawFile]) -> RtDose:
    """Return the sum of doses on one grid: a plan's, or those of its beams.

    Raises:
        CaseError: One cannot be used, or their grids differ.
    """
    first = dose_of(files[0])
    total = first.dose_gy
    for file in files[1:]:
        other = dose_of(file)
        if other.dose_gy.shape != total.shape or np.abs(other.affine - first.affine).max() > _SAME_PLACE_MM:
            message = f"{file.path}: expected the grid of the other beams' doses {total.shape}, got another one"
            raise CaseError(f"{message} {other.dose_gy.shape}; export the dose of the plan instead")
        total = total + other.dose_gy
    return RtDose(total, first.affine, first.frame_of_reference_uid)


def dose_of(file: RawFile) -> RtDose:
    """Return the dose of one object.

    Raises:
        CaseError: It breaks a rule; the message names file and reason.
    """
    try:
        return _dose(file)
    except DicomError as error:
        raise CaseError(f"{file.path}: {error}") from error


def _dose(file: RawFile) -> RtDose:
    head = parse(file, stop=PIXEL_DATA)
    if (modality := text(head, "Modality")) != "RTDOSE":
        raise DicomError(f"expected an RTDOSE, got modality {shown(modality)}")
    scaling = _scaling(head)
    layout, plane = layout_of(head), plane_of(head)
    positions = _frame_positions_mm(head, plane, layout.frames)
    order = np.argsort(positions)
    positions = positions[order]
    distance = slice_distance_mm(positions)
    stored = pixels_of(parse(file), layout)
    if stored.min() < 0:
        message = f"expected doses of 0 or more, got {stored.min() * scaling:.4g} Gy"
        raise DicomError(f"{message} and {int((stored < 0).sum()):,} negative voxels; export the dose again")
    dose = np.multiply(stored, np.float32(scaling), dtype=np.float32, casting="same_kind")
    if not np.array_equal(order, np.arange(order.size)):
        dose = dose[order]
    frame_uid = text(head, "FrameOfReferenceUID")
    return RtDose(dose.transpose(2, 1, 0), plane.affine(float(positions[0]), distance), frame_uid)


def _scaling(head: "Dataset") -> float:
    """Return Gy per stored number, of a dose in gray that has not been weighted by anything."""
    if (unit := text(head, "DoseUnits")) != "GY":
        raise DicomError(f"expected DoseUnits GY, got {shown(unit)}; export the absolute dose")
    if (kind := text(head, "DoseType")) != "PHYSICAL":
        raise DicomError(f"expected DoseType PHYSICAL, got {shown(kind)}; export the physical dose")
    scaling = number(head, "DoseGridScaling")
    if scaling <= 0.0:
        raise DicomError(f"expected a positive DoseGridScaling, got {scaling:g}")
    return scaling


def _frame_positions_mm(head: "Dataset", plane: Plane, frames: int) -> Float64[np.ndarray, "frame"]:
    """Return each frame's z.

    Offsets begin at 0 and run along the image's normal, or they are themselves the z of the frames; the standard
    allows both and tells them apart by the first one (PS3.3, C.8.8.3.2).
    """
    offsets = numbers(head, "GridFrameOffsetVector", count=frames)
    start = float(plane.position[2])
    if abs(offsets[0]) <= _SAME_PLACE_MM:
        return start + offsets * plane.signs[0] * plane.signs[1]
    if abs(offsets[0] - start) <= _SAME_PLACE_MM:
        return offsets
    message = "expected a GridFrameOffsetVector that begins with 0 or with the z of ImagePositionPatient"
    raise DicomError(f"{message} ({start:g} mm), got {offsets[0]:g} mm")

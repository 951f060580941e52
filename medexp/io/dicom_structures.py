"""RTSTRUCT: structures as closed polygons in world millimeters."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from jaxtyping import Float64

from medexp.errors import CaseError
from medexp.io.dicom import DicomError, integer, items, label, numbers, parse, shown, text, uid
from medexp.io.dicom_geometry import RAS_FROM_LPS
from medexp.io.nifti import RawFile

if TYPE_CHECKING:
    from pydicom import Dataset

_CLOSED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}
_PLANAR_MM = 0.01

Contour: TypeAlias = Float64[np.ndarray, "_ 3"]  # each has as many points as it likes


@dataclass(frozen=True, eq=False)
class RtStructure:
    """One region of interest.

    Attributes:
        name: As the planner wrote it.
        contours: Closed axial polygons in RAS+ mm; several on one slice are combined by the even-odd rule.
        number: The ROI's in its structure set.
    """

    name: str
    contours: tuple[Contour, ...]
    number: int


@dataclass(frozen=True, eq=False)
class RtStructureSet:
    """The structures of one file that lie in one frame of reference; `foreign` are the names of those in another."""

    structures: tuple[RtStructure, ...]
    foreign: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_structures(file: RawFile, *, frame_of_reference_uid: str) -> RtStructureSet:
    """Return the structures that were drawn in a frame of reference; those of another one become warnings.

    Points and open lines are no regions and are left out.

    Raises:
        CaseError: Contours cannot be used, or all lie in another frame; all reasons are listed.
    """
    try:
        return _structures(parse(file), frame_of_reference_uid)
    except DicomError as error:
        raise CaseError("\n".join(f"{file.path}: {reason}" for reason in str(error).split("\n"))) from error


def _structures(dataset: "Dataset", frame_uid: str) -> RtStructureSet:
    contours = {integer(item, "ReferencedROINumber"): item for item in items(dataset, "ROIContourSequence")}
    regions = items(dataset, "StructureSetROISequence")
    structures, foreign, warnings, reasons = [], [], [], []
    for region in regions:
        number, name = integer(region, "ROINumber"), label(region, "ROIName")
        if frame_uid and (found := uid(region, "ReferencedFrameOfReferenceUID")) and found != frame_uid:
            warnings.append(f"structure {shown(name)} lies in another frame of reference than the CT and is left out")
            foreign.append(name)
            continue
        try:
            polygons, oddities = _polygons(contours[number]) if number in contours else ((), ())
        except DicomError as error:
            reasons.append(f"structure {shown(name)}: {error}")
            continue
        structures.append(RtStructure(name, polygons, number))
        warnings += [f"structure {shown(name)}: {oddity}" for oddity in oddities]
    if reasons:
        raise DicomError("\n".join(reasons))
    if regions and not structures:
        raise DicomError("expected structures in the CT's frame of reference, got only ones in another frame")
    return RtStructureSet(tuple(structures), tuple(foreign), tuple(warnings))


def _polygons(item: "Dataset") -> tuple[tuple[Contour, ...], tuple[str, ...]]:
    polygons = []
    small = 0
    for contour in items(item, "ContourSequence"):
        if text(contour, "ContourGeometricType") not in _CLOSED:
            continue
        points = numbers(contour, "ContourData")
        if points.size % 3 or points.size // 3 != integer(contour, "NumberOfContourPoints", points.size // 3):
            found = f"{points.size} numbers for {integer(contour, 'NumberOfContourPoints', 0)} points"
            raise DicomError(f"expected three coordinates per point in ContourData, got {found}")
        polygon = points.reshape(-1, 3) * RAS_FROM_LPS
        if np.ptp(polygon[:, 2]) > _PLANAR_MM:
            message = f"expected contours in axial planes, got one from z = {polygon[:, 2].min():g}"
            raise DicomError(f"{message} to {polygon[:, 2].max():g} mm; draw the structure on axial slices")
        if len(polygon) < 3:
            small += 1
        else:
            polygons.append(polygon)
    oddities = (f"{small} contours of fewer than three points are left out",) if small else ()
    return tuple(polygons), oddities

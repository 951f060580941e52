"""CT series and RTSTRUCT of a patient made from a case."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Float64, Int16, Integer

from medexp.io.dicom_geometry import RAS_FROM_LPS
from medexp.io.dicom_objects import (
    CT_IMAGE,
    RT_STRUCTURE_SET,
    NewUids,
    PatientIdentity,
    add_decimals,
    add_image,
    item,
    new_instance,
    reference,
)
from medexp.io.dicom_structures import Contour

if TYPE_CHECKING:
    from pydicom import Dataset

_AIR_HU: Final = -1024
_STUDY: Final = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management
_COLORS: Final = ((255, 0, 0), (255, 165, 0), (160, 32, 240), (139, 69, 19), (255, 255, 0), (0, 128, 255), (0, 200, 0))


def ct_images(
    hu: Int16[np.ndarray, "i j k"],
    position: Float64[np.ndarray, "3"],
    spacing: Float64[np.ndarray, "3"],
    *,
    uids: NewUids,
    identity: PatientIdentity,
) -> "list[Dataset]":
    """Return one image per slice of a volume whose axes grow to the left, the back and the head."""
    stored, intercept = _stored(hu)
    slices = []
    for k in range(hu.shape[2]):
        dataset = new_instance("ct", CT_IMAGE, "CT", uids=uids, identity=identity)
        dataset.SOPInstanceUID = uids.of("ct", str(k))
        place = position + np.array([0.0, 0.0, k * spacing[2]])
        add_image(dataset, stored[:, :, k].T, position=place, spacing=spacing)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.InstanceNumber = k + 1
        dataset.AcquisitionNumber = None
        dataset.KVP = None
        dataset.PatientPosition = "HFS"
        dataset.RescaleIntercept, dataset.RescaleSlope = str(intercept), "1"
        dataset.RescaleType = "HU"
        slices.append(dataset)
    return slices


def _stored(hu: Int16[np.ndarray, "i j k"]) -> tuple[Integer[np.ndarray, "i j k"], int]:
    """Return unsigned numbers above an intercept, as scanners store them; signed ones where air lies below it."""
    if hu.min() < _AIR_HU:
        return hu, 0
    return (hu.astype(np.int32) - _AIR_HU).astype(np.uint16), _AIR_HU


def structure_set(
    outlines: Mapping[str, Sequence[Contour]],
    images: Sequence[tuple[str, float]],
    *,
    uids: NewUids,
    identity: PatientIdentity,
) -> "Dataset":
    """Return structures drawn on images, which are given by UID and z."""
    dataset = new_instance("structures", RT_STRUCTURE_SET, "RTSTRUCT", uids=uids, identity=identity)
    dataset.StructureSetLabel = "medexp"
    dataset.StructureSetDate, dataset.StructureSetTime = "", ""
    series = item(
        SeriesInstanceUID=uids.of("ct series"),
        ContourImageSequence=[reference(CT_IMAGE, image) for image, _ in images],
    )
    study = reference(_STUDY, uids.of("study"), RTReferencedSeriesSequence=[series])
    dataset.ReferencedFrameOfReferenceSequence = [
        item(FrameOfReferenceUID=uids.of("frame"), RTReferencedStudySequence=[study])
    ]
    numbered = list(enumerate(outlines.items(), start=1))
    dataset.StructureSetROISequence = [
        item(
            ROINumber=number,
            ReferencedFrameOfReferenceUID=uids.of("frame"),
            ROIName=name,
            ROIGenerationAlgorithm="",
        )
        for number, (name, _) in numbered
    ]
    dataset.ROIContourSequence = [_region(number, contours, images) for number, (_, contours) in numbered]
    dataset.RTROIObservationsSequence = [
        item(
            ObservationNumber=number,
            ReferencedROINumber=number,
            RTROIInterpretedType="PTV" if name.startswith("PTV") else "ORGAN",
            ROIInterpreter="",
        )
        for number, (name, _) in numbered
    ]
    return dataset


def _region(number: int, contours: Sequence[Contour], images: Sequence[tuple[str, float]]) -> "Dataset":
    region = item(ROIDisplayColor=list(_COLORS[number % len(_COLORS)]), ReferencedROINumber=number)
    if contours:
        region.ContourSequence = [_contour(contour, images) for contour in contours]
    return region


def _contour(contour: Contour, images: Sequence[tuple[str, float]]) -> "Dataset":
    nearest, _ = min(images, key=lambda image: abs(image[1] - float(contour[0, 2])))
    outline = item(
        ContourImageSequence=[reference(CT_IMAGE, nearest)],
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=len(contour),
    )
    add_decimals(outline, "ContourData", contour * RAS_FROM_LPS)
    return outline

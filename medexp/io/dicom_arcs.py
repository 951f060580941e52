"""The RTPLAN of a patient made from a case: two arcs whose leaves follow the target."""

import re
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Bool, Float32, Float64, Num

from medexp.io.dicom_geometry import RAS_FROM_LPS
from medexp.io.dicom_objects import (
    RT_PLAN,
    RT_STRUCTURE_SET,
    NewUids,
    PatientIdentity,
    add_decimals,
    decimal,
    decimals,
    item,
    new_instance,
    reference,
)
from medexp.io.dose_case import DoseCase

if TYPE_CHECKING:
    from pydicom import Dataset

_TARGET_DOSE: Final = re.compile(r"PTV(\d+(?:\.\d+)?)")
_LEAF_PAIRS: Final = 60
_FIELD_MM: Final = 400.0
_MARGIN_MM: Final = 5.0
_CONTROL_POINTS: Final = 46  # of an arc: every 8 degrees
_ARCS_DEG: Final = ((181.0, 179.0, "CW"), (179.0, 181.0, "CC"))
_MONITOR_UNITS: Final = 300.0


def arc_plan(case: DoseCase, *, fractions: int, uids: NewUids, identity: PatientIdentity) -> "Dataset":
    """Return a plan with the prescriptions that the targets' names tell, and the case's leaves if it has some."""
    dataset = new_instance("plan", RT_PLAN, "RTPLAN", uids=uids, identity=identity)
    dataset.RTPlanLabel, dataset.RTPlanGeometry = "medexp", "PATIENT"
    dataset.RTPlanDate, dataset.RTPlanTime = "", ""
    dataset.DoseReferenceSequence = [
        item(
            DoseReferenceNumber=number,
            DoseReferenceStructureType="SITE",
            DoseReferenceDescription=name,
            DoseReferenceType="TARGET",
            TargetPrescriptionDose=decimal(dose),
        )
        for number, (name, dose) in enumerate(_targets(case).items(), start=1)
    ]
    center = _center(case)
    beams = [_beam(index, case, center) for index in range(1, len(_ARCS_DEG) + 1)]
    share = decimal(case.prescription_gy / fractions / len(beams))
    dataset.FractionGroupSequence = [
        item(
            FractionGroupNumber=1,
            NumberOfFractionsPlanned=fractions,
            NumberOfBeams=len(beams),
            NumberOfBrachyApplicationSetups=0,
            ReferencedBeamSequence=[
                item(BeamDose=share, BeamMeterset=decimal(_MONITOR_UNITS), ReferencedBeamNumber=beam.BeamNumber)
                for beam in beams
            ],
        )
    ]
    dataset.BeamSequence = beams
    dataset.PatientSetupSequence = [item(PatientSetupNumber=1, PatientPosition="HFS")]
    dataset.ReferencedStructureSetSequence = [reference(RT_STRUCTURE_SET, uids.of("structures"))]
    return dataset


def _targets(case: DoseCase) -> dict[str, float]:
    """Return the prescriptions that the targets' names tell, up to the highest, which the case tells."""
    named = {name: float(found[1]) for name in case.masks if (found := _TARGET_DOSE.fullmatch(name))}
    lower = {name: dose for name, dose in named.items() if dose < case.prescription_gy}
    highest = next((name for name, dose in named.items() if dose == case.prescription_gy), "Target")
    return {highest: case.prescription_gy, **lower}


def _center(case: DoseCase) -> Float64[np.ndarray, "3"]:
    """Return the isocenter in RAS+: the middle of the highest target, else of the grid."""
    name = next(iter(_targets(case)))
    voxels = np.argwhere(case.masks[name]) if name in case.masks else np.empty((0, 3))
    middle = voxels.mean(axis=0) if len(voxels) else (np.array(case.shape) - 1.0) / 2.0
    return case.affine[:3, :3] @ middle + case.affine[:3, 3]


def _beam(index: int, case: DoseCase, center: Float64[np.ndarray, "3"]) -> "Dataset":
    start, stop, direction = _ARCS_DEG[index - 1]
    leaves_a, leaves_b = (case.mlc.get(f"beam{index}_mlc_{bank}") for bank in "ab")
    num_points = _CONTROL_POINTS if leaves_a is None else len(leaves_a)
    sweep = (stop - start) % 360.0 if direction == "CW" else -((start - stop) % 360.0)
    angles = (start + sweep * np.linspace(0.0, 1.0, num_points)) % 360.0
    if leaves_a is None or leaves_b is None:
        leaves_a, leaves_b = _aperture(case, center, angles)
    leaves = np.concatenate([leaves_a, leaves_b], axis=1)
    num_pairs = leaves_a.shape[1]
    boundaries = np.linspace(-_FIELD_MM / 2, _FIELD_MM / 2, num_pairs + 1)
    return item(
        BeamNumber=index,
        BeamName=f"Arc {index}",
        BeamType="DYNAMIC",
        RadiationType="PHOTON",
        TreatmentMachineName="",
        PrimaryDosimeterUnit="MU",
        SourceAxisDistance="1000",
        TreatmentDeliveryType="TREATMENT",
        BeamLimitingDeviceSequence=[
            item(
                RTBeamLimitingDeviceType="MLCX",
                NumberOfLeafJawPairs=num_pairs,
                LeafPositionBoundaries=decimals(boundaries),
            )
        ],
        ReferencedPatientSetupNumber=1,
        NumberOfWedges=0,
        NumberOfCompensators=0,
        NumberOfBoli=0,
        NumberOfBlocks=0,
        FinalCumulativeMetersetWeight="1",
        NumberOfControlPoints=num_points,
        ControlPointSequence=[
            _control_point(point, angles, leaves, direction=direction, center=center) for point in range(num_points)
        ],
    )


def _control_point(
    point: int,
    angles: Float64[np.ndarray, " point"],
    leaves: Float32[np.ndarray, "point leaf"],
    *,
    direction: str,
    center: Float64[np.ndarray, "3"],
) -> "Dataset":
    last = len(angles) - 1
    dataset = item(
        ControlPointIndex=point,
        CumulativeMetersetWeight=decimal(point / max(last, 1)),
        GantryAngle=decimal(angles[point]),
        GantryRotationDirection=direction if point < last else "NONE",
        BeamLimitingDevicePositionSequence=[item(RTBeamLimitingDeviceType="MLCX")],
    )
    add_decimals(dataset.BeamLimitingDevicePositionSequence[0], "LeafJawPositions", leaves[point])
    if point == 0:  # what does not change is said once
        dataset.NominalBeamEnergy = "6"
        dataset.BeamLimitingDeviceAngle, dataset.BeamLimitingDeviceRotationDirection = "0", "NONE"
        dataset.PatientSupportAngle, dataset.PatientSupportRotationDirection = "0", "NONE"
        dataset.TableTopEccentricAngle, dataset.TableTopEccentricRotationDirection = "0", "NONE"
        dataset.TableTopVerticalPosition = dataset.TableTopLongitudinalPosition = None
        dataset.TableTopLateralPosition = None
        dataset.IsocenterPosition = decimals(center * RAS_FROM_LPS)
    return dataset


def _aperture(
    case: DoseCase, center: Float64[np.ndarray, "3"], angles: Float64[np.ndarray, " point"]
) -> tuple[Float32[np.ndarray, "point leaf"], Float32[np.ndarray, "point leaf"]]:
    """Return leaves that leave open what a parallel beam from each angle sees of the highest target, and a margin."""
    banks = np.zeros((2, len(angles), _LEAF_PAIRS), np.float32)
    name = next(iter(_targets(case)))
    voxels = _border(case.masks[name]) if name in case.masks else np.empty((0, 3))
    if not len(voxels):
        return banks[0], banks[1]
    x, y, z = (voxels @ case.affine[:3, :3].T + case.affine[:3, 3] - center).T * RAS_FROM_LPS[:, None]
    leaf = np.clip((z / _FIELD_MM + 0.5) * _LEAF_PAIRS, 0, _LEAF_PAIRS - 1).astype(int)
    for point, angle in enumerate(np.deg2rad(angles)):
        across = x * np.cos(angle) + y * np.sin(angle)  # IEC 61217: the gantry turns in the plane of x and y
        low, high = np.full(_LEAF_PAIRS, np.inf), np.full(_LEAF_PAIRS, -np.inf)
        np.minimum.at(low, leaf, across)
        np.maximum.at(high, leaf, across)
        is_open = low <= high
        banks[0, point, is_open] = low[is_open] - _MARGIN_MM
        banks[1, point, is_open] = high[is_open] + _MARGIN_MM
    return banks[0], banks[1]


def _border(mask: Bool[np.ndarray, "i j k"]) -> Num[np.ndarray, "voxel 3"]:
    """Return the voxels of a mask that bound it in their slice: what is seen from the side has its edge there."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return np.argwhere(mask & ~inner)

"""RTPLAN: prescription, fractions, beams and the positions of their leaves."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from jaxtyping import Float32, Float64

from medexp.errors import CaseError
from medexp.io.dicom import DicomError, integer, items, label, number, numbers, parse, text
from medexp.io.nifti import RawFile

if TYPE_CHECKING:
    from pydicom import Dataset

Source = Literal["target prescription", "beam doses", "default"]

DEFAULT_PRESCRIPTION_GY: Final = 70.0
DEFAULT_FRACTIONS: Final = 28
_LIKELY_CGY: Final = 200.0  # no course prescribes more Gy, every course more cGy
_LEAVES: Final = ("MLCX", "MLCY", "MLCX1", "MLCX2")


@dataclass(frozen=True, eq=False)
class RtBeam:
    """A treatment beam.

    Attributes:
        number: As other objects refer to it.
        name: As the planner wrote it.
        gantry_deg: Per control point.
        meterset_share: Share of the beam's meterset that has been given at each control point.
        leaves_a: Bank A, the first half of the leaf positions (X1 or Y1, toward the negative side), mm at isocenter;
            None without leaves. Varian calls this bank B.
        leaves_b: Bank B, the second half (X2 or Y2).
    """

    number: int
    name: str
    gantry_deg: Float64[np.ndarray, " point"]
    meterset_share: Float64[np.ndarray, " point"]
    leaves_a: Float32[np.ndarray, "point leaf"] | None
    leaves_b: Float32[np.ndarray, "point leaf"] | None


@dataclass(frozen=True, eq=False)
class RtPlan:
    """What was prescribed and how it is delivered.

    `targets_gy` are the prescriptions to targets by their description, `prescription_gy` the highest.
    """

    prescription_gy: float
    source: Source
    fractions: int
    targets_gy: tuple[tuple[str, float], ...] = ()
    beams: tuple[RtBeam, ...] = ()
    warnings: tuple[str, ...] = ()

    def mlc(self) -> dict[str, Float32[np.ndarray, "point leaf"]]:
        """Return the leaf positions under the names of `DoseCase.mlc`; beams count from 1 in the plan's order."""
        banks: dict[str, Float32[np.ndarray, "point leaf"]] = {}
        for index, beam in enumerate(self.beams, start=1):
            if beam.leaves_a is not None and beam.leaves_b is not None:
                banks |= {f"beam{index}_mlc_a": beam.leaves_a, f"beam{index}_mlc_b": beam.leaves_b}
        return banks


def default_plan() -> RtPlan:
    """Return what is assumed where no plan says otherwise."""
    message = f"no prescription is known; {DEFAULT_PRESCRIPTION_GY:g} Gy in {DEFAULT_FRACTIONS} fractions are assumed"
    return RtPlan(DEFAULT_PRESCRIPTION_GY, "default", DEFAULT_FRACTIONS, warnings=(message,))


def read_plan(file: RawFile) -> RtPlan:
    """Return a plan.

    Raises:
        CaseError: It cannot be used; the message names file and reason.
    """
    try:
        return _plan(parse(file))
    except DicomError as error:
        raise CaseError(f"{file.path}: {error}") from error


def _plan(dataset: "Dataset") -> RtPlan:
    targets = _targets(dataset)
    groups = items(dataset, "FractionGroupSequence")
    planned = sum(integer(group, "NumberOfFractionsPlanned", 0) for group in groups)
    beam_gy = sum(_fraction_gy(group) * integer(group, "NumberOfFractionsPlanned", 0) for group in groups)
    beams = _beams(dataset, groups)
    assumed = default_plan()
    source: Source = "default"
    warnings: tuple[str, ...] = ()
    if targets:
        prescription, source = max(dose for _, dose in targets), "target prescription"
    elif beam_gy > 0.0:
        prescription, source = beam_gy, "beam doses"
        warnings = (f"the plan names no target prescription; its beams' doses sum up to {beam_gy:g} Gy",)
    else:
        prescription, source, warnings = assumed.prescription_gy, "default", assumed.warnings
    if prescription > _LIKELY_CGY:
        raise DicomError(f"expected a prescription in Gy, got {prescription:g}; it looks like cGy")
    if planned < 1 and source != "default":
        planned = assumed.fractions
        warnings += (f"the plan does not say its number of fractions; {planned} are assumed",)
    return RtPlan(prescription, source, max(planned, 0) or assumed.fractions, targets, beams, warnings)


def _targets(dataset: "Dataset") -> tuple[tuple[str, float], ...]:
    found = []
    for item in items(dataset, "DoseReferenceSequence"):
        if text(item, "DoseReferenceType") == "TARGET" and text(item, "TargetPrescriptionDose"):
            dose = number(item, "TargetPrescriptionDose")
            if dose < 0.0:
                raise DicomError(f"expected a TargetPrescriptionDose of 0 or more, got {dose:g} Gy")
            if dose > 0.0:
                found.append((label(item, "DoseReferenceDescription"), dose))
    return tuple(found)


def _fraction_gy(group: "Dataset") -> float:
    beams = items(group, "ReferencedBeamSequence")
    return math.fsum(number(beam, "BeamDose") for beam in beams if text(beam, "BeamDose"))


def _beams(dataset: "Dataset", groups: "list[Dataset]") -> tuple[RtBeam, ...]:
    """Return the beams that treat: not those for setup, which get no meterset where others do."""
    referenced = [beam for group in groups for beam in items(group, "ReferencedBeamSequence")]
    metered = {integer(beam, "ReferencedBeamNumber") for beam in referenced if text(beam, "BeamMeterset")}
    treating = [
        item
        for item in items(dataset, "BeamSequence")
        if text(item, "TreatmentDeliveryType") in {"TREATMENT", "CONTINUATION", ""}
    ]
    return tuple(_beam(item) for item in treating if not metered or integer(item, "BeamNumber") in metered)


def _beam(item: "Dataset") -> RtBeam:
    points = items(item, "ControlPointSequence")
    total = number(item, "FinalCumulativeMetersetWeight") if text(item, "FinalCumulativeMetersetWeight") else 1.0
    weights = _carried(points, "CumulativeMetersetWeight")
    leaves = _leaf_positions(points)
    first, second = (None, None) if leaves is None else np.split(leaves, 2, axis=1)
    share = weights / total if total > 0.0 else weights
    return RtBeam(
        integer(item, "BeamNumber"), label(item, "BeamName"), _carried(points, "GantryAngle"), share, first, second
    )


def _carried(points: "list[Dataset]", keyword: str) -> Float64[np.ndarray, " point"]:
    """Return a value per control point; the standard repeats it only where it changes. NaN before the first."""
    values = np.full(len(points), np.nan)
    latest = np.nan
    for index, point in enumerate(points):
        latest = number(point, keyword) if text(point, keyword) else latest
        values[index] = latest
    return values


def _leaf_positions(points: "list[Dataset]") -> Float32[np.ndarray, "point leaf"] | None:
    """Return both banks' positions per control point, of the first layer where there are two; None without leaves."""
    kinds = {
        text(device, "RTBeamLimitingDeviceType")
        for point in points
        for device in items(point, "BeamLimitingDevicePositionSequence")
    }
    kind = next((name for name in _LEAVES if name in kinds), None)
    rows = []
    latest: Float64[np.ndarray, " leaf"] | None = None
    for point in points if kind else ():
        for device in items(point, "BeamLimitingDevicePositionSequence"):
            if text(device, "RTBeamLimitingDeviceType") == kind:
                latest = numbers(device, "LeafJawPositions")
        if latest is not None:
            rows.append(latest)
    sizes = {row.size for row in rows}
    if not rows:
        return None
    if len(rows) != len(points) or len(sizes) != 1 or sizes.pop() % 2:
        raise DicomError("expected the same pairs of leaves at every control point, got different ones")
    return np.stack(rows).astype(np.float32)

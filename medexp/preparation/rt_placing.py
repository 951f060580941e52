"""A DICOM-RT patient -> CT, structures and dose on the grid of the store."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Float32, Int16, UInt8

from medexp.errors import CaseError
from medexp.geometry.contours import coverage_of, require_on_grid
from medexp.geometry.regridding import resample_to
from medexp.io.dicom_rt import RtPatient
from medexp.io.dicom_structures import RtStructure
from medexp.io.dose_case import HALF, DoseCase
from medexp.metrics.clinical import constraint_vector
from medexp.preparation.dose_decoding import Interpolation, PlacedCase, ct_hash, truncation
from medexp.preparation.dose_grid import AIR_HU, DoseGrid, FixedGrid, VoxelGrid
from medexp.preparation.dose_quality import Losses
from medexp.preparation.structure_names import StructureNames

_ORDERS: Final[Mapping[Interpolation, int]] = {"linear": 1, "bspline": 3}

Regions = Mapping[str, Sequence[RtStructure]]  # by structure, the regions that people drew for it


def placed_patient(
    patient: RtPatient, *, names: StructureNames, grid: DoseGrid, interpolation: Interpolation
) -> PlacedCase:
    """Return a patient on the grid of the store.

    Contours are drawn on that grid itself, and the dose is interpolated onto it from its own, so that neither can
    shift against the other.

    Raises:
        CaseError: A required structure is missing, one reaches over the CT, or there is nothing to center the grid on.
    """
    source = VoxelGrid(_shape(patient.ct.hu), patient.ct.affine)
    regions, unmatched = _regions(patient, names)
    _require_in_frame(patient.foreign_structures, regions, names)
    names.require(regions, unmatched=unmatched)
    _require_on_grid(regions, source)
    on_ct = _drawn(regions, source)
    if isinstance(grid, FixedGrid):
        target = grid.lattice(source, on_ct)
        ct, amounts = _resampled_ct(patient, target), _drawn(regions, target)
    else:
        window = grid.window(source, on_ct)
        target = window.of(source)
        ct = window.cut(patient.ct.hu, fill=AIR_HU)
        amounts = {name: window.cut(amount, fill=0) for name, amount in on_ct.items()}
    masks = {name: amount >= HALF for name, amount in amounts.items()}
    present = [name for name, mask in masks.items() if mask.any()]
    case = DoseCase(
        name="patient",
        ct_hu=ct,
        affine=target.affine,
        masks={name: masks[name] for name in present},
        coverage={name: amounts[name] for name in present},
        prescription_gy=patient.plan.prescription_gy,
        dose_gy=_dose(patient, target, interpolation),
        constraints=constraint_vector(present),
        metadata=_metadata(patient, regions, interpolation),
        warnings=patient.warnings,
        mlc=patient.plan.mlc(),
    )
    losses = Losses(truncation(target, source, on_ct), _uncovered(patient, source, on_ct))
    return PlacedCase(case, losses, ct_hash(patient.ct.hu), tuple(unmatched))


def _regions(patient: RtPatient, names: StructureNames) -> tuple[dict[str, list[RtStructure]], list[str]]:
    """Return the regions of each structure, as far as anything is drawn, and the names that belong to none."""
    drawn = [region for region in patient.structures if region.contours]
    by_name: defaultdict[str, list[RtStructure]] = defaultdict(list)
    for region in drawn:
        by_name[region.name].append(region)
    groups, unmatched = names.group(by_name)
    return {name: [region for own in members for region in by_name[own]] for name, members in groups.items()}, unmatched


def _require_in_frame(foreign: Sequence[str], regions: Regions, names: StructureNames) -> None:
    """Refuse a patient of whom a required structure is drawn in another frame of reference only.

    Raises:
        CaseError: Names all of them.
    """
    elsewhere, _ = names.group(foreign)
    missing = [name for name in names.required if name in elsewhere and name not in regions]
    if missing:
        message = f"{', '.join(missing)}: expected contours in the CT's frame of reference, got them in another one"
        raise CaseError(f"{message}; export the structure set that was drawn on this CT")


def _require_on_grid(regions: Regions, grid: VoxelGrid) -> None:
    reasons = []
    for name, members in regions.items():
        for region in members:
            try:
                require_on_grid(region.contours, grid.affine, grid.shape)
            except CaseError as error:
                reasons.append(f"{name}: {error}")
    if reasons:
        raise CaseError("\n".join(reasons))


def _drawn(regions: Regions, grid: VoxelGrid) -> dict[str, UInt8[np.ndarray, "i j k"]]:
    """Return how much of each voxel a structure fills: the union of its regions."""
    amounts: dict[str, UInt8[np.ndarray, "i j k"]] = {}
    for name, members in regions.items():
        for region in members:
            share = coverage_of(region.contours, grid.affine, grid.shape)
            amounts[name] = share if name not in amounts else np.maximum(amounts[name], share)
    return amounts


def _resampled_ct(patient: RtPatient, target: VoxelGrid) -> Int16[np.ndarray, "i j k"]:
    ct = patient.ct
    values = resample_to(ct.hu, ct.affine, target.affine, target.shape, order=1, fill=float(AIR_HU))
    return np.rint(values).astype(np.int16)


def _dose(patient: RtPatient, target: VoxelGrid, interpolation: Interpolation) -> Float32[np.ndarray, "i j k"] | None:
    if patient.dose is None:
        return None
    dose = patient.dose
    return resample_to(dose.dose_gy, dose.affine, target.affine, target.shape, order=_ORDERS[interpolation], fill=0.0)


def _uncovered(
    patient: RtPatient, source: VoxelGrid, amounts: Mapping[str, UInt8[np.ndarray, "i j k"]]
) -> dict[str, float]:
    """Return the share of each structure beyond the centers of the RTDOSE's outermost voxels, where it has no value."""
    if patient.dose is None:
        return {}
    grid = VoxelGrid(_shape(patient.dose.dose_gy), patient.dose.affine)
    return {name: grid.share_outside(amount, source, reach_voxels=0.0) for name, amount in amounts.items()}


def _metadata(patient: RtPatient, regions: Regions, interpolation: Interpolation) -> dict[str, Any]:
    """Return what a plan says that no array holds; nothing in it names the patient."""
    dose = patient.dose
    return {
        "source": "dicom_rt",
        "references": patient.references.to_json(),
        "fractions": patient.plan.fractions,
        "prescription_source": patient.plan.source,
        "targets_gy": sorted({dose_gy for _, dose_gy in patient.plan.targets_gy}, reverse=True),
        "regions": {name: [region.name for region in members] for name, members in regions.items()},
        "dose_interpolation": None if dose is None else interpolation,
        "dose_spacing_mm": None if dose is None else list(VoxelGrid(_shape(dose.dose_gy), dose.affine).spacing_mm),
    }


def _shape(array: np.ndarray) -> tuple[int, int, int]:
    i, j, k = array.shape
    return (i, j, k)

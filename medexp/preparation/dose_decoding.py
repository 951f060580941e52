"""From a case's bytes to a `DoseCase` on the grid of the store, whatever the format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Num, Shaped

from medexp.errors import CaseError
from medexp.io.dose_case import FULL, DoseCase
from medexp.io.nifti import RawFile
from medexp.preparation.dose_grid import AIR_HU, Amounts, DoseGrid, FixedGrid, VoxelGrid, Window
from medexp.preparation.dose_quality import Losses
from medexp.preparation.entry import channel_hashes
from medexp.preparation.structure_names import StructureNames
from medexp.preparation.verification import RawContent

DoseFormat: TypeAlias = Literal["dicom_rt", "openkbp", "npz"]
Interpolation: TypeAlias = Literal["bspline", "linear"]

DOSE = "dose"  # the key of a case's label among its files


@dataclass(frozen=True, eq=False)
class PlacedCase:
    """A case on the grid of the store.

    `ct_sha256` is of the CT as the files hold it, None if it is constant. `unmatched` are names in the files that are
    no structures of the dataset.
    """

    case: DoseCase
    losses: Losses
    ct_sha256: str | None
    unmatched: tuple[str, ...] = ()


def decode(
    content: RawContent,
    *,
    data_format: DoseFormat,
    names: StructureNames,
    grid: DoseGrid,
    interpolation: Interpolation,
) -> PlacedCase:
    """Return the case in a folder's or a file's bytes.

    Raises:
        CaseError: The files hold no usable case; all reasons that one look finds are in the message.
    """
    files = dict(content.images)
    if content.label is not None:
        files.setdefault(DOSE, content.label)
    reader: Callable[..., PlacedCase] = {"dicom_rt": _dicom, "openkbp": _openkbp, "npz": _npz}[data_format]
    return reader(files, names=names, grid=grid, interpolation=interpolation)


def _dicom(
    files: Mapping[str, RawFile], *, names: StructureNames, grid: DoseGrid, interpolation: Interpolation
) -> PlacedCase:
    from medexp.io.dicom_rt import read_patient
    from medexp.preparation.rt_placing import placed_patient

    patient = read_patient(list(files.values()))
    return placed_patient(patient, names=names, grid=grid, interpolation=interpolation)


def _openkbp(
    files: Mapping[str, RawFile], *, names: StructureNames, grid: DoseGrid, interpolation: Interpolation
) -> PlacedCase:
    from medexp.io.openkbp import decode_patient

    folder = next(iter(files.values())).path.parent.name
    case = decode_patient(files, name=folder, structures=names.structures)
    names.require(case.masks)
    return placed(case, grid)


def _npz(
    files: Mapping[str, RawFile], *, names: StructureNames, grid: DoseGrid, interpolation: Interpolation
) -> PlacedCase:
    from medexp.io.dose_npz import read_case_npz

    case = read_case_npz(next(iter(files.values())).path, structures=names.structures)
    groups, unmatched = names.group(case.masks)
    names.require(groups, unmatched=unmatched)
    masks = {name: np.any([case.masks[member] for member in members], axis=0) for name, members in groups.items()}
    shares = {
        name: np.max([case.coverage[member] for member in members], axis=0)
        for name, members in groups.items()
        if all(member in case.coverage for member in members)
    }
    return replace(placed(replace(case, masks=masks, coverage=shares), grid), unmatched=tuple(unmatched))


def placed(case: DoseCase, grid: DoseGrid) -> PlacedCase:
    """Return a case of masks on a window of its own grid.

    Raises:
        CaseError: The grid cannot be had from masks, or there is nothing to center it on.
    """
    source = VoxelGrid(case.shape, case.affine)
    amounts = {name: case.coverage.get(name, mask.view(np.uint8) * np.uint8(FULL)) for name, mask in case.masks.items()}
    window = window_of(grid, source, amounts)
    target = window.of(source)
    cut = replace(
        case,
        affine=target.affine,
        ct_hu=window.cut(case.ct_hu, fill=AIR_HU),
        masks={name: window.cut(mask, fill=0) for name, mask in case.masks.items()},
        coverage={name: window.cut(amount, fill=0) for name, amount in case.coverage.items()},
        dose_gy=None if case.dose_gy is None else window.cut(case.dose_gy, fill=0),
        possible_dose=None if case.possible_dose is None else window.cut(case.possible_dose, fill=0),
    )
    return PlacedCase(cut, Losses(truncation(target, source, amounts), {}), ct_hash(case.ct_hu))


def window_of(grid: DoseGrid, source: VoxelGrid, amounts: Amounts) -> Window:
    """Return the window of a grid that moves whole voxels.

    Raises:
        CaseError: The grid is laid anew, which needs contours.
    """
    if isinstance(grid, FixedGrid):
        raise CaseError("expected contours to draw on dataset.grid, got masks; use a grid of the files' own voxels")
    return grid.window(source, amounts)


def truncation(
    target: VoxelGrid, source: VoxelGrid, amounts: Mapping[str, Num[np.ndarray, "i j k"]]
) -> dict[str, float]:
    """Return the share of each structure that lies outside of the target grid."""
    return {name: target.share_outside(amount, source) for name, amount in amounts.items()}


def ct_hash(ct_hu: Shaped[np.ndarray, "i j k"]) -> str | None:
    """Return a hash of a CT's voxels, by which the same CT is found under another name."""
    [digest] = channel_hashes(np.ascontiguousarray(ct_hu)[None])
    return digest

"""The arrays of a dose case's `.npz`, each read, checked and turned from (Y, X, Z) to [i, j, k] by itself.

Which keys there are: `medexp.io.dose_npz`. What does not fit is a `CaseError` that names file and key.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Int16, Shaped, UInt8

from medexp.errors import CaseError
from medexp.io.dose_case import HALF
from medexp.io.dose_metadata import DoseMetadata
from medexp.io.dose_units import guessed_ct_unit
from medexp.io.npz import ArrayHeader, read_keys

VMAT_STRUCTURES: Final = (
    "PTV70",
    "PTV56",
    "Prostate",
    "Rectum",
    "Bladder",
    "Femur_L",
    "Femur_R",
    "Bowel",
    "PTV50.4",  # since version 2.4
)
NUM_CONSTRAINTS = 13
_LEAST_STRUCTURES = 8
_LARGEST = 1e9  # of any number; beyond, single precision would turn it into infinity before long
CHANNELS = ("masks", "masks_sdf", "coverage")
MLC = re.compile(r"beam[0-9]{1,3}_mlc_[ab]")


def channel_names(
    path: Path, headers: Mapping[str, ArrayHeader], metadata: DoseMetadata, structures: Sequence[str] | None
) -> tuple[tuple[str, ...], list[str]]:
    """Return the channels' names: the file's own, else those asked for, else the VMAT system's."""
    counts = {key: headers[key].shape[0] for key in CHANNELS if key in headers}
    count = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        raise CaseError(f"{path}: expected as many channels in each of {', '.join(counts)}, got {counts}")
    warnings: list[str] = []
    names = metadata.structures or (tuple(structures) if structures is not None else None)
    if names is None:
        if not _LEAST_STRUCTURES <= count <= len(VMAT_STRUCTURES):
            message = f"expected 8 or 9 channels where no names are said, got {count}"
            raise CaseError(f"{path}: masks: {message}; give the structures' names")
        names = VMAT_STRUCTURES[:count]
        warnings.append(f"the file does not tell its structures: {', '.join(names)} are assumed")
    if len(names) != count or len(set(names)) != count:
        raise CaseError(f"{path}: masks: expected a channel for each of {list(names)}, got {count}")
    return names, warnings


def read_ct(path: Path, metadata: DoseMetadata) -> tuple[Int16[np.ndarray, "i j k"], list[str]]:
    """Return the CT in HU, with a warning where its unit was told from its values."""
    values = own_order(read_keys(path, ["ct"])["ct"])
    least, largest = require_range(path, "ct", values)
    if metadata.ct_unit is not None:
        return metadata.ct_unit.to_hu(values), []
    try:
        unit, warning = guessed_ct_unit(least, largest, is_integer=values.dtype.kind in "iu")
    except CaseError as error:
        raise CaseError(f"{path}: ct: {error}") from error
    return unit.to_hu(values), [warning]


def read_masks(path: Path, names: Sequence[str], *, key: str) -> dict[str, Bool[np.ndarray, "i j k"]]:
    """Return each structure's mask from `masks`, or from the sign of `masks_sdf`."""
    values = read_keys(path, [key])[key]
    least, largest = require_range(path, key, values)
    if key == "masks_sdf":
        return {name: own_order(channel < 0.0) for name, channel in zip(names, values, strict=True)}
    if least < 0 or largest > 1 or (values.dtype.kind == "f" and not np.isin(values, (0.0, 1.0)).all()):
        raise CaseError(f"{path}: masks: expected 0 and 1, got values from {least:g} to {largest:g}")
    return {name: own_order(channel != 0) for name, channel in zip(names, values, strict=True)}


def read_coverage(
    path: Path,
    names: Sequence[str],
    metadata: DoseMetadata,
    masks: Mapping[str, Bool[np.ndarray, "i j k"]],
) -> dict[str, UInt8[np.ndarray, "i j k"]]:
    """Return the share of each voxel inside, of the structures that the metadata name; it must fit the masks."""
    values = read_keys(path, ["coverage"])["coverage"]
    if values.dtype != np.uint8:
        raise CaseError(f"{path}: coverage: expected bytes, the share in 255ths, got {values.dtype}")
    found = {
        name: own_order(channel)
        for name, channel in zip(names, values, strict=True)
        if name in metadata.coverage and masks[name].any()
    }
    for name, share in found.items():
        if ((share >= HALF) != masks[name]).any():
            raise CaseError(f"{path}: {name}: expected masks to be 1 where coverage is at least {HALF}, got others")
    return found


def read_possible(path: Path) -> Bool[np.ndarray, "i j k"]:
    """Return where dose may be."""
    return own_order(read_keys(path, ["possible_dose"])["possible_dose"] != 0)


def read_constraints(path: Path) -> Float32[np.ndarray, " 13"]:
    """Return the protocol's values."""
    values = read_keys(path, ["constraints"])["constraints"]
    require_range(path, "constraints", values)
    return values.astype(np.float32)


def read_leaves(path: Path, headers: Mapping[str, ArrayHeader]) -> dict[str, Float32[np.ndarray, "point leaf"]]:
    """Return the leaf positions by key."""
    keys = [key for key in headers if MLC.fullmatch(key)]
    found = read_keys(path, keys)
    for key, array in found.items():
        if array.ndim != 2:
            raise CaseError(f"{path}: {key}: expected control points x leaves, got the shape {array.shape}")
        require_range(path, key, array)
    return {key: array.astype(np.float32) for key, array in found.items()}


def require_range(
    path: Path, key: str, values: Shaped[np.ndarray, "..."], *, least: float | None = None
) -> tuple[float, float]:
    """Return the smallest and the largest value after refusing NaN, infinity and what is below `least`."""
    if not values.size:
        return (0.0, 0.0)
    found = (float(values.min()), float(values.max()))
    if not np.abs(found).max() <= _LARGEST:  # also where it is NaN
        raise CaseError(f"{path}: {key}: expected finite numbers, got NaN, infinity or more than {_LARGEST:g}")
    if least is not None and found[0] < least:
        number = int((values < least).sum())
        raise CaseError(
            f"{path}: {key}: expected values of at least {least:g}, got {number} below, down to {found[0]:g}"
        )
    return found


def file_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape of [i, j, k] as (Y, X, Z)."""
    i, j, k = shape
    return (j, i, k)


def file_order(array: Shaped[np.ndarray, "i j k"]) -> Shaped[np.ndarray, "j i k"]:
    """Return an array of [i, j, k] as (Y, X, Z)."""
    return np.ascontiguousarray(array.transpose(1, 0, 2))


def own_order(array: Shaped[np.ndarray, "j i k"]) -> Shaped[np.ndarray, "i j k"]:
    """Return an array of (Y, X, Z) as [i, j, k]."""
    return np.ascontiguousarray(array.transpose(1, 0, 2))

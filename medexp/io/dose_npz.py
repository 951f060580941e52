"""Dose cases and predictions as `.npz` files with the documented keys of the VMAT system, arrays in (Y, X, Z).

| key | content |
| --- | --- |
| `ct` | float32, (HU clipped to -1000..3000) / 4000 + 0.5, so 0.25 to 1.25 |
| `dose` | float32, a fraction of the prescription; without a dose the key is missing |
| `masks` | uint8, 0 and 1, a channel per structure |
| `masks_sdf` | float32, signed distance / clip: -1 to 1, negative inside, +1 everywhere for an absent structure |
| `constraints` | float32, 13 values |
| `metadata` | JSON text: names of the channels, affine, prescription, how the arrays are scaled |
| `beam<K>_mlc_a`, `beam<K>_mlc_b` | float32, control points x leaves |
| `coverage`, `possible_dose` | uint8; ours |

Other programs' files have pickled metadata, which is never loaded: their units are told from the values, and what
cannot be told is refused. (Y, X, Z) is [j, i, k]: the two first axes change places at this edge and nowhere else.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Float32, Int16, Shaped, UInt8

from medexp.errors import CaseError
from medexp.geometry.distances import signed_distance_mm
from medexp.io.dose_case import HALF, DoseCase
from medexp.io.dose_metadata import MAX_BYTES, DoseMetadata, default_affine, json_of, parsed
from medexp.io.dose_units import NORMALIZED, PRESCRIPTION_GY, guessed_ct_unit, guessed_dose_unit, normalized_ct
from medexp.io.npz import ArrayHeader, read_headers, read_keys, write_npz

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
_VOLUMES = ("ct", "dose", "possible_dose")
_CHANNELS = ("masks", "masks_sdf", "coverage")
_MLC = re.compile(r"beam[0-9]{1,3}_mlc_[ab]")


def write_case_npz(
    path: Path,
    case: DoseCase,
    *,
    structures: Sequence[str],
    distance_clip_mm: float,
    distances_mm: Float[np.ndarray, "structure i j k"] | None = None,
    durable: bool = True,
) -> None:
    """Write a case. HU below -1000 and above 3000 are clipped; everything else reads back equal.

    Args:
        path: Ends in `.npz`; its name without the ending becomes the case's name when it is read.
        case: On the grid that predictions will be on.
        structures: The channels, in order; one that the case has not is written as absent.
        distance_clip_mm: Distances are stored as fractions of it.
        distances_mm: Signed, of every structure; None: computed from the masks.
        durable: Whether the bytes must be on the disk when this returns.

    Raises:
        CaseError: The case has a structure that is not among `structures`, or numbers that must not be written.
        StorageError: The file cannot be written.
    """
    metadata = DoseMetadata(
        structures=tuple(structures),
        affine=case.affine,
        prescription_gy=case.prescription_gy,
        ct_unit=NORMALIZED,
        dose_unit_gy=case.prescription_gy,
        coverage=tuple(name for name in structures if name in case.coverage),
        details=case.metadata,
        warnings=case.warnings,
    )
    arrays = case_arrays(case, structures=structures, distance_clip_mm=distance_clip_mm, distances_mm=distances_mm)
    if case.dose_gy is not None:
        arrays["dose"] = written_dose(path, "dose", case.dose_gy, unit_gy=case.prescription_gy)
    arrays["metadata"] = metadata.to_array(distance_clip_mm=distance_clip_mm)
    write_npz(path, arrays, durable=durable)


def case_arrays(
    case: DoseCase,
    *,
    structures: Sequence[str],
    distance_clip_mm: float,
    distances_mm: Float[np.ndarray, "structure i j k"] | None = None,
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Return what a model reads of a case, by the documented keys; neither dose nor metadata.

    Raises:
        CaseError: The case has a structure that is not among `structures`, or distances of another sign than masks.
    """
    unknown = [name for name in (*case.masks, *case.coverage) if name not in structures]
    if unknown:
        raise CaseError(f"{case.name}: expected structures among {list(structures)}, got also {unknown[0]!r}")
    masks = np.zeros((len(structures), *_file_shape(case.shape)), np.uint8)
    distances = np.ones(masks.shape, np.float32)
    for channel, name in enumerate(structures):
        if name not in case.masks:
            continue
        mask = case.masks[name]
        given = None if distances_mm is None else distances_mm[channel]
        masks[channel] = _file_order(mask)
        distances[channel] = _file_order(_fractions(case, mask, given, clip_mm=distance_clip_mm))
        if ((distances[channel] < 0.0) != masks[channel].view(np.bool_)).any():
            raise CaseError(f"{case.name}: {name}: expected distances below 0 exactly where its mask is 1")
    arrays: dict[str, Shaped[np.ndarray, "..."]] = {
        "ct": _file_order(normalized_ct(case.ct_hu)),
        "masks": masks,
        "masks_sdf": distances,
    }
    if case.constraints is not None:
        arrays["constraints"] = case.constraints
    if case.possible_dose is not None:
        arrays["possible_dose"] = _file_order(case.possible_dose).astype(np.uint8)
    if case.coverage:
        coverage = np.zeros(masks.shape, np.uint8)
        for name, share in case.coverage.items():
            coverage[list(structures).index(name)] = _file_order(share)
        arrays["coverage"] = coverage
    return arrays | dict(case.mlc)


def _fractions(
    case: DoseCase,
    mask: Bool[np.ndarray, "i j k"],
    given_mm: Float[np.ndarray, "i j k"] | None,
    *,
    clip_mm: float,
) -> Float32[np.ndarray, "i j k"]:
    distances = signed_distance_mm(mask, case.spacing_mm, clip_mm=clip_mm) if given_mm is None else given_mm
    return np.clip(distances.astype(np.float32) / np.float32(clip_mm), -1.0, 1.0)


def written_dose(
    path: Path, key: str, dose_gy: Float32[np.ndarray, "i j k"], *, unit_gy: float
) -> Float32[np.ndarray, "j i k"]:
    """Return a dose as it stands in a file, a fraction of `unit_gy` in (Y, X, Z).

    Raises:
        CaseError: It is not finite, or negative.
    """
    _require_range(path, key, dose_gy, least=0.0)
    return _file_order(dose_gy) / np.float32(unit_gy)


def read_case_npz(path: Path, *, structures: Sequence[str] | None = None) -> DoseCase:
    """Return the case in a file, ours or one of the VMAT system's.

    `masks_sdf` is not unpacked unless `masks` are missing.

    Args:
        path: Its name without the ending becomes the case's.
        structures: The names of the channels where the file does not say them; None: those of the VMAT system.

    Raises:
        CaseError: The file is damaged or hostile, arrays do not fit each other, or a unit cannot be told; names file
            and key.
    """
    headers = read_headers(path)
    require_shapes(path, headers, volumes=_VOLUMES)
    if "masks" not in headers and "masks_sdf" not in headers:
        raise CaseError(f"{path}: expected the key 'masks' or 'masks_sdf', got {', '.join(headers)}")
    metadata = read_metadata(path, headers)
    names, warnings = _channel_names(path, headers, metadata, structures)
    masks = _masks(path, names, key="masks" if "masks" in headers else "masks_sdf")
    coverage = _coverage(path, names, metadata, masks) if "coverage" in headers else {}
    ct, ct_warnings = _ct(path, metadata)
    prescription_gy, its_warnings = _prescription(metadata)
    warnings += [*ct_warnings, *its_warnings]
    case = DoseCase(
        name=path.stem,
        ct_hu=ct,
        affine=default_affine() if metadata.affine is None else metadata.affine,
        masks={name: mask for name, mask in masks.items() if mask.any()},
        prescription_gy=prescription_gy,
        coverage=coverage,
        possible_dose=_possible(path) if "possible_dose" in headers else None,
        constraints=_constraints(path) if "constraints" in headers else None,
        metadata=metadata.details,
        mlc=_leaves(path, headers),
    )
    if "dose" in headers:
        dose, dose_warnings = read_dose(path, "dose", metadata, prescription_gy=prescription_gy)
        _require_range(path, "dose", dose, least=0.0)
        case, warnings = replace(case, dose_gy=dose), warnings + dose_warnings
    return replace(case, warnings=(*metadata.warnings, *warnings))


def require_shapes(path: Path, headers: Mapping[str, ArrayHeader], *, volumes: Sequence[str]) -> None:
    """Refuse, before anything is unpacked, keys that are missing, pickled, not numbers, or on different grids.

    Args:
        path: Is named.
        headers: Of all keys.
        volumes: Keys of one volume each; the first must be there, and the others have its shape.

    Raises:
        CaseError: Names the file and both keys.
    """
    if volumes[0] not in headers:
        raise CaseError(f"{path}: expected the key {volumes[0]!r}, got {', '.join(headers) or 'nothing'}")
    grid = headers[volumes[0]].shape
    for key in (*volumes, *_CHANNELS, "constraints", *(key for key in headers if _MLC.fullmatch(key))):
        header = headers.get(key)
        if header is None:
            continue
        if header.is_pickled:
            message = "expected plain numbers, got pickled Python objects, which are never loaded"
            raise CaseError(f"{path}: {key}: {message}; write the array again with a numeric dtype")
        if header.dtype.kind not in "biuf":
            raise CaseError(f"{path}: {key}: expected real numbers, got the dtype {header.dtype}")
        shape = header.shape[1:] if key in _CHANNELS else header.shape
        if (key in volumes or key in _CHANNELS) and (shape != grid or len(grid) != 3 or 0 in header.shape):
            wanted = f"{volumes[0]} with three axes" if key == volumes[0] else f"{key} on the grid of {volumes[0]}"
            raise CaseError(f"{path}: expected {wanted} {grid}, got {key} {header.shape}")
    constraints = headers.get("constraints")
    if constraints is not None and constraints.shape != (NUM_CONSTRAINTS,):
        raise CaseError(f"{path}: constraints: expected {NUM_CONSTRAINTS} values, got the shape {constraints.shape}")


def read_metadata(path: Path, headers: Mapping[str, ArrayHeader]) -> DoseMetadata:
    """Return what a file says about itself; pickled metadata stays closed, with a warning and the remedy.

    Raises:
        CaseError: It is text, but not as medexp writes it.
    """
    header = headers.get("metadata")
    if header is None or header.is_pickled:
        state = "is missing" if header is None else "is pickled and was not loaded"
        remedy = "write it again as JSON text (numpy.array(json.dumps(...))) with voxel_spacing_mm"
        warning = f"metadata {state}: a voxel size of 1 x 1 x 2 mm is assumed; {remedy}"
        return DoseMetadata(warnings=(warning,))
    try:
        found = parsed(json_of(read_keys(path, ["metadata"], max_bytes=MAX_BYTES)["metadata"]))
    except CaseError as error:
        prefix = "" if str(error).startswith(str(path)) else f"{path}: metadata: "
        raise CaseError(f"{prefix}{error}") from error
    if found.affine is None:
        warning = "metadata tells no voxel size: 1 x 1 x 2 mm is assumed; add voxel_spacing_mm"
        return replace(found, warnings=(*found.warnings, warning))
    return found


def read_dose(
    path: Path, key: str, metadata: DoseMetadata, *, prescription_gy: float
) -> tuple[Float32[np.ndarray, "i j k"], list[str]]:
    """Return a dose in Gy, with a warning where its unit was told from its values.

    Raises:
        CaseError: It is not finite, or its unit cannot be told.
    """
    stored = read_keys(path, [key])[key]
    largest = _require_range(path, key, stored)[1]
    values = _own_order(stored).astype(np.float32, copy=False)
    if metadata.dose_unit_gy is not None:
        return values * np.float32(metadata.dose_unit_gy), []
    try:
        unit_gy, warning = guessed_dose_unit(largest, prescription_gy=prescription_gy)
    except CaseError as error:
        raise CaseError(f"{path}: {key}: {error}") from error
    return values * np.float32(unit_gy), [warning]


def _prescription(metadata: DoseMetadata) -> tuple[float, list[str]]:
    if metadata.prescription_gy is not None:
        return metadata.prescription_gy, []
    return PRESCRIPTION_GY, [f"the file does not tell the prescription: {PRESCRIPTION_GY:g} Gy is assumed"]


def _ct(path: Path, metadata: DoseMetadata) -> tuple[Int16[np.ndarray, "i j k"], list[str]]:
    values = _own_order(read_keys(path, ["ct"])["ct"])
    least, largest = _require_range(path, "ct", values)
    if metadata.ct_unit is not None:
        return metadata.ct_unit.to_hu(values), []
    try:
        unit, warning = guessed_ct_unit(least, largest, is_integer=values.dtype.kind in "iu")
    except CaseError as error:
        raise CaseError(f"{path}: ct: {error}") from error
    return unit.to_hu(values), [warning]


def _channel_names(
    path: Path, headers: Mapping[str, ArrayHeader], metadata: DoseMetadata, structures: Sequence[str] | None
) -> tuple[tuple[str, ...], list[str]]:
    """Return the channels' names: the file's own, else those asked for, else the VMAT system's."""
    counts = {key: headers[key].shape[0] for key in _CHANNELS if key in headers}
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


def _masks(path: Path, names: Sequence[str], *, key: str) -> dict[str, Bool[np.ndarray, "i j k"]]:
    values = read_keys(path, [key])[key]
    least, largest = _require_range(path, key, values)
    if key == "masks_sdf":
        return {name: _own_order(channel < 0.0) for name, channel in zip(names, values, strict=True)}
    if least < 0 or largest > 1 or (values.dtype.kind == "f" and not np.isin(values, (0.0, 1.0)).all()):
        raise CaseError(f"{path}: masks: expected 0 and 1, got values from {least:g} to {largest:g}")
    return {name: _own_order(channel != 0) for name, channel in zip(names, values, strict=True)}


def _coverage(
    path: Path,
    names: Sequence[str],
    metadata: DoseMetadata,
    masks: Mapping[str, Bool[np.ndarray, "i j k"]],
) -> dict[str, UInt8[np.ndarray, "i j k"]]:
    values = read_keys(path, ["coverage"])["coverage"]
    if values.dtype != np.uint8:
        raise CaseError(f"{path}: coverage: expected bytes, the share in 255ths, got {values.dtype}")
    found = {
        name: _own_order(channel)
        for name, channel in zip(names, values, strict=True)
        if name in metadata.coverage and masks[name].any()
    }
    for name, share in found.items():
        if ((share >= HALF) != masks[name]).any():
            raise CaseError(f"{path}: {name}: expected masks to be 1 where coverage is at least {HALF}, got others")
    return found


def _possible(path: Path) -> Bool[np.ndarray, "i j k"]:
    return _own_order(read_keys(path, ["possible_dose"])["possible_dose"] != 0)


def _constraints(path: Path) -> Float32[np.ndarray, " 13"]:
    values = read_keys(path, ["constraints"])["constraints"]
    _require_range(path, "constraints", values)
    return values.astype(np.float32)


def _leaves(path: Path, headers: Mapping[str, ArrayHeader]) -> dict[str, Float32[np.ndarray, "point leaf"]]:
    keys = [key for key in headers if _MLC.fullmatch(key)]
    found = read_keys(path, keys)
    for key, array in found.items():
        if array.ndim != 2:
            raise CaseError(f"{path}: {key}: expected control points x leaves, got the shape {array.shape}")
        _require_range(path, key, array)
    return {key: array.astype(np.float32) for key, array in found.items()}


def _require_range(
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


def _file_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    i, j, k = shape
    return (j, i, k)


def _file_order(array: Shaped[np.ndarray, "i j k"]) -> Shaped[np.ndarray, "j i k"]:
    return np.ascontiguousarray(array.transpose(1, 0, 2))


def _own_order(array: Shaped[np.ndarray, "j i k"]) -> Shaped[np.ndarray, "i j k"]:
    return np.ascontiguousarray(array.transpose(1, 0, 2))

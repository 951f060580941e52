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

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped

from medexp.errors import CaseError
from medexp.geometry.distances import signed_distance_mm
from medexp.io.dose_case import DoseCase
from medexp.io.dose_metadata import MAX_BYTES, DoseMetadata, default_affine, json_of, parsed
from medexp.io.dose_npz_arrays import (
    CHANNELS,
    MLC,
    NUM_CONSTRAINTS,
    channel_names,
    file_order,
    file_shape,
    own_order,
    read_constraints,
    read_coverage,
    read_ct,
    read_leaves,
    read_masks,
    read_possible,
    require_range,
)
from medexp.io.dose_units import NORMALIZED, PRESCRIPTION_GY, guessed_dose_unit, normalized_ct
from medexp.io.npz import ArrayHeader, read_headers, read_keys, write_npz

_VOLUMES = ("ct", "dose", "possible_dose")


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
    masks = np.zeros((len(structures), *file_shape(case.shape)), np.uint8)
    distances = np.ones(masks.shape, np.float32)
    for channel, name in enumerate(structures):
        if name not in case.masks:
            continue
        mask = case.masks[name]
        given = None if distances_mm is None else distances_mm[channel]
        masks[channel] = file_order(mask)
        distances[channel] = file_order(_fractions(case, mask, given, clip_mm=distance_clip_mm))
        if ((distances[channel] < 0.0) != masks[channel].view(np.bool_)).any():
            raise CaseError(f"{case.name}: {name}: expected distances below 0 exactly where its mask is 1")
    arrays: dict[str, Shaped[np.ndarray, "..."]] = {
        "ct": file_order(normalized_ct(case.ct_hu)),
        "masks": masks,
        "masks_sdf": distances,
    }
    if case.constraints is not None:
        arrays["constraints"] = case.constraints
    if case.possible_dose is not None:
        arrays["possible_dose"] = file_order(case.possible_dose).astype(np.uint8)
    if case.coverage:
        coverage = np.zeros(masks.shape, np.uint8)
        for name, share in case.coverage.items():
            coverage[list(structures).index(name)] = file_order(share)
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
    require_range(path, key, dose_gy, least=0.0)
    return file_order(dose_gy) / np.float32(unit_gy)


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
    names, warnings = channel_names(path, headers, metadata, structures)
    masks = read_masks(path, names, key="masks" if "masks" in headers else "masks_sdf")
    coverage = read_coverage(path, names, metadata, masks) if "coverage" in headers else {}
    ct, ct_warnings = read_ct(path, metadata)
    prescription_gy, its_warnings = _prescription(metadata)
    warnings += [*ct_warnings, *its_warnings]
    case = DoseCase(
        name=path.stem,
        ct_hu=ct,
        affine=default_affine() if metadata.affine is None else metadata.affine,
        masks={name: mask for name, mask in masks.items() if mask.any()},
        prescription_gy=prescription_gy,
        coverage=coverage,
        possible_dose=read_possible(path) if "possible_dose" in headers else None,
        constraints=read_constraints(path) if "constraints" in headers else None,
        metadata=metadata.details,
        mlc=read_leaves(path, headers),
    )
    if "dose" in headers:
        dose, dose_warnings = read_dose(path, "dose", metadata, prescription_gy=prescription_gy)
        require_range(path, "dose", dose, least=0.0)
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
    for key in (*volumes, *CHANNELS, "constraints", *(key for key in headers if MLC.fullmatch(key))):
        header = headers.get(key)
        if header is None:
            continue
        if header.is_pickled:
            message = "expected plain numbers, got pickled Python objects, which are never loaded"
            raise CaseError(f"{path}: {key}: {message}; write the array again with a numeric dtype")
        if header.dtype.kind not in "biuf":
            raise CaseError(f"{path}: {key}: expected real numbers, got the dtype {header.dtype}")
        shape = header.shape[1:] if key in CHANNELS else header.shape
        if (key in volumes or key in CHANNELS) and (shape != grid or len(grid) != 3 or 0 in header.shape):
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
    largest = require_range(path, key, stored)[1]
    values = own_order(stored).astype(np.float32, copy=False)
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

"""The `metadata` of dose files: JSON text in a 0-d array of characters, which needs no pickle to be read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from jaxtyping import Float64, Shaped

from medexp.errors import CaseError
from medexp.geometry.affine import spacing_mm
from medexp.io.dose_units import CLIP_HU, NORMALIZED, CtUnit
from medexp.runs.files import without_nan

MAX_BYTES = 64 << 20  # of the text, four bytes a character
_FORMAT: Final = "medexp dose"
_VERSION = 1
_AXES: Final = ["y", "x", "z"]
_SAME_SPACING_MM = 1e-3
_SHEAR = 1e-3  # cosine between two axes
_DEFAULT_SPACING_MM: Final = (1.0, 1.0, 2.0)  # of the fixed grid that the first files were made on
_SPACING_KEYS = ("voxel_spacing_mm", "target_spacing_mm")


@dataclass(frozen=True, eq=False)
class DoseMetadata:
    """What a file says about its arrays; None: it does not say.

    Attributes:
        structures: The names of the channels, in order.
        affine: Voxels [i j k] -> RAS+ mm.
        prescription_gy: To the target of the highest dose.
        ct_unit: How values become HU.
        dose_unit_gy: What 1.0 means.
        coverage: The structures whose coverage is known.
        details: The case's own metadata.
        warnings: Of the case, and about the metadata.
    """

    structures: tuple[str, ...] | None = None
    affine: Float64[np.ndarray, "4 4"] | None = None
    prescription_gy: float | None = None
    ct_unit: CtUnit | None = None
    dose_unit_gy: float | None = None
    coverage: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_array(self, *, distance_clip_mm: float | None = None) -> Shaped[np.ndarray, ""]:
        """Return the JSON text as an array that `numpy.load` reads without pickle."""
        record: dict[str, Any] = {"format": _FORMAT, "version": _VERSION, "axes": _AXES}
        if self.structures is not None:
            record |= {"structures": list(self.structures), "coverage": list(self.coverage)}
        if self.affine is not None:
            x, y, z = spacing_mm(self.affine)
            record |= {"voxel_spacing_mm": [y, x, z], "ras_mm_from_xyz": self.affine.tolist()}
        if self.prescription_gy is not None:
            record["prescription_gy"] = self.prescription_gy
        if self.ct_unit is not None:
            clip = {"clip_hu": list(CLIP_HU)} if self.ct_unit == NORMALIZED else {}
            record["ct"] = {"hu_per_unit": self.ct_unit.scale_hu, "offset": self.ct_unit.offset, **clip}
        if self.dose_unit_gy is not None:
            record["dose"] = {"gy_per_unit": self.dose_unit_gy}
        if distance_clip_mm is not None:
            record["masks_sdf"] = {"mm_per_unit": distance_clip_mm, "inside": "negative"}
        record |= {"warnings": list(self.warnings), "details": dict(self.details)}
        return json_array(record)


def json_array(record: Mapping[str, Any]) -> Shaped[np.ndarray, ""]:
    """Return plain values as JSON text in a 0-d array of characters."""
    return np.array(json.dumps(without_nan(dict(record)), allow_nan=False))


def json_of(array: Shaped[np.ndarray, "..."]) -> dict[str, Any]:
    """Return what `json_array` wrote.

    Raises:
        CaseError: It is no JSON object; the message does not name the file.
    """
    if array.dtype.kind not in "US" or array.size != 1:
        raise CaseError(f"expected JSON text in one element, got {array.dtype} of shape {array.shape}")
    text = array.reshape(()).item()
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaseError(f"expected JSON text, got '{error}'") from error
    if not isinstance(record, dict):
        raise CaseError(f"expected a JSON object, got a {type(record).__name__}")
    return record


def parsed(record: Mapping[str, Any]) -> DoseMetadata:
    """Return what a JSON object says, ours or another program's.

    Raises:
        CaseError: An entry is of another kind than its name promises; the message does not name the file.
    """
    _require_understood(record)
    try:
        return DoseMetadata(
            structures=_names(record["structures"]) if "structures" in record else None,
            affine=_affine(record),
            prescription_gy=_positive(record["prescription_gy"]) if "prescription_gy" in record else None,
            ct_unit=_ct_unit(record["ct"]) if "ct" in record else None,
            dose_unit_gy=_positive(record["dose"]["gy_per_unit"]) if "dose" in record else None,
            coverage=_names(record.get("coverage", [])),
            details=dict(record.get("details", {})),
            warnings=_names(record.get("warnings", [])),
        )
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise CaseError(f"expected entries as medexp writes them, got '{error}'") from error


def default_affine() -> Float64[np.ndarray, "4 4"]:
    """Return the affine of a file that tells nothing: LPS, 1 x 1 x 2 mm, the first voxel at the origin."""
    return _lps(_DEFAULT_SPACING_MM)


def _require_understood(record: Mapping[str, Any]) -> None:
    """Refuse what a later version of medexp may mean otherwise."""
    if record.get("format") != _FORMAT:
        return
    version, axes = record.get("version", _VERSION), record.get("axes", _AXES)
    if version != _VERSION:
        raise CaseError(f"expected version {_VERSION}, got {version!r}; write it with this version of medexp")
    if axes != _AXES:
        raise CaseError(f"expected axes {_AXES}, got {axes!r}; turn the arrays")


def _affine(record: Mapping[str, Any]) -> Float64[np.ndarray, "4 4"] | None:
    given = _spacing(record)
    if "ras_mm_from_xyz" in record:
        affine = np.array(record["ras_mm_from_xyz"], np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or affine[3].tolist() != [0.0, 0.0, 0.0, 1.0]:
            raise ValueError("ras_mm_from_xyz is no affine")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise ValueError("ras_mm_from_xyz cannot be inverted")
        axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        if np.abs(axes.T @ axes - np.eye(3)).max() > _SHEAR:
            raise ValueError("the axes of ras_mm_from_xyz are not at right angles")
        if given is not None and np.abs(np.array(spacing_mm(affine)) - given).max() > _SAME_SPACING_MM:
            raise ValueError(f"ras_mm_from_xyz and voxel sizes of {given} mm along x, y, z contradict each other")
        return affine
    return None if given is None else _lps(given)


def _spacing(record: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Return the voxel size along x, y, z."""
    for key in _SPACING_KEYS:
        if key in record:
            y, x, z = (_positive(size) for size in record[key])
            return (x, y, z)
    return None


def _lps(spacing: tuple[float, float, float]) -> Float64[np.ndarray, "4 4"]:
    x, y, z = spacing
    return np.diag([-x, -y, z, 1.0])


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("a list of texts is something else")
    return tuple(values)


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < 1e6:
        raise ValueError(f"{value!r} is no positive number")
    return float(value)


def _ct_unit(record: Any) -> CtUnit:
    offset = record["offset"]
    if isinstance(offset, bool) or not isinstance(offset, int | float) or not abs(offset) < 1e6:
        raise ValueError(f"{offset!r} is no number")
    return CtUnit(_positive(record["hu_per_unit"]), float(offset))

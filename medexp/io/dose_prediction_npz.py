"""Predicted doses as `.npz` files: `pred_dose`, `metadata`, `inference_settings`, and what they were made from.

Required are the three; `target_dose`, `ct`, `masks`, `masks_sdf` and `constraints` stand in files that a case was given
for. Axes, scales and safety are those of `medexp.io.dose_npz`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Shaped

from medexp.errors import CaseError, GridMismatchError
from medexp.io.dose_case import DoseCase
from medexp.io.dose_metadata import MAX_BYTES, DoseMetadata, default_affine, json_array, json_of
from medexp.io.dose_npz import case_arrays, read_dose, read_metadata, require_shapes, written_dose
from medexp.io.dose_units import NORMALIZED, PRESCRIPTION_GY
from medexp.io.npz import read_headers, read_keys, write_npz

_PREDICTED, _TARGET, _SETTINGS = "pred_dose", "target_dose", "inference_settings"


@dataclass(frozen=True, eq=False)
class DosePrediction:
    """A dose that a model predicted, on the grid of its case in the file's axis directions.

    Attributes:
        dose_gy: Not negative as medexp writes it; other programs' may be, and `warnings` say so.
        affine: Voxels [i j k] -> RAS+ mm.
        prescription_gy: Of the case.
        inference_settings: How it was made; plain JSON values.
        metadata: Plain JSON values without patient identity.
        warnings: What a person should look at.
    """

    dose_gy: Float32[np.ndarray, "i j k"]
    affine: Float64[np.ndarray, "4 4"]
    prescription_gy: float
    inference_settings: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def write_prediction_npz(
    path: Path,
    prediction: DosePrediction,
    *,
    case: DoseCase | None = None,
    structures: Sequence[str] = (),
    distance_clip_mm: float = 50.0,
    durable: bool = True,
) -> None:
    """Write a prediction.

    Args:
        path: Ends in `.npz`.
        prediction: Finite and not negative.
        case: Written beside it; None: the prediction alone, which is a tenth of the size.
        structures: The channels of the case, in order.
        distance_clip_mm: Of the case's distances.
        durable: Whether the bytes must be on the disk when this returns.

    Raises:
        CaseError: The dose is NaN, infinite or negative; the case has other structures.
        GridMismatchError: Case and prediction are on different grids.
        StorageError: The file cannot be written.
    """
    unit_gy = prediction.prescription_gy
    arrays: dict[str, Shaped[np.ndarray, "..."]] = {
        _PREDICTED: written_dose(path, _PREDICTED, prediction.dose_gy, unit_gy=unit_gy)
    }
    if case is not None:
        if case.shape != prediction.dose_gy.shape:
            message = f"expected a dose on the case's grid {case.shape}, got {prediction.dose_gy.shape}"
            raise GridMismatchError(f"{path}: {_PREDICTED}: {message}")
        if case.dose_gy is not None:
            arrays[_TARGET] = written_dose(path, _TARGET, case.dose_gy, unit_gy=unit_gy)
        arrays |= case_arrays(case, structures=structures, distance_clip_mm=distance_clip_mm)
    metadata = DoseMetadata(
        structures=None if case is None else tuple(structures),
        affine=prediction.affine,
        prescription_gy=prediction.prescription_gy,
        ct_unit=None if case is None else NORMALIZED,
        dose_unit_gy=unit_gy,
        coverage=() if case is None else tuple(name for name in structures if name in case.coverage),
        details=prediction.metadata,
        warnings=prediction.warnings,
    )
    arrays["metadata"] = metadata.to_array(distance_clip_mm=None if case is None else distance_clip_mm)
    arrays[_SETTINGS] = json_array(prediction.inference_settings)
    write_npz(path, arrays, durable=durable)


def read_prediction_npz(path: Path) -> DosePrediction:
    """Return the predicted dose in a file; what it was made from is not unpacked.

    Raises:
        CaseError: The file is damaged or hostile, or the dose's unit cannot be told; names file and key.
    """
    headers = read_headers(path)
    require_shapes(path, headers, volumes=(_PREDICTED, _TARGET, "ct"))
    metadata = read_metadata(path, headers)
    prescription_gy = PRESCRIPTION_GY if metadata.prescription_gy is None else metadata.prescription_gy
    dose, warnings = read_dose(path, _PREDICTED, metadata, prescription_gy=prescription_gy)
    below = int((dose < 0.0).sum())
    if below:
        warnings.append(f"{below} predicted doses are negative, down to {dose.min():.3g} Gy")
    settings: Mapping[str, Any] = {}
    if _SETTINGS in headers and headers[_SETTINGS].is_pickled:
        warnings.append(f"{_SETTINGS} is pickled and was not loaded")
    elif _SETTINGS in headers:
        settings = _settings(path)
    return DosePrediction(
        dose_gy=dose,
        affine=default_affine() if metadata.affine is None else metadata.affine,
        prescription_gy=prescription_gy,
        inference_settings=settings,
        metadata=metadata.details,
        warnings=(*metadata.warnings, *warnings),
    )


def _settings(path: Path) -> dict[str, Any]:
    array = read_keys(path, [_SETTINGS], max_bytes=MAX_BYTES)[_SETTINGS]
    try:
        return json_of(array)
    except CaseError as error:
        raise CaseError(f"{path}: {_SETTINGS}: {error}") from error

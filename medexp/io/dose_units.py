"""Numbers of dose files -> Hounsfield units and gray, by what a file says or, where it says nothing, by its values."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float32, Int16, Num

from medexp.errors import CaseError

CLIP_HU: Final = (-1000.0, 3000.0)
SCALE_HU: Final = 4000.0
OFFSET: Final = 0.5
PRESCRIPTION_GY: Final = 70.0  # of the protocol, where a file does not say it

_SLACK = 1e-3
_LEAST_NORMALIZED = OFFSET + CLIP_HU[0] / SCALE_HU  # 0.25, air
_LARGEST_FRACTION = 1.6  # of the prescription: beyond any plan that passes its checks
# A plan whose maximum is below is told apart from fractions by no rule, one beyond the other from percent or cGy.
_GRAY = (20.0, 95.0)
_HU = (-33000.0, 33000.0)


@dataclass(frozen=True)
class CtUnit:
    """HU = (value - offset) * scale."""

    scale_hu: float
    offset: float

    def to_hu(self, values: Num[np.ndarray, "i j k"]) -> Int16[np.ndarray, "i j k"]:
        """Return Hounsfield units, rounded; beyond 16 bits they are clipped."""
        hounsfield = (values.astype(np.float32, copy=False) - np.float32(self.offset)) * np.float32(self.scale_hu)
        limits = np.iinfo(np.int16)
        return np.rint(np.clip(hounsfield, limits.min, limits.max, out=hounsfield), out=hounsfield).astype(np.int16)


HOUNSFIELD: Final = CtUnit(1.0, 0.0)
NORMALIZED: Final = CtUnit(SCALE_HU, OFFSET)  # air 0.25, the clip's end 1.25
UNIT_RANGE: Final = CtUnit(SCALE_HU, -CLIP_HU[0] / SCALE_HU)  # air 0, the clip's end 1


def normalized_ct(ct_hu: Int16[np.ndarray, "i j k"]) -> Float32[np.ndarray, "i j k"]:
    """Return (HU clipped to -1000..3000) / 4000 + 0.5, so 0.25 to 1.25."""
    values = np.clip(ct_hu, np.float32(CLIP_HU[0]), np.float32(CLIP_HU[1]))
    values /= np.float32(SCALE_HU)
    values += np.float32(OFFSET)
    return values


def guessed_ct_unit(least: float, largest: float, *, is_integer: bool) -> tuple[CtUnit, str]:
    """Return the unit of a CT whose file does not tell, from its extreme values, with a warning.

    Air is in every CT of a patient: it is -1000 HU, 0.25 as the VMAT code normalizes and 0 as its text says.

    Raises:
        CaseError: The values fit none of the three.
    """
    if is_integer or largest > 10.0 or least < -10.0:
        if _HU[0] <= least and largest <= _HU[1]:
            return HOUNSFIELD, "the file does not tell the CT's unit: Hounsfield units are assumed from its values"
    elif least >= _LEAST_NORMALIZED - _SLACK and largest <= _LEAST_NORMALIZED + 1.0 + _SLACK:
        return NORMALIZED, "the file does not tell the CT's unit: HU / 4000 + 0.5 is assumed from its values"
    elif least >= -_SLACK and largest <= 1.0 + _SLACK:
        return UNIT_RANGE, "the file does not tell the CT's unit: (HU + 1000) / 4000 is assumed from its values"
    expected = "Hounsfield units, 0.25 to 1.25 or 0 to 1"
    raise CaseError(f"expected a CT in {expected}, got {least:g} to {largest:g}; say its unit in JSON metadata")


def guessed_dose_unit(largest: float, *, prescription_gy: float) -> tuple[float, str]:
    """Return what 1.0 means in gray for a dose whose file does not tell, from its maximum, with a warning.

    Raises:
        CaseError: The maximum could be a fraction of the prescription, percent of it or cGy as well as gray.
    """
    if largest <= _LARGEST_FRACTION:
        message = f"fractions of {prescription_gy:g} Gy are assumed from its maximum {largest:.3g}"
        return prescription_gy, f"the file does not tell the dose's unit: {message}"
    if _GRAY[0] <= largest < _GRAY[1]:
        return 1.0, f"the file does not tell the dose's unit: Gy is assumed from its maximum {largest:.3g}"
    expected = f"fractions of the prescription (up to {_LARGEST_FRACTION:g}) or Gy ({_GRAY[0]:g} to {_GRAY[1]:g})"
    doubt = "may be percent or cGy" if largest >= _GRAY[1] else "tells neither"
    message = f"expected a maximum of {expected} from a file that does not tell its dose's unit"
    raise CaseError(
        f"{message}, got {largest:.4g}, which {doubt}; say it in a JSON text 'metadata': "
        '{"dose": {"gy_per_unit": 1.0}}'
    )

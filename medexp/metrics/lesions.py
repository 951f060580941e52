"""Lesion-wise scores: the constants of each BraTS protocol, and the records that every variant returns.

`medexp.metrics.brats` computes the official scores, `medexp.metrics.toolkit` the simpler variant.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal


@dataclass(frozen=True)
class LesionProtocol:
    """Constants of one challenge, and which steps its program takes.

    Attributes:
        name: The challenge.
        regions: Label values of each region.
        dilation_steps: Steps of 18-neighbor dilation: parts of a lesion this close are one lesion, and a prediction
            this close to a lesion belongs to it.
        volume_threshold: Reference lesions up to this volume in mm3 are not counted. With `prepares_prediction`,
            predicted lesions up to this number of *voxels* are removed.
        hd95_penalty_mm: HD95 of a missed or a spurious lesion.
        prepares_prediction: Predicted parts are joined like those of the reference, and small ones removed.
        neighbors: For each tissue the other tissues, in order, whose touching joins its lesions.
        legacy_hd95_on_numbers: The whole-mask HD95 is computed on numbered lesions instead of a mask
            (`medexp.metrics.brats`).
        nsd_tolerances_mm: Tolerances of the surface Dice.
    """

    name: str
    regions: Mapping[str, tuple[int, ...]]
    dilation_steps: Mapping[str, int]
    volume_threshold: Mapping[str, float]
    hd95_penalty_mm: float
    prepares_prediction: bool
    neighbors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    legacy_hd95_on_numbers: bool = False
    nsd_tolerances_mm: tuple[float, ...] = (0.5, 1.0)


class LesionStatus(StrEnum):
    """What became of a lesion."""

    MATCHED = "matched"
    MISSED = "missed"
    SPURIOUS = "spurious"


@dataclass(frozen=True)
class Lesion:
    """One lesion of the reference, or one predicted lesion that belongs to none.

    Attributes:
        region: The region it was found in.
        index: Counts the lesions of the region from 1: those of the reference, then the spurious ones.
        status: Matched, missed or spurious.
        is_counted: Whether it enters the score of the region; small reference lesions may not.
        volume_mm3: Volume of the reference lesion; of the predicted one if it is spurious.
        prediction_volume_mm3: Volume of the prediction that belongs to it; 0 if it was missed.
        dice: Dice of the lesion and all prediction that belongs to it; 0 if missed or spurious.
        hd95_mm: 95th percentile Hausdorff distance of the same pair; the penalty if missed or spurious.
        nsd: Surface Dice of the same pair by tolerance in mm; 0 if missed or spurious.
    """

    region: str
    index: int
    status: LesionStatus
    is_counted: bool
    volume_mm3: float
    prediction_volume_mm3: float
    dice: float
    hd95_mm: float
    nsd: Mapping[float, float]

    def row(self) -> dict[str, str | int | float | bool]:
        """Return the lesion as a row of a per-lesion table."""
        row: dict[str, str | int | float | bool] = {
            "region": self.region,
            "lesion": self.index,
            "status": str(self.status),
            "is_counted": self.is_counted,
            "volume_mm3": self.volume_mm3,
            "prediction_volume_mm3": self.prediction_volume_mm3,
            "dice": self.dice,
            "hd95_mm": self.hd95_mm,
        }
        return row | {f"nsd_{tolerance:g}mm": value for tolerance, value in self.nsd.items()}


_REGIONS_2024 = {"WT": (1, 2, 3), "TC": (1, 3), "NETC": (1,), "SNFH": (2,), "ET": (3,), "RC": (4,)}
_REGIONS_2023 = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}

# The official program means to give SNFH five steps, but asks for "SFNH", so it gets three.
BRATS_2024_GLI = LesionProtocol(
    name="BraTS 2024 GLI",
    regions=_REGIONS_2024,
    dilation_steps={"WT": 3, "TC": 3, "NETC": 5, "SNFH": 3, "ET": 3, "RC": 5},
    volume_threshold={name: 10.0 if name == "ET" else 20.0 for name in _REGIONS_2024},
    hd95_penalty_mm=337.0,  # diagonal of 182x218x182 voxels of 1 mm
    prepares_prediction=True,
    neighbors={"NETC": ("ET", "RC"), "ET": ("NETC", "RC"), "RC": ("ET", "NETC"), "SNFH": ("ET", "RC", "NETC")},
    legacy_hd95_on_numbers=True,
)
BRATS_2024_GLI_AS_INTENDED = replace(
    BRATS_2024_GLI,
    name="BraTS 2024 GLI, five dilation steps for SNFH",
    dilation_steps={**BRATS_2024_GLI.dilation_steps, "SNFH": 5},
)


def _protocol_2023(challenge: str, dilation_steps: int, volume_threshold_mm3: float) -> LesionProtocol:
    return LesionProtocol(
        name=f"BraTS 2023 {challenge}",
        regions=_REGIONS_2023,
        dilation_steps=dict.fromkeys(_REGIONS_2023, dilation_steps),
        volume_threshold=dict.fromkeys(_REGIONS_2023, volume_threshold_mm3),
        hd95_penalty_mm=374.0,  # diagonal of 240x240x155 voxels of 1 mm is 373.1 mm
        prepares_prediction=False,
    )


BRATS_2023_GLI = _protocol_2023("GLI", dilation_steps=3, volume_threshold_mm3=50.0)
BRATS_2023_SSA = _protocol_2023("SSA", dilation_steps=3, volume_threshold_mm3=50.0)
BRATS_2023_MEN = _protocol_2023("MEN", dilation_steps=1, volume_threshold_mm3=50.0)
BRATS_2023_PED = _protocol_2023("PED", dilation_steps=3, volume_threshold_mm3=50.0)
BRATS_2023_MET = _protocol_2023("MET", dilation_steps=1, volume_threshold_mm3=2.0)

ProtocolName = Literal[
    "brats_2024_gli",
    "brats_2024_gli_as_intended",
    "brats_2023_gli",
    "brats_2023_ssa",
    "brats_2023_men",
    "brats_2023_ped",
    "brats_2023_met",
]
PROTOCOLS: Mapping[str, LesionProtocol] = {
    "brats_2024_gli": BRATS_2024_GLI,
    "brats_2024_gli_as_intended": BRATS_2024_GLI_AS_INTENDED,
    "brats_2023_gli": BRATS_2023_GLI,
    "brats_2023_ssa": BRATS_2023_SSA,
    "brats_2023_men": BRATS_2023_MEN,
    "brats_2023_ped": BRATS_2023_PED,
    "brats_2023_met": BRATS_2023_MET,
}

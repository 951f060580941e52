"""Lesion-wise scores as the official BraTS programs compute them, quirks included.

What is theirs and surprising is marked "Theirs:" where it happens. In short:

- the voxel size is rounded to single precision, as a NIfTI header stores it;
- one threshold drops predicted lesions by voxels and reference lesions by mm3;
- touching tissues join lesions only if more than one pair touches, and a lesion follows only the first lesion that
  it touches (`medexp.metrics.lesion_maps`);
- a predicted lesion serves every reference lesion that it reaches, and one that reaches only a lesion too small to
  count is no false positive;
- the surface Dice is nnU-Net's (voxel surfaces, plain mean of both directions), while the HD95 is that of the
  surface-distance package;
- the whole-mask ("legacy") HD95 of 2024 is computed on numbered lesions (`medexp.metrics.lesion_pairs`).

One thing is not theirs: sensitivity and specificity are those of the masks. The 2024 program computes them on
numbered lesions, which is right only for one lesion on each side.

Where the program cannot measure, these values stand: two empty masks score Dice 1, surface Dice 1, HD95 0; one
empty mask scores 0, 0 and the penalty.

Source:
    rachitsaluja/BraTS-2024-Metrics, `metrics_GLI.py` at f1131e34 (Apache-2.0), and BraTS-2023-Metrics, `eval.py`;
    re-implemented from a reading. Agrees with the 2024 program to 1e-6 on tests/metrics/goldens/brats2024.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Real

from medexp.metrics.grids import Spacing, bounding_box, grown, hull, require_same_grid, spacing_on
from medexp.metrics.lesion_maps import predicted_lesions, reference_lesions
from medexp.metrics.lesion_pairs import LesionPairs
from medexp.metrics.lesions import BRATS_2024_GLI, Lesion, LesionProtocol, LesionStatus


@dataclass(frozen=True)
class RegionScores:
    """Scores of one region of one case.

    Attributes:
        region: The region.
        num_true_positive: Counted reference lesions that a prediction reaches.
        num_false_positive: Predicted lesions that reach no reference lesion.
        num_false_negative: Counted reference lesions that no prediction reaches.
        sensitivity: Share of the reference voxels that are predicted; 1 if both masks are empty, 0 if only the
            reference is.
        specificity: Share of the background voxels that are not predicted; 0 if there is no background.
        legacy_dice: Dice of the whole masks; 1 if both are empty.
        legacy_hd95_mm: HD95 of the whole masks as the protocol computes it; 0 if both are empty.
        legacy_nsd: Surface Dice of the whole masks by tolerance in mm; 1 if both are empty.
        reference_volume_mm3: Volume of the whole reference.
        dice: Lesion-wise Dice: mean over counted lesions and false positives; 1 if there are none.
        hd95_mm: Lesion-wise HD95, likewise; 0 if there are none.
        nsd: Lesion-wise surface Dice by tolerance in mm, likewise; 1 if there are none.
        lesions: Every reference lesion, counted or not, then the spurious ones.
    """

    region: str
    num_true_positive: int
    num_false_positive: int
    num_false_negative: int
    sensitivity: float
    specificity: float
    legacy_dice: float
    legacy_hd95_mm: float
    legacy_nsd: Mapping[float, float]
    reference_volume_mm3: float
    dice: float
    hd95_mm: float
    nsd: Mapping[float, float]
    lesions: tuple[Lesion, ...]

    def record(self) -> dict[str, str | float]:
        """Return the scores under the names of the official results table."""
        return {
            "Labels": self.region,
            "Num_TP": self.num_true_positive,
            "Num_FP": self.num_false_positive,
            "Num_FN": self.num_false_negative,
            "Sensitivity": self.sensitivity,
            "Specificity": self.specificity,
            "Legacy_Dice": self.legacy_dice,
            "Legacy_HD95": self.legacy_hd95_mm,
            **{f"Legacy NSD @ {tolerance}": value for tolerance, value in self.legacy_nsd.items()},
            "GT_Complete_Volume": self.reference_volume_mm3,
            "LesionWise_Score_Dice": self.dice,
            "LesionWise_Score_HD95": self.hd95_mm,
            **{f"LesionWise_Score_NSD @ {tolerance}": value for tolerance, value in self.nsd.items()},
        }


def lesion_wise_scores(
    prediction: Real[np.ndarray, "..."],
    reference: Real[np.ndarray, "..."],
    spacing_mm: Spacing,
    protocol: LesionProtocol = BRATS_2024_GLI,
) -> dict[str, RegionScores]:
    """Score a predicted label map lesion by lesion.

    Args:
        prediction: Predicted label map, three axes, label values as in `protocol.regions`; others are ignored.
        reference: Reference label map on the same grid.
        spacing_mm: Voxel size along i, j, k.
        protocol: Constants of the challenge.

    Returns:
        The scores by region, in the order of the protocol.

    Raises:
        GridMismatchError: The label maps have different shapes.
        CaseError: There are not three positive voxel sizes.
    """
    require_same_grid(prediction, reference)
    # Theirs: the header of a NIfTI file holds single precision.
    spacing = tuple(float(np.float32(size)) for size in spacing_on(reference, spacing_mm))
    foreground = hull(bounding_box(prediction), bounding_box(reference))
    frame = grown(foreground, max(protocol.dilation_steps.values()), reference.shape)
    predicted = predicted_lesions(np.ascontiguousarray(prediction[frame]), protocol)
    referred = reference_lesions(np.ascontiguousarray(reference[frame]), protocol)
    scores = {}
    for region in protocol.regions:
        pairs = LesionPairs(predicted.pop(region), referred.pop(region), spacing, protocol.nsd_tolerances_mm)
        scores[region] = _score_region(region, pairs, spacing, reference.size, protocol)
    return scores


def _score_region(
    region: str, pairs: LesionPairs, spacing_mm: tuple[float, ...], volume_voxels: int, protocol: LesionProtocol
) -> RegionScores:
    lesions = _lesions(region, pairs, spacing_mm, protocol)
    counted = [lesion for lesion in lesions if lesion.is_counted]
    statuses = [lesion.status for lesion in counted]
    whole = pairs.all_predicted, pairs.all_referred
    legacy_hd95_mm = pairs.hd95_on_numbers_mm() if protocol.legacy_hd95_on_numbers else pairs.hd95_mm(*whole)
    sensitivity, specificity = _sensitivity_and_specificity(pairs, volume_voxels)
    return RegionScores(
        region=region,
        num_true_positive=statuses.count(LesionStatus.MATCHED),
        num_false_positive=statuses.count(LesionStatus.SPURIOUS),
        num_false_negative=statuses.count(LesionStatus.MISSED),
        sensitivity=sensitivity,
        specificity=specificity,
        legacy_dice=pairs.dice(*whole),
        legacy_hd95_mm=_finite_or(legacy_hd95_mm, protocol.hd95_penalty_mm),
        legacy_nsd=pairs.nsd(*whole),
        reference_volume_mm3=_volume_mm3(pairs.num_referred_voxels(pairs.all_referred), spacing_mm),
        dice=_mean([lesion.dice for lesion in counted], if_none=1.0),
        hd95_mm=_mean([lesion.hd95_mm for lesion in counted], if_none=0.0),
        nsd={
            tolerance: _mean([lesion.nsd[tolerance] for lesion in counted], if_none=1.0)
            for tolerance in protocol.nsd_tolerances_mm
        },
        lesions=lesions,
    )


def _lesions(
    region: str, pairs: LesionPairs, spacing_mm: tuple[float, ...], protocol: LesionProtocol
) -> tuple[Lesion, ...]:
    lesions: list[Lesion] = []
    spurious = pairs.all_predicted
    for number in sorted(pairs.all_referred):
        partners = pairs.partners(number)
        spurious -= partners
        lesion = frozenset({number})
        volume_mm3 = _volume_mm3(pairs.num_referred_voxels(lesion), spacing_mm)
        lesions.append(
            Lesion(
                region=region,
                index=len(lesions) + 1,
                status=LesionStatus.MATCHED if partners else LesionStatus.MISSED,
                is_counted=volume_mm3 > protocol.volume_threshold[region],
                volume_mm3=volume_mm3,
                prediction_volume_mm3=_volume_mm3(pairs.num_predicted_voxels(partners), spacing_mm),
                dice=pairs.dice(partners, lesion),
                hd95_mm=_finite_or(pairs.hd95_mm(partners, lesion), protocol.hd95_penalty_mm),
                nsd=pairs.nsd(partners, lesion),
            )
        )
    for number in sorted(spurious):
        volume_mm3 = _volume_mm3(pairs.num_predicted_voxels(frozenset({number})), spacing_mm)
        lesions.append(_spurious(region, len(lesions) + 1, volume_mm3, protocol))
    return tuple(lesions)


def _spurious(region: str, index: int, volume_mm3: float, protocol: LesionProtocol) -> Lesion:
    return Lesion(
        region=region,
        index=index,
        status=LesionStatus.SPURIOUS,
        is_counted=True,
        volume_mm3=volume_mm3,
        prediction_volume_mm3=volume_mm3,
        dice=0.0,
        hd95_mm=protocol.hd95_penalty_mm,
        nsd=dict.fromkeys(protocol.nsd_tolerances_mm, 0.0),
    )


def _sensitivity_and_specificity(pairs: LesionPairs, volume_voxels: int) -> tuple[float, float]:
    both = pairs.num_shared_voxels
    predicted = pairs.num_predicted_voxels(pairs.all_predicted)
    referred = pairs.num_referred_voxels(pairs.all_referred)
    # Theirs: the smallest float in the denominators, and 1 for two empty masks.
    sensitivity = both / (referred + sys.float_info.min) if predicted or referred else 1.0
    background = volume_voxels - referred
    return sensitivity, (background - predicted + both) / (background + sys.float_info.min)


def _volume_mm3(num_voxels: int, spacing_mm: tuple[float, ...]) -> float:
    volume = float(num_voxels)
    for size in spacing_mm:  # one after the other, as theirs, so that a volume at the threshold rounds alike
        volume *= size
    return volume


def _mean(values: list[float], if_none: float) -> float:
    return sum(values) / len(values) if values else if_none


def _finite_or(distance_mm: float, penalty_mm: float) -> float:
    return distance_mm if np.isfinite(distance_mm) else penalty_mm

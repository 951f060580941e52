"""The simpler lesion-wise score of the BraTS toolkit: one prediction per lesion, no dilation, no threshold.

Source:
    The lesion metric of chienlax/brats_challenge, re-implemented from its definition (the repository has no
    license). For scores that compare with the challenge use `medexp.metrics.brats`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Real

from medexp.metrics.components import components, overlapping_pairs
from medexp.metrics.grids import Spacing, common, mask_of, require_same_grid, spacing_on
from medexp.metrics.lesion_surfaces import lesion_voxels
from medexp.metrics.lesions import LesionStatus
from medexp.metrics.surface import pooled_hausdorff_mm


@dataclass(frozen=True)
class ToolkitLesion:
    """One lesion of the reference with its predicted partner, or one without the other.

    Attributes:
        status: Matched, missed or spurious.
        dice: Dice of the pair; 0 without a partner.
        hd95_mm: Pooled 95th percentile Hausdorff distance of the pair; the diagonal of the volume without a partner.
        reference_voxels: Size in the reference.
        prediction_voxels: Size in the prediction.
    """

    status: LesionStatus
    dice: float
    hd95_mm: float
    reference_voxels: int
    prediction_voxels: int


@dataclass(frozen=True)
class ToolkitScores:
    """Means over all lesions of a region, matched or not; Dice 1 and HD95 0 if there are none."""

    lesions: tuple[ToolkitLesion, ...]

    @property
    def dice(self) -> float:
        """Mean Dice of the lesions."""
        return float(np.mean([lesion.dice for lesion in self.lesions])) if self.lesions else 1.0

    @property
    def hd95_mm(self) -> float:
        """Mean HD95 of the lesions."""
        return float(np.mean([lesion.hd95_mm for lesion in self.lesions])) if self.lesions else 0.0


def toolkit_scores(
    prediction: Real[np.ndarray, "..."],
    reference: Real[np.ndarray, "..."],
    spacing_mm: Spacing,
    regions: Mapping[str, Sequence[int]],
) -> dict[str, ToolkitScores]:
    """Score a predicted label map lesion by lesion.

    Components are paired one to one, those with the largest overlap first; equal overlaps in the order of the
    reference components, then of the predicted ones.

    Args:
        prediction: Predicted label map, three axes.
        reference: Reference label map on the same grid.
        spacing_mm: Voxel size along i, j, k.
        regions: Label values of each label or region.

    Raises:
        GridMismatchError: The label maps have different shapes.
        CaseError: There are not three positive voxel sizes.
    """
    require_same_grid(prediction, reference)
    spacing = spacing_on(reference, spacing_mm)
    diagonal_mm = float(np.linalg.norm(np.array(reference.shape) * np.array(spacing)))
    return {
        region: ToolkitScores(_lesions(mask_of(prediction, values), mask_of(reference, values), spacing, diagonal_mm))
        for region, values in regions.items()
    }


def toolkit_report(cases: Mapping[str, Mapping[str, ToolkitScores]]) -> dict[str, Any]:
    """Return the toolkit's JSON: every case with its lesions, and a summary per region (`std` over n, not n - 1)."""
    regions = list(next(iter(cases.values()), {}))
    return {
        "cases": {case: _case_record(scores) for case, scores in cases.items()},
        "summary": {
            "Dice": {name: _statistics([scores[name].dice for scores in cases.values()]) for name in regions},
            "HD95": {name: _statistics([scores[name].hd95_mm for scores in cases.values()]) for name in regions},
        },
    }


def _lesions(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...], diagonal_mm: float
) -> tuple[ToolkitLesion, ...]:
    predicted, referred = components(prediction), components(reference)
    in_predicted, in_referred = common(predicted.box, referred.box)
    overlaps = overlapping_pairs(referred.lesions[in_referred], predicted.lesions[in_predicted])
    partners = _greedy(overlaps)
    surfaces = [lesion_voxels(lesion_map, spacing_mm, connectivity=3) for lesion_map in (predicted, referred)]

    lesions = []
    for number in referred.numbers():
        size = int(referred.num_voxels[number])
        if number not in partners:
            lesions.append(ToolkitLesion(LesionStatus.MISSED, 0.0, diagonal_mm, size, 0))
            continue
        partner = partners[number]
        partner_size = int(predicted.num_voxels[partner])
        dice = 2 * overlaps[number, partner] / (size + partner_size)
        hd95_mm = pooled_hausdorff_mm(surfaces[0].of(frozenset({partner})), surfaces[1].of(frozenset({number})))
        lesions.append(ToolkitLesion(LesionStatus.MATCHED, dice, hd95_mm, size, partner_size))
    spurious = sorted(set(predicted.numbers()) - set(partners.values()))
    return tuple(lesions) + tuple(
        ToolkitLesion(LesionStatus.SPURIOUS, 0.0, diagonal_mm, 0, int(predicted.num_voxels[number]))
        for number in spurious
    )


def _greedy(overlaps: Mapping[tuple[int, int], int]) -> dict[int, int]:
    """Pair one to one, largest overlap first."""
    partners: dict[int, int] = {}
    taken: set[int] = set()
    for number, partner in sorted(overlaps, key=lambda pair: (-overlaps[pair], pair)):
        if number not in partners and partner not in taken:
            partners[number] = partner
            taken.add(partner)
    return partners


def _case_record(scores: Mapping[str, ToolkitScores]) -> dict[str, Any]:
    return {
        "LesionWise_Dice": {region: score.dice for region, score in scores.items()},
        "LesionWise_HD95": {region: score.hd95_mm for region, score in scores.items()},
        "lesions": {
            region: [
                {
                    "status": str(lesion.status),
                    "dice": lesion.dice,
                    "hd95": lesion.hd95_mm,
                    "gt_voxels": lesion.reference_voxels,
                    "pred_voxels": lesion.prediction_voxels,
                }
                for lesion in score.lesions
            ]
            for region, score in scores.items()
        },
    }


def _statistics(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "median": float(np.median(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
        "std": float(np.std(values)),
    }

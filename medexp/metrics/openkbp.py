"""Dose score and DVH score of the OpenKBP challenge, in Gy; less is better.

Source:
    A. Babier et al., OpenKBP: The open-access knowledge-based planning grand challenge and dataset, Med Phys 48 (2021)
    5549, and the evaluation that its organizers provide (github.com/ababier/open-kbp): the same sums, percentiles and
    rounding. As there, a prediction counts wherever it holds dose, also outside of the mask of possible dose, and a
    structure counts where it is contoured. What is ours: a structure smaller than 0.1 cc has its least dose as
    D_0.1cc, where the organizers' program ends with an error.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Num, Real

from medexp.errors import CaseError, CohortError
from medexp.io.openkbp import ORGANS, TARGETS_GY
from medexp.metrics.grids import require_same_grid, spacing_on

OARS = ORGANS
TARGETS = tuple(TARGETS_GY)
_TENTH_CC_MM3 = 100.0
_TARGET_PERCENTILES = {"D_99": 1.0, "D_95": 5.0, "D_1": 99.0}


@dataclass(frozen=True)
class ComparedMetric:
    """One DVH metric of one structure on both sides."""

    structure: str
    metric: str
    reference_gy: float
    prediction_gy: float

    @property
    def error_gy(self) -> float:
        """The absolute difference."""
        return abs(self.reference_gy - self.prediction_gy)


@dataclass(frozen=True)
class PatientScores:
    """What one patient adds to the scores."""

    dose_error_gy: float
    metrics: tuple[ComparedMetric, ...]

    @property
    def dvh_error_gy(self) -> float:
        """Mean over the patient's own metrics; `nan` without any structure. The DVH score pools metrics instead."""
        return float(np.mean([one.error_gy for one in self.metrics])) if self.metrics else float("nan")


@dataclass(frozen=True)
class CohortScores:
    """The two scores, and what they are means over."""

    dose_score_gy: float
    dvh_score_gy: float
    num_patients: int
    num_metrics: int


def score_patient(
    reference_gy: Real[np.ndarray, "i j k"],
    prediction_gy: Real[np.ndarray, "..."],
    possible_dose: Bool[np.ndarray, "i j k"],
    masks: Mapping[str, Bool[np.ndarray, "i j k"]],
    spacing_mm: Sequence[float],
) -> PatientScores:
    """Compare a prediction with the dose that was delivered.

    Args:
        reference_gy: Delivered dose.
        prediction_gy: Predicted dose, on the same grid; not masked here.
        possible_dose: Where dose may be.
        masks: The structures that are contoured; others than `OARS` and `TARGETS` are not looked at.
        spacing_mm: Size of a voxel.

    Raises:
        CaseError: Dose is possible nowhere.
        GridMismatchError: The doses have different shapes.
    """
    require_same_grid(prediction_gy, reference_gy)
    possible = int(np.count_nonzero(possible_dose))
    if possible == 0:
        raise CaseError("expected a mask of possible dose with voxels, got an empty one; correct possible_dose")
    difference = np.abs(np.subtract(reference_gy, prediction_gy, dtype=np.float64))
    voxel_mm3 = float(np.prod(spacing_on(reference_gy, spacing_mm)))
    compared = []
    for structure in (*OARS, *TARGETS):
        mask = masks.get(structure)
        if mask is None or not mask.any():
            continue
        sides = [dict(structure_metrics(structure, dose[mask], voxel_mm3)) for dose in (reference_gy, prediction_gy)]
        compared += [ComparedMetric(structure, name, sides[0][name], sides[1][name]) for name in sides[0]]
    return PatientScores(float(difference.sum()) / possible, tuple(compared))


def structure_metrics(
    structure: str, doses_gy: Num[np.ndarray, " voxel"], voxel_mm3: float
) -> Iterator[tuple[str, float]]:
    """Yield the name and value of the metrics that count for a structure, from the doses of its voxels."""
    doses: Float64[np.ndarray, " voxel"] = doses_gy.astype(np.float64)
    if structure in TARGETS:
        for name, percentile in _TARGET_PERCENTILES.items():
            yield name, float(np.percentile(doses, percentile))
        return
    hottest_percent = 100.0 * num_voxels_of_tenth_cc(voxel_mm3) / doses.size
    yield "D_0.1_cc", float(np.percentile(doses, max(0.0, 100.0 - hottest_percent)))
    yield "mean", float(doses.mean())


def num_voxels_of_tenth_cc(voxel_mm3: float) -> int:
    """Return how many voxels 0.1 cc are taken for: rounded, half to even, and at least one."""
    return max(1, int(np.round(_TENTH_CC_MM3 / voxel_mm3)))


def pooled_scores(patients: Iterable[PatientScores]) -> CohortScores:
    """Return the dose score (mean over patients) and the DVH score (mean over all metrics of all patients).

    Raises:
        CohortError: There is no patient.
    """
    listed = list(patients)
    if not listed:
        raise CohortError("expected at least one patient to score, got none; check which cases were evaluated")
    errors = [metric.error_gy for patient in listed for metric in patient.metrics]
    return CohortScores(
        dose_score_gy=float(np.mean([patient.dose_error_gy for patient in listed])),
        dvh_score_gy=float(np.mean(errors)) if errors else float("nan"),
        num_patients=len(listed),
        num_metrics=len(errors),
    )

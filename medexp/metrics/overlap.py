"""Overlap of two masks, counted in voxels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from medexp.metrics.grids import require_same_grid


@dataclass(frozen=True)
class ConfusionCounts:
    """Voxels of two masks by agreement, and the ratios that follow from them.

    A ratio without a denominator is `nan`: the caller says what an undefined value is worth
    (`medexp.metrics.summary`).
    """

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def num_prediction(self) -> int:
        """Voxels of the prediction."""
        return self.true_positive + self.false_positive

    @property
    def num_reference(self) -> int:
        """Voxels of the reference."""
        return self.true_positive + self.false_negative

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN); `nan` if both masks are empty."""
        return _ratio(2 * self.true_positive, self.num_prediction + self.num_reference)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN); `nan` if both masks are empty."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive + self.false_negative)

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN); `nan` if the reference is empty."""
        return _ratio(self.true_positive, self.num_reference)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP); `nan` if the reference fills the volume."""
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def precision(self) -> float:
        """TP / (TP + FP); `nan` if the prediction is empty."""
        return _ratio(self.true_positive, self.num_prediction)


def confusion_counts(prediction: Bool[np.ndarray, "..."], reference: Bool[np.ndarray, "..."]) -> ConfusionCounts:
    """Count the voxels of two masks by agreement.

    Raises:
        GridMismatchError: The masks have different shapes.
    """
    require_same_grid(prediction, reference)
    both = int(np.count_nonzero(prediction & reference))
    predicted, referred = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    return ConfusionCounts(both, predicted - both, referred - both, prediction.size - predicted - referred + both)


def dice(prediction: Bool[np.ndarray, "..."], reference: Bool[np.ndarray, "..."]) -> float:
    """Return the Dice coefficient 2 n(A and B) / (n(A) + n(B)); `nan` if both masks are empty.

    Raises:
        GridMismatchError: The masks have different shapes.

    Source:
        Dice, Ecology 26:297 (1945).
    """
    return confusion_counts(prediction, reference).dice


def iou(prediction: Bool[np.ndarray, "..."], reference: Bool[np.ndarray, "..."]) -> float:
    """Return intersection over union n(A and B) / n(A or B); `nan` if both masks are empty.

    Raises:
        GridMismatchError: The masks have different shapes.
    """
    return confusion_counts(prediction, reference).iou


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")

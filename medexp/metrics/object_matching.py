"""Which predicted object is which object of the reference, and what that says about a prediction."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medexp.errors import ConfigurationError
from medexp.metrics.grids import require_same_grid

# 0.50, 0.55, ... 0.95; as quotients, so that an IoU of 11/20 reaches the second exactly.
AP_THRESHOLDS = tuple(step / 20 for step in range(10, 20))


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pairs of objects that share a pixel, with their IoU; all other pairs have none.

    Attributes:
        predicted: Number of the predicted object of each pair.
        reference: Number of the reference object of each pair.
        iou: Intersection over union of each pair.
        num_predicted: Predicted objects, with those that overlap nothing.
        num_reference: Reference objects, with those that overlap nothing.
    """

    predicted: Int64[np.ndarray, " pair"]
    reference: Int64[np.ndarray, " pair"]
    iou: Float64[np.ndarray, " pair"]
    num_predicted: int
    num_reference: int


@dataclass(frozen=True)
class ObjectMatches:
    """Objects matched one to one at an IoU of at least `threshold`.

    Ratios are `nan` where there is nothing to divide by: precision without predicted objects, recall without
    reference objects, F1 and average precision where both sides are empty, the mean IoU without a match.

    Attributes:
        threshold: The least IoU of a match.
        pairs: Predicted number, reference number and IoU of each match, by predicted number.
        num_predicted: Predicted objects.
        num_reference: Reference objects.
    """

    threshold: float
    pairs: tuple[tuple[int, int, float], ...]
    num_predicted: int
    num_reference: int

    @property
    def true_positive(self) -> int:
        """Matches."""
        return len(self.pairs)

    @property
    def false_positive(self) -> int:
        """Predicted objects without a match."""
        return self.num_predicted - len(self.pairs)

    @property
    def false_negative(self) -> int:
        """Reference objects without a match."""
        return self.num_reference - len(self.pairs)

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return _ratio(self.true_positive, self.num_predicted)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return _ratio(self.true_positive, self.num_reference)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return _ratio(2 * self.true_positive, self.num_predicted + self.num_reference)

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN)."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive + self.false_negative)

    @property
    def mean_matched_iou(self) -> float:
        """Mean IoU of the matches."""
        return _ratio(sum(iou for _, _, iou in self.pairs), len(self.pairs))


def overlaps(prediction: Int32[np.ndarray, "..."], reference: Int32[np.ndarray, "..."]) -> Overlaps:
    """Count the pixels that each pair of objects shares; numbers may be missing.

    Raises:
        GridMismatchError: The label maps have different shapes.
    """
    require_same_grid(prediction, reference)
    sizes = [np.bincount(labels.ravel(), minlength=1) for labels in (prediction, reference)]
    both = np.flatnonzero((prediction > 0) & (reference > 0))
    width = sizes[1].size
    codes = prediction.ravel()[both].astype(np.int64) * width + reference.ravel()[both]
    found, shared = np.unique(codes, return_counts=True)
    predicted, referred = np.divmod(found, width)
    union = sizes[0][predicted] + sizes[1][referred] - shared
    num_predicted, num_reference = (int(np.count_nonzero(size[1:])) for size in sizes)
    return Overlaps(predicted, referred, shared / union, num_predicted, num_reference)


def match_objects(found: Overlaps, threshold: float) -> ObjectMatches:
    """Match objects one to one: as many pairs at or above the threshold as possible, then the largest sum of IoU.

    The assignment is the Hungarian one. At 0.5 and above hardly ever two pairs compete, so it is solved apart in
    each group of objects that hang together.

    Args:
        found: From `overlaps`.
        threshold: Least IoU of a match, above 0.

    Raises:
        ConfigurationError: The threshold is not above 0 and at most 1.
    """
    if not 0.0 < threshold <= 1.0:
        raise ConfigurationError(f"evaluate.objects.iou: expected more than 0 and at most 1, got {threshold}")
    near = found.iou >= threshold
    predicted, reference, iou = found.predicted[near], found.reference[near], found.iou[near]
    chosen = _assignment(predicted, reference, iou) if iou.size else np.zeros(0, bool)
    triples = zip(predicted[chosen].tolist(), reference[chosen].tolist(), iou[chosen].tolist(), strict=True)
    return ObjectMatches(threshold, tuple(sorted(triples)), found.num_predicted, found.num_reference)


def pooled(matches: Sequence[ObjectMatches]) -> ObjectMatches:
    """Return the matches of several images as if they were one; numbers of objects repeat."""
    return ObjectMatches(
        threshold=matches[0].threshold,
        pairs=tuple(pair for one in matches for pair in one.pairs),
        num_predicted=sum(one.num_predicted for one in matches),
        num_reference=sum(one.num_reference for one in matches),
    )


def average_precisions(found: Overlaps, thresholds: Sequence[float] = AP_THRESHOLDS) -> dict[float, float]:
    """Return TP / (TP + FP + FN) by IoU threshold; `nan` where there are no objects at all.

    The definition is that of StarDist and Cellpose (the Data Science Bowl of 2018), for objects without a
    confidence. It is not the area under a precision-recall curve that COCO and Pascal VOC call by the same name.
    Their mean over 0.50, 0.55, ... 0.95 is what `mean_average_precision` stands for in the tables.
    """
    return {threshold: match_objects(found, threshold).average_precision for threshold in thresholds}


def _assignment(
    predicted: Int64[np.ndarray, " pair"], reference: Int64[np.ndarray, " pair"], iou: Float64[np.ndarray, " pair"]
) -> Bool[np.ndarray, " pair"]:
    """Return which pairs are matches."""
    rows, columns = (np.unique(numbers, return_inverse=True)[1] for numbers in (predicted, reference))
    num_rows, num_columns = int(rows.max()) + 1, int(columns.max()) + 1
    size = num_rows + num_columns
    graph = coo_array((np.ones(iou.size), (rows, columns + num_rows)), shape=(size, size))
    group_of = connected_components(graph, directed=False)[1][rows]
    chosen = np.bincount(group_of)[group_of] == 1
    for group in np.unique(group_of[~chosen]):
        members = np.flatnonzero(group_of == group)
        own_rows, own_columns = (np.unique(side[members], return_inverse=True)[1] for side in (rows, columns))
        table = np.zeros((own_rows.max() + 1, own_columns.max() + 1))
        table[own_rows, own_columns] = 1.0 + iou[members] / (2.0 * members.size)  # any pair beats any sum of IoU
        best = set(zip(*(side.tolist() for side in linear_sum_assignment(table, maximize=True)), strict=True))
        places = zip(own_rows.tolist(), own_columns.tolist(), strict=True)
        chosen[members] = [place in best for place in places]
    return chosen


def _ratio(numerator: float | int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")

"""Objects of a predicted and a reference mask: both measured, matched, and scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool

from medexp.errors import ConfigurationError
from medexp.metrics.object_labels import ObjectRule, objects_of
from medexp.metrics.object_matching import AP_THRESHOLDS, ObjectMatches, match_objects, overlaps, pooled
from medexp.metrics.objects import ObjectMeasures, measure_objects
from medexp.types import Index, Positive


@dataclass(frozen=True)
class ObjectScoring:
    """What counts as an object, when two objects match, and how large a pixel is.

    Attributes:
        min_area_px: See `ObjectRule`; of both sides alike.
        fill_holes: See `ObjectRule`.
        split_touching: See `ObjectRule`.
        split_depth_px: See `ObjectRule`.
        iou: The least IoU of a match.
        pixel_size_um: Side of a pixel; None: what the files say.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    min_area_px: Index
    fill_holes: bool
    split_touching: bool
    split_depth_px: Positive
    iou: Positive
    pixel_size_um: Positive | None

    def __post_init__(self) -> None:
        if not 0.0 < self.iou <= 1.0:
            raise ConfigurationError(f"evaluate.objects.iou: expected more than 0 and at most 1, got {self.iou}")

    @property
    def rule(self) -> ObjectRule:
        """What counts as an object."""
        return ObjectRule(self.min_area_px, self.fill_holes, self.split_touching, self.split_depth_px)


@dataclass(frozen=True, eq=False)
class ObjectScores:
    """Objects of one label or region of one image.

    Attributes:
        predicted: The prediction's objects.
        reference: The reference's objects.
        matches: Pairs at the IoU that was asked for.
        stricter: Pairs at each of the thresholds 0.50, 0.55, ... 0.95.
    """

    predicted: ObjectMeasures
    reference: ObjectMeasures
    matches: ObjectMatches
    stricter: tuple[ObjectMatches, ...]

    @cached_property
    def mean_average_precision(self) -> float:
        """Mean of `average_precision` over the thresholds; `nan` without any object."""
        return sum(one.average_precision for one in self.stricter) / len(self.stricter)

    def row(self) -> dict[str, float | int]:
        """Return the scores by name, as they head the columns of a per-case table."""
        return {
            "object_f1": self.matches.f1,
            "object_precision": self.matches.precision,
            "object_recall": self.matches.recall,
            "mean_matched_iou": self.matches.mean_matched_iou,
            "mean_average_precision": self.mean_average_precision,
            "objects_matched": self.matches.true_positive,
            "objects_spurious": self.matches.false_positive,
            "objects_missed": self.matches.false_negative,
        }

    def instance_row(self) -> dict[str, float | int]:
        """Return the scores under the names of instance_eval.csv."""
        return instance_row(self.matches, self.stricter)


def instance_row(matches: ObjectMatches, stricter: Sequence[ObjectMatches]) -> dict[str, float | int]:
    """Return the scores of one image, or of several pooled, under the names of instance_eval.csv."""
    precisions = {f"ap_{one.threshold:.2f}": one.average_precision for one in stricter}
    return {
        "tp": matches.true_positive,
        "fp": matches.false_positive,
        "fn": matches.false_negative,
        "precision": matches.precision,
        "recall": matches.recall,
        "f1": matches.f1,
        "mean_matched_iou": matches.mean_matched_iou,
        "n_pred": matches.num_predicted,
        "n_ref": matches.num_reference,
        **precisions,
        "mean_ap": sum(precisions.values()) / len(precisions),
    }


def pooled_row(scores: Sequence[ObjectScores]) -> dict[str, float | int]:
    """Return the scores of all images' objects together: counts are added before anything is divided."""
    stricter = [pooled([one.stricter[index] for one in scores]) for index in range(len(AP_THRESHOLDS))]
    return instance_row(pooled([one.matches for one in scores]), stricter)


def score_objects(
    prediction: Bool[np.ndarray, "row column"],
    reference: Bool[np.ndarray, "row column"],
    scoring: ObjectScoring,
    pixel_size_um: float | int | None,
) -> ObjectScores:
    """Find, measure and match the objects of two masks on one grid.

    Raises:
        GridMismatchError: The masks have different shapes.
    """
    own, other = objects_of(prediction, scoring.rule), objects_of(reference, scoring.rule)
    found = overlaps(own, other)
    return ObjectScores(
        predicted=measure_objects(own, pixel_size_um),
        reference=measure_objects(other, pixel_size_um),
        matches=match_objects(found, scoring.iou),
        stricter=tuple(match_objects(found, threshold) for threshold in AP_THRESHOLDS),
    )

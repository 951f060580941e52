"""Scores of a predicted label map of an image: overlap of every label and region, in pixels.

Distances between surfaces are for volumes (`medexp.metrics.segmentation`); of images the objects are scored
(`medexp.metrics.object_scores`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Num

from medexp.metrics.grids import mask_of, require_same_grid
from medexp.metrics.overlap import ConfusionCounts, confusion_counts


@dataclass(frozen=True)
class AreaScores:
    """Overlap of one label or region in one image; what is undefined is `nan`."""

    values: tuple[int, ...]
    counts: ConfusionCounts

    @property
    def dice(self) -> float:
        """Dice; `nan` if both masks are empty."""
        return self.counts.dice

    @property
    def iou(self) -> float:
        """Intersection over union; `nan` if both masks are empty."""
        return self.counts.iou

    def row(self) -> dict[str, float | int]:
        """Return the scores by name, as they head the columns of a per-case table."""
        return {
            "dice": self.dice,
            "iou": self.iou,
            "sensitivity": self.counts.sensitivity,
            "precision": self.counts.precision,
            "prediction_area_px": self.counts.num_prediction,
            "reference_area_px": self.counts.num_reference,
        }


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image by label and by region."""

    labels: Mapping[str, AreaScores]
    regions: Mapping[str, AreaScores]

    def row(self) -> dict[str, float | int]:
        """Return one row of a per-case table, columns `<score>/<label or region>`."""
        return {
            f"{score}/{name}": value
            for name, scores in {**self.labels, **self.regions}.items()
            for score, value in scores.row().items()
        }


def score_image(
    prediction: Num[np.ndarray, "..."],
    reference: Num[np.ndarray, "..."],
    labels: Mapping[str, int],
    regions: Mapping[str, Sequence[str]],
) -> ImageScores:
    """Score a predicted label map against its reference.

    Args:
        prediction: Predicted label map; 0 is background.
        reference: Reference label map on the same grid.
        labels: Value of each label.
        regions: Labels that each region joins; names of `labels` only.

    Raises:
        GridMismatchError: The label maps have different shapes.
    """
    require_same_grid(prediction, reference)

    def scores(values: tuple[int, ...]) -> AreaScores:
        return AreaScores(values, confusion_counts(mask_of(prediction, values), mask_of(reference, values)))

    return ImageScores(
        labels={name: scores((value,)) for name, value in labels.items()},
        regions={name: scores(tuple(sorted(labels[label] for label in members))) for name, members in regions.items()},
    )

"""Scores of a predicted label map: overlap and surface distance of every label and region of a case."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import SupportsFloat

import numpy as np
from jaxtyping import Bool, Real

from medexp.errors import CaseError, ConfigurationError, UnknownOptionError
from medexp.metrics.grids import Spacing, bounding_box, hull, mask_of, require_same_grid, spacing_on
from medexp.metrics.overlap import ConfusionCounts, confusion_counts
from medexp.metrics.surface import distances_between, robust_hausdorff_mm, surface_dice
from medexp.metrics.surface_points import corner_surface


@dataclass(frozen=True)
class MaskScores:
    """Scores of one label or region of one case.

    What is undefined is `nan` and what is infinitely wrong is `inf`; `medexp.metrics.summary` says what becomes of
    them.

    Attributes:
        values: The label values that were scored as one mask.
        counts: Voxels by agreement; Dice and IoU follow from them.
        hd95_mm: 95th percentile Hausdorff distance; `nan` if both masks are empty, `inf` if one is.
        nsd: Surface Dice by tolerance in mm; `nan` if both masks are empty, 0 if one is.
        prediction_volume_mm3: Volume of the prediction (area in mm2 of an image).
        reference_volume_mm3: Volume of the reference (area in mm2 of an image).
    """

    values: tuple[int, ...]
    counts: ConfusionCounts
    hd95_mm: float
    nsd: Mapping[float, float]
    prediction_volume_mm3: float
    reference_volume_mm3: float

    @property
    def dice(self) -> float:
        """Dice; `nan` if both masks are empty."""
        return self.counts.dice

    @property
    def iou(self) -> float:
        """Intersection over union; `nan` if both masks are empty."""
        return self.counts.iou

    def row(self) -> dict[str, float]:
        """Return the scores by name, as they head the columns of a per-case table."""
        return {
            "dice": self.dice,
            "iou": self.iou,
            "hd95_mm": self.hd95_mm,
            **{f"nsd_{tolerance:g}mm": value for tolerance, value in self.nsd.items()},
            "sensitivity": self.counts.sensitivity,
            "precision": self.counts.precision,
            "prediction_volume_mm3": self.prediction_volume_mm3,
            "reference_volume_mm3": self.reference_volume_mm3,
            "true_positive": self.counts.true_positive,
            "false_positive": self.counts.false_positive,
            "false_negative": self.counts.false_negative,
            "true_negative": self.counts.true_negative,
        }


@dataclass(frozen=True)
class CaseScores:
    """Scores of one case by label and by region."""

    spacing_mm: tuple[float, ...]
    labels: Mapping[str, MaskScores]
    regions: Mapping[str, MaskScores]

    def row(self) -> dict[str, float]:
        """Return one row of a per-case table, columns `<score>/<label or region>`."""
        return {
            f"{score}/{name}": value
            for name, scores in {**self.labels, **self.regions}.items()
            for score, value in scores.row().items()
        }


def score_case(
    prediction: Real[np.ndarray, "..."],
    reference: Real[np.ndarray, "..."],
    spacing_mm: Spacing,
    labels: Mapping[str, int],
    regions: Mapping[str, Sequence[str]],
    nsd_tolerances_mm: Iterable[SupportsFloat],
) -> CaseScores:
    """Score a predicted label map against its reference.

    Args:
        prediction: Predicted label map, two or three axes; 0 is background.
        reference: Reference label map on the same grid.
        spacing_mm: Voxel size along each axis.
        labels: Value of each label. A label of value 0 is the background and is not scored.
        regions: Labels that each region joins.
        nsd_tolerances_mm: Tolerances of the surface Dice.

    Returns:
        Scores of every label and region.

    Raises:
        GridMismatchError: The label maps have different shapes.
        CaseError: A label map holds a value that no label has, or the voxel sizes do not fit.
        UnknownOptionError: A region names a label that does not exist.
        ConfigurationError: A label and a region share a name but not their values.
    """
    require_same_grid(prediction, reference)
    spacing = spacing_on(reference, spacing_mm)
    values = _values_by_name(labels, regions)
    frame = hull(bounding_box(prediction), bounding_box(reference))
    known = [value for value in labels.values() if value != 0]
    predicted, referred = np.ascontiguousarray(prediction[frame]), np.ascontiguousarray(reference[frame])
    _require_known_values(predicted, known, "prediction")
    _require_known_values(referred, known, "reference")

    tolerances_mm = tuple(float(tolerance) for tolerance in nsd_tolerances_mm)
    scores = {
        chosen: _score_masks(
            mask_of(predicted, chosen), mask_of(referred, chosen), chosen, spacing, reference.size, tolerances_mm
        )
        for chosen in set(values.values())
    }
    return CaseScores(
        spacing_mm=spacing,
        labels={name: scores[values[name]] for name, value in labels.items() if value != 0},
        regions={name: scores[values[name]] for name in regions},
    )


def _score_masks(
    prediction: Bool[np.ndarray, "*grid"],
    reference: Bool[np.ndarray, "*grid"],
    values: tuple[int, ...],
    spacing_mm: tuple[float, ...],
    volume_voxels: int,
    nsd_tolerances_mm: tuple[float, ...],
) -> MaskScores:
    """Score two masks cut from a volume of `volume_voxels`, inside the box around both."""
    box = hull(bounding_box(prediction), bounding_box(reference))
    prediction, reference = prediction[box], reference[box]
    counts = confusion_counts(prediction, reference)
    counts = replace(counts, true_negative=counts.true_negative + volume_voxels - reference.size)
    origin = (0,) * reference.ndim
    distances = distances_between(
        corner_surface(prediction.view(np.uint8), spacing_mm, origin),
        corner_surface(reference.view(np.uint8), spacing_mm, origin),
    )
    voxel_mm3 = float(np.prod(spacing_mm))
    return MaskScores(
        values=values,
        counts=counts,
        hd95_mm=robust_hausdorff_mm(distances),
        nsd={tolerance: surface_dice(distances, tolerance) for tolerance in nsd_tolerances_mm},
        prediction_volume_mm3=counts.num_prediction * voxel_mm3,
        reference_volume_mm3=counts.num_reference * voxel_mm3,
    )


def _values_by_name(labels: Mapping[str, int], regions: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, ...]]:
    singles = {name: int(value) for name, value in labels.items() if value != 0}
    values: dict[str, tuple[int, ...]] = {name: (value,) for name, value in singles.items()}
    for region, members in regions.items():
        unknown = [name for name in members if name not in singles]
        if unknown:
            raise UnknownOptionError(
                f"region {region}: expected names of labels ({', '.join(singles)}), got {', '.join(unknown)}; "
                "correct the region or add the label"
            )
        joined = tuple(sorted({singles[name] for name in members}))
        if region in singles and joined != values[region]:
            raise ConfigurationError(
                f"expected different names for labels and regions, got {region} for both, with the values "
                f"{values[region]} and {joined}; rename the region"
            )
        values[region] = joined
    return values


def _require_known_values(labels: Real[np.ndarray, "..."], known: list[int], role: str) -> None:
    strange = (labels != 0) & ~mask_of(labels, known)
    if strange.any():
        found = np.unique(labels[strange])[:10].tolist()
        raise CaseError(
            f"expected only the label values {sorted(known)} and 0 in the {role}, got also {found}; "
            "prepare the case with the labels of this dataset, or add the missing labels"
        )

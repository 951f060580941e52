"""The `summary.json` of nnU-Net's evaluation, from scores of medexp."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from medexp.errors import CohortError
from medexp.metrics.image_scores import AreaScores, ImageScores
from medexp.metrics.segmentation import CaseScores, MaskScores


class ScoredFiles(NamedTuple):
    """Scores of one case and the files that they compare."""

    scores: CaseScores | ImageScores
    prediction_file: str
    reference_file: str


def nnunet_summary(cases: Sequence[ScoredFiles]) -> dict[str, Any]:
    """Return the content of nnU-Net's `summary.json`.

    Labels stand under their values as text ("1"), regions of several labels under theirs ("(1, 2, 3)"). Dice and
    IoU are `nan` where a label is in neither mask. Means over cases leave such cases out, which can raise a mean:
    `medexp.metrics.summary` counts them. The mean over labels and regions is plain, so it is `nan` if one of them
    is in no case.

    Raises:
        CohortError: There are no cases, or they were not scored for the same labels.

    Source:
        MIC-DKFZ/nnUNet, `evaluation/evaluate_predictions.py` (Apache-2.0); the shape of the file, re-implemented.
    """
    per_case: list[dict[str, Any]] = [
        {
            "metrics": _metrics_by_key(case.scores),
            "prediction_file": case.prediction_file,
            "reference_file": case.reference_file,
        }
        for case in cases
    ]
    keys = [list(case["metrics"]) for case in per_case]
    if not keys or any(own != keys[0] for own in keys):
        raise CohortError(
            f"expected at least one case and the same labels in all, got {len(keys)} cases with the labels "
            f"{sorted({str(own) for own in keys})}; score all cases with the same labels and regions"
        )
    mean = {key: _mean_over([case["metrics"][key] for case in per_case], skip_undefined=True) for key in keys[0]}
    return {
        "foreground_mean": _mean_over(list(mean.values()), skip_undefined=False),
        "mean": mean,
        "metric_per_case": per_case,
    }


def _metrics_by_key(scores: CaseScores | ImageScores) -> dict[str, dict[str, float]]:
    masks = [*scores.labels.values(), *scores.regions.values()]
    return {str(mask.values[0] if len(mask.values) == 1 else mask.values): _metrics(mask) for mask in masks}


def _metrics(mask: MaskScores | AreaScores) -> dict[str, float]:
    counts = mask.counts
    return {
        "Dice": mask.dice,
        "IoU": mask.iou,
        "TP": counts.true_positive,
        "FP": counts.false_positive,
        "FN": counts.false_negative,
        "TN": counts.true_negative,
        "n_pred": counts.num_prediction,
        "n_ref": counts.num_reference,
    }


def _mean_over(metrics: Sequence[dict[str, float]], *, skip_undefined: bool) -> dict[str, float]:
    means = {}
    for name in metrics[0]:
        values = np.array([metric[name] for metric in metrics], dtype=np.float64)
        used = values[~np.isnan(values)] if skip_undefined else values
        means[name] = float(used.mean()) if len(used) else float("nan")
    return means

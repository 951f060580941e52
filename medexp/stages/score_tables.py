"""The tables of an evaluation: rows of cases, regions and lesions, and what they come to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from medexp.metrics.lesions import LesionStatus
from medexp.metrics.summary import ColumnSummary, Policy, summarize_cases
from medexp.stages.scoring import ScoredPair

Row = dict[str, Any]

# What a score is worth where reference and prediction are both empty, by the name of the policy.
_BOTH_EMPTY: Mapping[str, Mapping[str, Policy]] = {
    "nan": {},
    "one": {
        "dice": 1.0,
        "iou": 1.0,
        "nsd": 1.0,
        "hd95_mm": 0.0,
        "mean_dice": 1.0,
        "object_f1": 1.0,
        "mean_average_precision": 1.0,
    },
}

_COUNTS = ("true_positive", "false_positive", "false_negative", "true_negative")
_BOOTSTRAP_SEED = 0
_NUM_RESAMPLES = 2000
LESION_COLUMNS = (
    "case", "region", "lesion", "status", "is_counted", "volume_mm3", "prediction_volume_mm3", "dice", "hd95_mm",
)  # fmt: skip


@dataclass(frozen=True)
class Foreground:
    """The mean over labels of the mean Dice over cases, with a 95 % bootstrap interval over cases.

    `num_cases` have at least one defined label. `labels_without_value` are defined in no case and left out.
    """

    mean: float
    low: float
    high: float
    num_cases: int
    labels_without_value: tuple[str, ...]


def case_rows(scored: Sequence[ScoredPair]) -> list[Row]:
    """Return one row per case, columns `<score>/<label or region>`; values as measured, no policy applied.

    `mean_dice` is the mean over the labels that are defined in the case.
    """
    return [_case_row(one) for one in scored]


def _case_row(one: ScoredPair) -> Row:
    measured = {column: value for column, value in one.scores.row().items() if column.split("/")[0] not in _COUNTS}
    defined = [mask.dice for mask in one.scores.labels.values() if not math.isnan(mask.dice)]
    mean = sum(defined) / len(defined) if defined else float("nan")
    row: Row = {"case": one.pair.case, "patient": one.pair.patient or "", "mean_dice": mean, **measured}
    for structure, objects in (one.objects or {}).items():
        row |= {f"{score}/{structure}": value for score, value in objects.row().items()}
    for region, record in _lesion_records(one).items():
        row |= {f"{_column(name)}/{region}": value for name, value in record.items() if _column(name) is not None}
    return row


def _column(official: str) -> str | None:
    """Return the name of an official lesion-wise column in the per-case table; None: it stands there already."""
    if official.startswith("LesionWise_Score_"):
        kind = official.removeprefix("LesionWise_Score_").split(" @ ")
        return {"Dice": "lesionwise_dice", "HD95": "lesionwise_hd95_mm"}.get(
            kind[0], f"lesionwise_nsd_{float(kind[-1]):g}mm" if len(kind) > 1 else None
        )
    names = {"Num_TP": "lesions_matched", "Num_FP": "lesions_spurious", "Num_FN": "lesions_missed"}
    return names.get(official)


def lesionwise_rows(scored: Sequence[ScoredPair]) -> list[Row]:
    """Return one row per case and region under the official program's column names."""
    return [{"case": one.pair.case, **record} for one in scored for record in _lesion_records(one).values()]


def _lesion_records(one: ScoredPair) -> dict[str, Row]:
    if one.official is not None:
        return {region: dict(scores.record()) for region, scores in one.official.items()}
    if one.toolkit is None:
        return {}
    records = {}
    for region, scores in one.toolkit.items():
        statuses = [lesion.status for lesion in scores.lesions]
        records[region] = {
            "Labels": region,
            "Num_TP": statuses.count(LesionStatus.MATCHED),
            "Num_FP": statuses.count(LesionStatus.SPURIOUS),
            "Num_FN": statuses.count(LesionStatus.MISSED),
            "LesionWise_Score_Dice": scores.dice,
            "LesionWise_Score_HD95": scores.hd95_mm,
        }
    return records


def lesion_rows(scored: Sequence[ScoredPair]) -> list[Row]:
    """Return one row per lesion of the reference, and one per predicted lesion that belongs to none."""
    rows: list[Row] = []
    for one in scored:
        if one.official is not None:
            lesions = [lesion for scores in one.official.values() for lesion in scores.lesions]
            rows += [{"case": one.pair.case, **lesion.row()} for lesion in lesions]
        elif one.toolkit is not None:
            rows += _toolkit_lesions(one)
    return rows


def _toolkit_lesions(one: ScoredPair) -> list[Row]:
    voxel_mm3 = math.prod(one.spacing or ())
    return [
        {
            "case": one.pair.case,
            "region": region,
            "lesion": index,
            "status": str(lesion.status),
            "is_counted": True,
            "volume_mm3": lesion.reference_voxels * voxel_mm3,
            "prediction_volume_mm3": lesion.prediction_voxels * voxel_mm3,
            "dice": lesion.dice,
            "hd95_mm": lesion.hd95_mm,
        }
        for region, scores in (one.toolkit or {}).items()
        for index, lesion in enumerate(scores.lesions, start=1)
    ]


def summaries(rows: Sequence[Row], *, empty_reference: str) -> dict[str, ColumnSummary]:
    """Return the statistics of every column of the per-case table, with a 95 % bootstrap interval of the mean.

    An undefined value (both masks empty) is left out and counted, or worth what `empty_reference` says. An
    infinite distance (one mask empty) is left out of the statistics and counted in `n_infinite`.
    """
    columns = [name for name in rows[0] if name not in {"case", "patient"}]
    found = {}
    for name in columns:
        values = [float(row[name]) for row in rows]
        infinite = sum(math.isinf(value) for value in values)
        used = [{name: value} for value in values if not math.isinf(value)] or [{name: float("nan")}]
        policy = policy_of(name, empty_reference) if infinite < len(values) else "exclude"
        summary = summarize_cases(used, policy, _BOOTSTRAP_SEED, [name], num_resamples=_NUM_RESAMPLES)[name]
        undefined = sum(math.isnan(value) for value in values)
        found[name] = replace(summary, n_undefined=undefined, n_infinite=infinite)
    return found


def policy_of(column: str, empty_reference: str) -> Policy:
    """Return what an undefined value of a column is worth: "exclude", or a number."""
    score = column.split("/")[0]
    kind = "nsd" if score.startswith("nsd_") else score
    return _BOTH_EMPTY[empty_reference].get(kind, "exclude")


def foreground(rows: Sequence[Row], labels: Sequence[str], *, empty_reference: str) -> Foreground:
    """Return the mean foreground Dice: labels count alike, however many cases have them (as nnU-Net's does)."""
    dice = np.array([[float(row[f"dice/{label}"]) for label in labels] for row in rows], np.float64)
    if empty_reference == "one":
        dice = np.nan_to_num(dice, nan=1.0)
    known = ~np.isnan(dice)
    drawn = np.random.default_rng(_BOOTSTRAP_SEED).integers(len(rows), size=(_NUM_RESAMPLES, len(rows)))
    means = np.array([_mean_of_means(dice[sample]) for sample in drawn]) if len(rows) > 1 else np.array([np.nan])
    means = means[~np.isnan(means)]
    low, high = np.percentile(means, [2.5, 97.5]) if means.size else (np.nan, np.nan)
    missing = tuple(label for index, label in enumerate(labels) if not known[:, index].any())
    return Foreground(_mean_of_means(dice), float(low), float(high), int(known.any(axis=1).sum()), missing)


def _mean_of_means(dice: Float64[np.ndarray, "case label"]) -> float:
    known = ~np.isnan(dice)
    counts = known.sum(axis=0)
    means = np.where(known, dice, 0.0).sum(axis=0)[counts > 0] / counts[counts > 0]
    return float(means.mean()) if means.size else float("nan")


def score_lines(
    columns: Mapping[str, ColumnSummary], structures: Sequence[str], *, nsd_mm: float | None, num_cases: int
) -> list[str]:
    """Return the scores as lines of text: one per label and region, with the cases that each mean stands on."""
    shown = [("Dice", "dice", 3), ("HD95 mm", "hd95_mm", 1)]
    if nsd_mm is not None:
        shown.append((f"NSD {nsd_mm:g} mm", f"nsd_{nsd_mm:g}mm", 3))
    shown += [("object F1", "object_f1", 3), ("AP 0.50-0.95", "mean_average_precision", 3)]
    shown += [("lesion Dice", "lesionwise_dice", 3), ("lesion HD95", "lesionwise_hd95_mm", 1)]
    shown = [entry for entry in shown if any(f"{entry[1]}/{name}" in columns for name in structures)]
    width = max(len(name) for name in ("", *structures))
    head = " " * width + "".join(f"  {title:>20}" for title, _, _ in shown)
    lines = [head]
    for name in structures:
        cells = [_text_cell(columns.get(f"{score}/{name}"), decimals, num_cases) for _, score, decimals in shown]
        lines.append(f"{name:<{width}}" + "".join(f"  {cell:>20}" for cell in cells))
    return lines


def _text_cell(summary: ColumnSummary | None, decimals: int, num_cases: int) -> str:
    if summary is None:
        return ""
    mean = "-" if math.isnan(summary.mean) else f"{summary.mean:.{decimals}f}"
    return f"{mean} ({summary.n_used}/{num_cases})"

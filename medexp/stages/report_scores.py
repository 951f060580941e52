"""The tables and the figure of scores in a report."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medexp.plots.distributions import ScorePanel, score_strips
from medexp.plots.pages import NONE, distance, milliliters, score
from medexp.plots.theme import inline_svg
from medexp.stages.recorded_evaluation import Evaluation

_SHARE, _MM = "share", "mm"


def tiles(evaluation: Evaluation) -> list[dict[str, str]]:
    """Return the headline numbers with their intervals and the cases that they stand on."""
    total = int(evaluation.summary["num_cases"])
    main = evaluation.main_structure
    found = [_tile("Mean foreground Dice", evaluation.summary["mean_foreground_dice"], _SHARE, total)]
    wanted = [
        (f"Dice, {main}", f"dice/{main}", _SHARE),
        (f"HD95, {main}", f"hd95_mm/{main}", _MM),
        (f"Lesion-wise Dice, {main}", f"lesionwise_dice/{main}", _SHARE),
        (f"Object F1, {main}", f"object_f1/{main}", _SHARE),
        (f"Average precision 0.50–0.95, {main}", f"mean_average_precision/{main}", _SHARE),
    ]
    if evaluation.main_nsd_mm is not None and f"lesionwise_dice/{main}" not in evaluation.columns:
        nsd = f"nsd_{evaluation.main_nsd_mm:g}mm"
        wanted.insert(2, (f"NSD at {evaluation.main_nsd_mm:g} mm, {main}", f"{nsd}/{main}", _SHARE))
    return found + [
        _tile(name, evaluation.columns[column], unit, total)
        for name, column, unit in wanted
        if column in evaluation.columns
    ]


def _tile(name: str, summary: Mapping[str, Any], unit: str, total: int) -> dict[str, str]:
    used = int(summary["n_used"])
    cases = f"{used} of {total} cases" if used < total else f"{total} case{'s' if total != 1 else ''}"
    interval = _interval(summary, unit)
    detail = f"{interval} · {cases}" if interval else cases
    value = _number(summary["mean"], unit)
    return {"name": name, "value": value, "unit": "mm" if unit == _MM else "", "detail": detail}


def _number(value: float | None, unit: str) -> str:
    return distance(value) if unit == _MM else score(value)


def _interval(summary: Mapping[str, Any], unit: str) -> str:
    low, high = summary["ci_low"], summary["ci_high"]
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"{_number(low, unit)}–{_number(high, unit)}"


def score_table(evaluation: Evaluation) -> dict[str, Any]:
    """Return the scores by label and region: mean with interval, median, cases used."""
    shown = _shown_scores(evaluation)
    rows: list[dict[str, Any]] = []
    for name in evaluation.structures:
        members = evaluation.settings["regions"].get(name)
        rows.append(
            {
                "name": name,
                "color": evaluation.colors[name],
                "detail": " + ".join(members) if members else "",
                "starts_group": rows != [] and name not in evaluation.labels and rows[-1]["is_label"],
                "is_label": name in evaluation.labels,
                "cells": [_cell(evaluation.columns.get(f"{column}/{name}"), unit) for _, column, unit in shown],
            }
        )
    policy = {
        "nan": "Where reference and prediction are both empty nothing is measured: such cases are left out.",
        "one": "Where reference and prediction are both empty the score is perfect.",
    }[evaluation.settings["empty_reference"]]
    caption = f"Means over cases with 95 % bootstrap intervals; n is the number of cases behind each. {policy}"
    if any(unit == _MM for _, _, unit in shown):
        caption += " A distance to an empty mask is infinite and left out as well; n says so."
    return {"columns": [title for title, _, _ in shown], "rows": rows, "caption": caption}


def _shown_scores(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    shown = [("Dice", "dice", _SHARE), ("HD95 (mm)", "hd95_mm", _MM)]
    if evaluation.main_nsd_mm is not None:
        nsd_mm = f"{evaluation.main_nsd_mm:g}"
        shown.append((f"NSD at {nsd_mm} mm", f"nsd_{nsd_mm}mm", _SHARE))
    if evaluation.settings["protocol"] is not None:
        shown.append(("Lesion-wise Dice", "lesionwise_dice", _SHARE))
        shown.append(("Lesion-wise HD95 (mm)", "lesionwise_hd95_mm", _MM))
    shown += (
        [
            ("IoU", "iou", _SHARE),
            ("Object F1", "object_f1", _SHARE),
            ("Average precision 0.50–0.95", "mean_average_precision", _SHARE),
        ]
        if evaluation.of_images
        else []
    )
    return [
        entry for entry in shown if any(f"{entry[1]}/{name}" in evaluation.columns for name in evaluation.structures)
    ]


def _cell(summary: Mapping[str, Any] | None, unit: str) -> dict[str, Any]:
    if summary is None:
        return {"mean": "", "interval": "", "median": "", "num_used": "", "num_undefined": 0}
    undefined = int(summary["n_undefined"]) if summary["empty_reference"] == "exclude" else 0
    return {
        "mean": _number(summary["mean"], unit),
        "interval": _interval(summary, unit),
        "median": _number(summary["median"], unit),
        "num_used": int(summary["n_used"]),
        "num_undefined": undefined + int(summary["n_infinite"]),
    }


def strips(evaluation: Evaluation) -> str:
    """Return the spread of the scores over cases as an SVG element."""
    panels = []
    for title, column, unit in _shown_scores(evaluation):
        if column.startswith(("nsd_", "lesionwise_hd95")):
            continue
        names = [name for name in evaluation.structures if f"{column}/{name}" in evaluation.columns]
        values = {name: [row[f"{column}/{name}"] for row in evaluation.cases] for name in names}
        if set(names) == set(evaluation.structures):
            panels.append(ScorePanel(title, values, (0.0, 1.0) if unit == _SHARE else None))
    figure = score_strips(panels, colors=evaluation.colors)
    return inline_svg(figure, name="strips", description="Scores of every case by label and region")


def all_cases(evaluation: Evaluation) -> dict[str, Any]:
    """Return one row per case, worst first, with the Dice of every label and region."""
    dice = [name for name in evaluation.structures if f"dice/{name}" in evaluation.columns]
    title, last = _last_column(evaluation)
    rows = [
        {
            "case": row["case"],
            "cells": [_case_cell(row["mean_dice"]), *(_case_cell(row[f"dice/{name}"]) for name in dice), last(row)],
        }
        for row in evaluation.cases
    ]
    return {"columns": ["mean Dice", *dice, title], "rows": rows}


def _last_column(evaluation: Evaluation) -> tuple[str, Callable[[Mapping[str, Any]], dict[str, Any]]]:
    """Return what the table of all cases ends with: objects of images, a distance of volumes."""
    main = evaluation.main_structure
    if evaluation.of_images:
        return f"object F1 {main}", lambda row: _case_cell(row[f"object_f1/{main}"])
    return f"HD95 {main} (mm)", lambda row: {"text": distance(row[f"hd95_mm/{main}"]), "share": None}


def _case_cell(value: float) -> dict[str, Any]:
    return {"text": score(value), "share": None if math.isnan(value) else value}


def case_table(evaluation: Evaluation, row: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns and rows of one case's table."""
    nsd_mm = evaluation.main_nsd_mm
    shown: list[tuple[str, str, Any]] = [("Dice", "dice", score), ("HD95 (mm)", "hd95_mm", distance)]
    if nsd_mm is not None:
        shown.append((f"NSD at {nsd_mm:g} mm", f"nsd_{nsd_mm:g}mm", score))
    shown += [
        ("reference (ml)", "reference_volume_mm3", milliliters),
        ("prediction (ml)", "prediction_volume_mm3", milliliters),
        ("lesion-wise Dice", "lesionwise_dice", score),
        ("IoU", "iou", score),
        ("reference (px)", "reference_area_px", _count),
        ("prediction (px)", "prediction_area_px", _count),
        ("object F1", "object_f1", score),
        ("AP 0.50–0.95", "mean_average_precision", score),
        ("found", "objects_matched", _count),
        ("missed", "objects_missed", _count),
        ("spurious", "objects_spurious", _count),
        ("found", "lesions_matched", _count),
        ("missed", "lesions_missed", _count),
        ("spurious", "lesions_spurious", _count),
    ]
    if not evaluation.of_images:  # overlap has its table above; a volume's card is about lesions
        shown = [entry for entry in shown if entry[1] != "iou"]
    shown = [entry for entry in shown if any(f"{entry[1]}/{name}" in row for name in evaluation.structures)]
    rows = [
        {
            "name": name,
            "color": evaluation.colors[name],
            "cells": [_formatted(row, f"{column}/{name}", text) for _, column, text in shown],
        }
        for name in evaluation.structures
    ]
    return [title for title, _, _ in shown], rows


def _formatted(row: Mapping[str, Any], column: str, text: Any) -> str:
    return str(text(row[column])) if column in row else ""


def _count(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:.0f}"


def lesion_records(evaluation: Evaluation, case: str) -> Sequence[dict[str, Any]]:
    """Return the lesions of a case as the page shows them; a spurious one has no volume in the reference."""
    return [
        {
            "region": row["region"],
            "color": evaluation.colors[row["region"]],
            "number": row["lesion"],
            "status": row["status"],
            "is_counted": row["is_counted"] == "true",
            "reference_mm3": None if row["status"] == "spurious" else float(row["volume_mm3"]),
            "prediction_mm3": float(row["prediction_volume_mm3"]),
            "dice": float(row["dice"]),
            "hd95_mm": float(row["hd95_mm"]),
        }
        for row in evaluation.lesions_of.get(case, [])
    ]

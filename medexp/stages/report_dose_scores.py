"""The tables of a report of doses: scores by structure, gamma by criteria, box plots, all cases, one case."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medexp.plots.dose_spread import BoxPanel, box_plots
from medexp.plots.pages import NONE, gray, percent
from medexp.plots.theme import REGION_COLOR, inline_svg
from medexp.stages.recorded_doses import DoseEvaluation

WHOLE = "all voxels"

Text = Callable[[float | None], str]


@dataclass(frozen=True)
class Score:
    """A score of the page: its title, the column of a structure, how it is written, and the end of its scale."""

    title: str
    stem: str
    text: Text
    highest: float | None = None

    def column(self, structure: str) -> str:
        """Return the column of the per-case table."""
        return self.stem if structure == WHOLE else f"{self.stem}/{structure}"


_ERROR = Score("MAE (Gy)", "mae_gy", gray)
_D95 = Score("D95 error (Gy)", "d95_error_gy", gray)
_SHOWN = (
    _ERROR,
    _D95,
    Score("Dmean error (Gy)", "dmean_error_gy", gray),
    Score("D2 error (Gy)", "d2_error_gy", gray),
    Score("D0.1cc error (Gy)", "d0.1cc_error_gy", gray),
)


def gammas_of(doses: DoseEvaluation) -> list[Score]:
    """Return the pass rates by every criterion."""
    return [
        Score(f"gamma {text} (%)", f"gamma_pass_rate_{name}", percent, 100.0)
        for name, text in doses.scoring.texts.items()
    ]


def interval(summary: Mapping[str, Any], text: Text) -> str:
    """Return the interval of a mean; empty where there is none."""
    low, high = summary["ci_low"], summary["ci_high"]
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"{text(low)}–{text(high)}"


def score_table(doses: DoseEvaluation) -> dict[str, Any]:
    """Return the errors of all voxels and of every structure: mean with interval, median, cases used."""
    caption = (
        "Means over cases with 95 % bootstrap intervals; n is the number of cases behind each. A case without a "
        "structure has no value for it and is left out; n says so. Errors of DVH points are absolute differences."
    )
    rows = _rows(doses, _SHOWN, (WHOLE, *doses.structures), _prescribed)
    return {"columns": [score.title for score in _SHOWN], "rows": rows, "caption": caption}


def gamma_table(doses: DoseEvaluation) -> dict[str, Any] | None:
    """Return the pass rates on the whole grid and near every target; None where gamma was not asked for."""
    shown = gammas_of(doses)
    rows = _rows(doses, shown, (WHOLE, *doses.targets), _margin)
    return {"columns": list(doses.scoring.texts.values()), "rows": rows} if shown else None


def _rows(
    doses: DoseEvaluation,
    shown: Sequence[Score],
    names: Sequence[str],
    detail: Callable[[DoseEvaluation, str], str],
) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "color": doses.colors.get(name, REGION_COLOR),
            "detail": detail(doses, name),
            "starts_group": name not in doses.targets and previous in doses.targets,
            "cells": [_cell(doses.columns.get(score.column(name)), score.text) for score in shown],
        }
        for previous, name in zip(("", *names), names, strict=False)
    ]


def _prescribed(doses: DoseEvaluation, structure: str) -> str:
    dose = doses.scoring.targets.get(structure)
    return "" if dose is None else f"prescribed {float(dose):g} Gy"


def _margin(doses: DoseEvaluation, structure: str) -> str:
    return "" if structure == WHOLE else f"and {float(doses.scoring.ptv_margin_mm):g} mm around it"


def _cell(summary: Mapping[str, Any] | None, text: Text) -> dict[str, Any]:
    if summary is None:
        return {"mean": "", "interval": "", "median": "", "num_used": "", "num_undefined": 0}
    return {
        "mean": text(summary["mean"]),
        "interval": interval(summary, text),
        "median": text(summary["median"]),
        "num_used": int(summary["n_used"]),
        "num_undefined": int(summary["n_undefined"]),
    }


def boxes(doses: DoseEvaluation) -> str:
    """Return box plots over cases as an SVG element: error by structure, gamma and D95 by target."""
    panels = [
        _panel(doses, _ERROR, (WHOLE, *doses.structures)),
        *(_panel(doses, score, (WHOLE, *doses.targets)) for score in gammas_of(doses)[:1]),
        _panel(doses, _D95, doses.targets),
    ]
    figure = box_plots([panel for panel in panels if panel.values], colors=doses.colors)
    return inline_svg(figure, name="boxes", description="Scores of every case by structure")


def _panel(doses: DoseEvaluation, score: Score, names: Sequence[str]) -> BoxPanel:
    columns = {name: score.column(name) for name in names if score.column(name) in doses.columns}
    values = {name: [row[column] for row in doses.evaluation.cases] for name, column in columns.items()}
    return BoxPanel(score.title, values, score.highest)


def all_cases(doses: DoseEvaluation) -> dict[str, Any]:
    """Return one row per case, worst first."""
    gammas = [(f"gamma {text}", f"gamma_pass_rate_{name}", percent) for name, text in doses.scoring.texts.items()]
    shown: list[tuple[str, str, Text]] = [("MAE (Gy)", "mae_gy", gray)]
    shown += [(f"MAE {name}", f"mae_gy/{name}", gray) for name in doses.targets]
    shown += gammas
    shown += [(f"D95 error {name}", f"d95_error_gy/{name}", gray) for name in doses.targets]
    shown += [
        ("OpenKBP dose (Gy)", "openkbp_dose_error_gy", gray),
        ("OpenKBP DVH (Gy)", "openkbp_dvh_error_gy", gray),
        ("limits violated", "limits_violated", _count),
    ]
    shown = [entry for entry in shown if entry[1] in doses.columns]
    rows = [
        {"case": row["case"], "cells": [_case_cell(row[column], text) for _, column, text in shown]}
        for row in doses.evaluation.cases
    ]
    return {"columns": [title for title, _, _ in shown], "rows": rows}


def _case_cell(value: float, text: Text) -> dict[str, Any]:
    share = value / 100.0 if text is percent and not math.isnan(value) else None
    return {"text": text(value), "share": share}


def _count(value: float | None) -> str:
    return NONE if value is None or math.isnan(value) else f"{value:.0f}"


def case_table(doses: DoseEvaluation, row: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns and rows of one case's table: errors, and points of both DVHs."""
    points = ("dmean_gy", "d95_gy", "d0.1cc_gy")
    titles = ["MAE (Gy)"]
    for point in points:
        name = point.removesuffix("_gy").replace("d", "D", 1)
        titles += [f"{name} predicted (Gy)", "reference"]
    rows = []
    for name in doses.structures:
        if math.isnan(row[f"mae_gy/{name}"]):
            continue
        pairs = [(f"{point}/{name}", f"reference_{point}/{name}") for point in points]
        columns = [f"mae_gy/{name}", *(column for pair in pairs for column in pair)]
        cells = [gray(row[column]) if column in row else "" for column in columns]
        rows.append({"name": name, "color": doses.colors[name], "cells": cells})
    return titles, rows

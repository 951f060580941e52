"""What a report of doses has that others have not: figures of the worst cases, limits, DVHs, their definitions."""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from medexp.runs.processes import for_each
from medexp.stages.recorded_doses import DoseEvaluation
from medexp.stages.recorded_evaluation import Evaluation
from medexp.stages.report_dose_definitions import dose_definitions
from medexp.stages.report_dose_figures import TITLES, CaseToDraw, DrawnCase, draw_case
from medexp.stages.report_dose_limits import limits_of_case, limits_over_cases
from medexp.stages.report_dose_scores import all_cases, boxes, case_table, gamma_table, score_table
from medexp.stages.report_dose_tiles import tiles

log = logging.getLogger(__name__)

_DRAWN_HERE = 3  # cases; processes for so few would start more slowly than they draw
_OPEN = ("wash", "dvh")  # figures that are seen at once; the others unfold
_MAX_NAMED = 8


@dataclass(frozen=True)
class DosePage:
    """What a template needs, what a reader must know first, and the files of the figures by output name."""

    values: Mapping[str, Any]
    warnings: Sequence[str]
    files: Mapping[str, Path]
    colors: Mapping[str, str]


def dose_page(evaluation: Evaluation, max_cases: int, *, folder: Path) -> DosePage:
    """Return everything that is special to doses.

    Args:
        evaluation: Of doses.
        max_cases: Cases with figures, the worst first.
        folder: Of the report's run; figures are written into its `figures`.
    """
    doses = DoseEvaluation(evaluation)
    drawn = _drawn(doses, max_cases, folder / "figures")
    files = {f"figures/{path.stem}": path for one in drawn for path in one.files.values()}
    shown, total = len(drawn), len(evaluation.cases)
    values = {
        "tiles": tiles(doses),
        "scores": score_table(doses),
        "gamma": gamma_table(doses),
        "strips": Markup(boxes(doses)),
        "worst": [_card(doses, index, one) for index, one in enumerate(drawn)],
        "worst_caption": f"By mean absolute error, {shown} of {total}. Right is on the left. Each figure is a PNG in "
        "the folder figures beside this page.",
        "limits": limits_over_cases(doses.limit_rows, doses.colors),
        "all_cases": all_cases(doses),
        "all_caption": "Worst first. A click on a heading sorts. Every score is in cases.csv beside the evaluation, "
        "every DVH point in dvh.csv, every limit in constraints.csv.",
        "definitions": dose_definitions(doses),
        "objects": None,
        "legend": {},
        "color_of_value": {},
    }
    return DosePage(values, _warnings(doses), files, doses.colors)


def _drawn(doses: DoseEvaluation, max_cases: int, folder: Path) -> list[DrawnCase]:
    evaluation = doses.evaluation
    curves = doses.dvh_curves
    jobs = [
        CaseToDraw(
            case=str(row["case"]),
            number=number,
            files=evaluation.files_of[str(row["case"])],
            curves=curves["cases"].get(str(row["case"]), {}),
            step_gy=float(curves["step_gy"]),
        )
        for number, row in enumerate(evaluation.cases[:max_cases])
    ]
    if jobs:
        folder.mkdir(exist_ok=True)
    function = partial(draw_case, scoring=doses.scoring, colors=doses.colors, folder=folder)
    workers = 1 if len(jobs) <= _DRAWN_HERE else None
    done = dict(for_each(function, jobs, num_workers=workers, what="cases drawn"))
    return [done[index] for index in range(len(jobs))]


def _card(doses: DoseEvaluation, index: int, drawn: DrawnCase) -> dict[str, Any]:
    row = doses.evaluation.cases[index]
    case = str(row["case"])
    files = doses.evaluation.files_of[case]
    columns, rows = case_table(doses, row)
    figures = [
        {"title": TITLES[kind], "svg": Markup(svg), "is_open": kind in _OPEN} for kind, svg in drawn.figures.items()
    ]
    gammas = [
        (text, row[f"gamma_pass_rate_{name}"])
        for name, text in list(doses.scoring.texts.items())[:1]
        if f"gamma_pass_rate_{name}" in row
    ]
    return {
        "rank": index + 1,
        "case": case,
        "patient": files.get("patient") or "",
        "mae_gy": row["mae_gy"],
        "gamma": [{"criteria": text, "percent": value} for text, value in gammas],
        "figures": figures,
        "note": drawn.note,
        "warnings": list(files.get("warnings") or ()),
        "columns": columns,
        "rows": rows,
        "limits": limits_of_case([one for one in doses.limit_rows if one["case"] == case], doses.colors),
    }


def _warnings(doses: DoseEvaluation) -> list[str]:
    found = []
    scoring, files = doses.scoring, doses.evaluation.files_of
    if scoring.criteria and scoring.gamma_subsample > 1:
        found.append(
            f"Gamma stands on every {scoring.gamma_subsample}th voxel along each axis: a proxy, not to be published. "
            "Evaluate with evaluate.doses.gamma_subsample=1."
        )
    if scoring.criteria and scoring.gamma_method != "exact":
        found.append(f"Gamma in tables was computed by {scoring.gamma_method}, in the maps by medexp.")
    warned: defaultdict[str, list[str]] = defaultdict(list)
    for case, entry in files.items():
        for text in entry.get("warnings") or ():
            warned[case].append(str(text))
    if warned:
        named = [f"{case} ({'; '.join(texts)})" for case, texts in list(warned.items())[:_MAX_NAMED]]
        rest = f", and {len(warned) - _MAX_NAMED} more" if len(warned) > _MAX_NAMED else ""
        found.append(f"Cases with warnings: {', '.join(named)}{rest}.")
    small = Counter(row["structure"] for row in doses.dvh_rows if _is_small(row))
    if small:
        named = [f"{name} in {count} case{'s' if count != 1 else ''}" for name, count in small.items()]
        found.append(f"Structures of so few voxels that points of their DVH mean little: {', '.join(named)}.")
    return found


def _is_small(row: Mapping[str, str]) -> bool:
    return row["metric"] == "dmean_gy" and row["is_reliable"].lower() == "false"

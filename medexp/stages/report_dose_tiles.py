"""The headlines of a report of doses: error, gamma, D95, OpenKBP's scores, limits; each with what it stands on."""

import math
from collections.abc import Mapping
from typing import Any

from medexp.io.tables import number
from medexp.metrics.dose_scores import PREDICTION
from medexp.plots.pages import gray, percent
from medexp.stages.recorded_doses import DoseEvaluation
from medexp.stages.report_dose_limits import OUTCOMES
from medexp.stages.report_dose_scores import Text, interval


def tiles(doses: DoseEvaluation) -> list[dict[str, str]]:
    """Return the headline numbers with their intervals, and the cases that they stand on."""
    columns, total = doses.columns, int(doses.evaluation.summary["num_cases"])
    found = [_tile("Mean absolute error", columns["mae_gy"], gray, "Gy", total, _goal(doses.goals["mae_gy"], "Gy"))]
    for name, text in list(doses.scoring.texts.items())[:1]:
        goal = _goal(doses.goals["gamma_pass_rate_percent"], "%")
        found.append(_tile(f"Gamma {text}", columns[f"gamma_pass_rate_{name}"], percent, "%", total, goal))
        for target in doses.targets[:1]:
            near = columns[f"gamma_pass_rate_{name}/{target}"]
            found.append(_tile(f"Gamma {text} near {target}", near, percent, "%", total, ""))
    for target in doses.targets[:1]:
        gap = _mean_gap(doses, target)
        more = "" if math.isnan(gap) else f"prediction − reference {gap:+.2f} Gy".replace("-", "−")
        found.append(_tile(f"D95 error, {target}", columns[f"d95_error_gy/{target}"], gray, "Gy", total, more))
    return [*found, *_openkbp_tiles(doses.evaluation.summary["openkbp"]), *_limit_tiles(doses)]


def _tile(name: str, summary: Mapping[str, Any], text: Text, unit: str, total: int, more: str) -> dict[str, str]:
    used = int(summary["n_used"])
    cases = f"{used} of {total} cases" if used < total else f"{total} case{'s' if total != 1 else ''}"
    parts = [interval(summary, text), cases, more]
    return {"name": name, "value": text(summary["mean"]), "unit": unit, "detail": " · ".join(filter(None, parts))}


def _goal(goal: Mapping[str, Any], unit: str) -> str:
    if goal["met"] is None:
        return ""
    sign = {"<": "<", ">=": "≥"}[goal["comparison"]]
    return f"goal {sign} {goal['goal']:g} {unit}: {'met' if goal['met'] else 'not met'}"


def _mean_gap(doses: DoseEvaluation, target: str) -> float:
    """Return by how much the prediction's D95 is higher than the reference's, on average over cases."""
    gaps = [
        number(row["difference"]) for row in doses.dvh_rows if (row["structure"], row["metric"]) == (target, "d95_gy")
    ]
    return sum(gaps) / len(gaps) if gaps else math.nan


def _openkbp_tiles(openkbp: Mapping[str, Any] | None) -> list[dict[str, str]]:
    if openkbp is None:
        return []
    patients = int(openkbp["num_patients"])
    detail = f"{patients} patient{'s' if patients != 1 else ''}"
    named = [
        ("OpenKBP dose score", "dose_score_gy", detail),
        ("OpenKBP DVH score", "dvh_score_gy", f"{detail}, {openkbp['num_metrics']} metrics"),
    ]
    return [{"name": name, "value": f"{openkbp[key]:.3f}", "unit": "Gy", "detail": text} for name, key, text in named]


def _limit_tiles(doses: DoseEvaluation) -> list[dict[str, str]]:
    rows = doses.limit_rows
    if not rows:
        return []
    counts = {
        side: [sum(row["outcome"] == outcome for row in rows if row["dose"] == side) for outcome in OUTCOMES]
        for side in dict.fromkeys(row["dose"] for row in rows)
    }
    passed, violated, missing = counts[PREDICTION]
    others = [f"{side}: {found[0]} / {found[1]} / {found[2]}" for side, found in counts.items() if side != PREDICTION]
    value = f"{passed} / {violated} / {missing}"
    detail = " · ".join(["passed / violated / missing", *others])
    return [{"name": "Clinical limits, all cases", "value": value, "unit": "", "detail": detail}]

"""The tables of an evaluation of doses: rows of cases, DVH points and limits, and the report in the VMAT layout."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from medexp.metrics.clinical import Outcome
from medexp.metrics.dose_scores import CURVE_STEP_GY, PREDICTION, REFERENCE, WHOLE
from medexp.metrics.dose_scoring import DoseScoring
from medexp.metrics.gamma import GammaSummary
from medexp.metrics.openkbp import CohortScores, pooled_scores
from medexp.metrics.summary import ColumnSummary
from medexp.stages.scored_doses import ScoredDose

Row = dict[str, Any]

DVH_COLUMNS = ("case", "structure", "metric", "reference", "prediction", "difference", "is_reliable")
LIMIT_COLUMNS = (
    "case", "dose", "structure", "region", "limit", "comparison", "bound", "value", "margin", "outcome",
)  # fmt: skip


def case_rows(scored: Sequence[ScoredDose]) -> list[Row]:
    """Return one row per case, all with the same columns; a cell that is undefined in a case is `nan`."""
    rows = [{"case": one.pair.case, "patient": one.pair.patient or "", **one.scores.row()} for one in scored]
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: _defined(row.get(name)) for name in columns} for row in rows]


def _defined(value: Any) -> Any:
    return float("nan") if value is None else value


def dvh_rows(scored: Sequence[ScoredDose]) -> list[Row]:
    """Return one row per point of every structure's DVH; `difference` is prediction minus reference."""
    return [
        {
            "case": one.pair.case,
            "structure": point.structure,
            "metric": point.metric,
            "reference": point.reference,
            "prediction": point.prediction,
            "difference": point.difference,
            "is_reliable": point.structure not in one.scores.unreliable,
        }
        for one in scored
        for point in one.scores.dvh
    ]


def limit_rows(scored: Sequence[ScoredDose]) -> list[Row]:
    """Return one row per limit of the protocol, case and side."""
    return [
        {"case": one.pair.case, "dose": side, **limit.row()}
        for one in scored
        for side, checked in one.scores.limits.items()
        for limit in checked.limits
    ]


def curves_record(scored: Sequence[ScoredDose]) -> Row:
    """Return the cumulative DVHs of every case and structure, in percent at 0, `step_gy`, ... Gy; 0 beyond the end."""
    cases = {
        one.pair.case: {
            structure: {REFERENCE: _rounded(curves.reference), PREDICTION: _rounded(curves.prediction)}
            for structure, curves in one.scores.curves.items()
        }
        for one in scored
    }
    return {"step_gy": CURVE_STEP_GY, "unit": "percent of the structure's volume", "cases": cases}


def _rounded(curve: Float64[np.ndarray, " dose"]) -> list[float]:
    return [float(value) for value in np.round(curve, 3)]


def openkbp_of(scored: Sequence[ScoredDose]) -> CohortScores | None:
    """Return OpenKBP's scores of all cases that have them; None if none has."""
    patients = [one.scores.openkbp for one in scored if one.scores.openkbp is not None]
    return pooled_scores(patients) if patients else None


def limits_summary(scored: Sequence[ScoredDose]) -> Row:
    """Return, for both sides, how many limits are kept, violated and missing, in all cases and by limit."""
    sides = {}
    for side in (REFERENCE, PREDICTION):
        checked = [one.scores.limits[side] for one in scored if side in one.scores.limits]
        counts = {str(outcome): sum(len(case.of(outcome)) for case in checked) for outcome in Outcome}
        by_limit: dict[str, dict[str, int]] = {}
        for limit in (limit for case in checked for limit in case.limits):
            name = f"{limit.structure} {limit.limit.name}"
            by_limit.setdefault(name, {str(outcome): 0 for outcome in Outcome})[str(limit.outcome)] += 1
        passes = [case.overall_pass for case in checked]
        overall = {"passed": passes.count(True), "violated": passes.count(False), "undecided": passes.count(None)}
        sides[side] = {"limits": counts, "cases": overall, "by_limit": by_limit}
    return sides


def dose_report(
    scored: Sequence[ScoredDose],
    columns: Mapping[str, ColumnSummary],
    scoring: DoseScoring,
) -> Row:
    """Return the report in the layout of the VMAT system, from all cases and the statistics of their table."""
    openkbp = openkbp_of(scored)
    aggregate: Row = {name: summary.row() for name, summary in columns.items() if "/" not in name}
    if openkbp is not None:
        aggregate["openkbp"] = openkbp_row(openkbp)
    return {
        "num_cases": len(scored),
        "aggregate_metrics": aggregate,
        "per_case_results": [_case_record(one, scoring) for one in scored],
        "clinical_constraints": limits_summary(scored) if scoring.protocol is not None else None,
        "goal_assessment": goal_assessment(columns, scoring),
    }


def openkbp_row(scores: CohortScores) -> Row:
    """Return OpenKBP's scores by name."""
    return {
        "dose_score_gy": scores.dose_score_gy,
        "dvh_score_gy": scores.dvh_score_gy,
        "num_patients": scores.num_patients,
        "num_metrics": scores.num_metrics,
    }


def _case_record(one: ScoredDose, scoring: DoseScoring) -> Row:
    scores = one.scores
    structures = dict.fromkeys(point.structure for point in scores.dvh)
    limits = scores.limits.get(PREDICTION)
    return {
        "case_id": one.pair.case,
        "spacing_mm": list(one.spacing_mm),
        "prescription_gy": one.prescription_gy,
        "dose_metrics": scores.errors.row(),
        "gamma": _gamma_record(scores.gamma, scoring),
        "dvh_metrics": {
            structure: {
                "is_reliable": structure not in scores.unreliable,
                **{
                    point.metric: {REFERENCE: point.reference, PREDICTION: point.prediction}
                    for point in scores.dvh
                    if point.structure == structure
                },
            }
            for structure in structures
        },
        "clinical_constraints": None if limits is None else limits.to_json(),
        "reference_clinical_constraints": None if limits is None else scores.limits[REFERENCE].to_json(),
        "warnings": list(scores.warnings),
    }


def _gamma_record(gamma: Mapping[str, Mapping[str, GammaSummary]], scoring: DoseScoring) -> Row:
    """Return pass rates in percent, null where no voxel was judged; the PTV region is that of the highest target."""
    record: Row = {}
    for name, regions in gamma.items():
        record[name] = regions[WHOLE].pass_rate_percent
        kind, criterion = name.split("_", 1)
        prefix = "" if kind == "global" else f"{kind}_"
        present = [target for target in scoring.targets if target in regions]
        highest = max(present, key=lambda target: float(scoring.targets[target]), default=None)
        region = None if highest is None else regions[highest].pass_rate_percent
        record[f"{prefix}ptv_region_{criterion}"] = region
        record[f"{name}_by_target"] = {target: regions[target].pass_rate_percent for target in present}
    return record


def goal_assessment(columns: Mapping[str, ColumnSummary], scoring: DoseScoring) -> Row:
    """Say whether the means reach what was aimed for, gamma by the first criterion; null where there is no mean."""
    first = next((f"gamma_pass_rate_{name}" for name in scoring.criteria), "")
    mae, gamma = (columns[name].mean if name in columns else math.nan for name in ("mae_gy", first))
    return {
        "mae_gy": _goal(mae, "<", scoring.goal_mae_gy, met=mae < scoring.goal_mae_gy),
        "gamma_pass_rate_percent": _goal(
            gamma, ">=", scoring.goal_gamma_percent, met=gamma >= scoring.goal_gamma_percent
        ),
    }


def _goal(value: float, comparison: str, goal: float, *, met: bool) -> Row:
    known = not math.isnan(value)
    return {"value": value if known else None, "comparison": comparison, "goal": goal, "met": met if known else None}

"""The tables of a comparison: rows for CSV files, a record for programs, lines for the terminal."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from medexp.stages.compared_groups import ON_VALIDATION, UNKNOWN
from medexp.stages.comparison_records import Comparison, GroupScore, MetricComparison, PairScore

Row = dict[str, Any]

MARK = "†"
VALIDATION_NOTE = (
    "validation fold: each checkpoint was picked as the best on the very cases that are scored here, so these numbers "
    "are too good; report predict.source=test"
)
_UNKNOWN_NOTE = "unknown: the predictions come from elsewhere, and how they were chosen is not recorded"
_NAMED = 12
PAIR_COLUMNS = (
    "metric", "first", "second", "n_cases", "n_patients", "n_ties", "mean_difference", "ci_low", "ci_high",
    "median_difference", "p_wilcoxon", "p_holm", "rank_biserial", "cohen_dz", "better", "chosen_on_validation_fold",
)  # fmt: skip


def group_rows(comparison: Comparison) -> list[Row]:
    """Return one row per metric and group, best first."""
    return [_group_row(comparison, one, score) for one in comparison.metrics for score in one.groups]


def _group_row(comparison: Comparison, one: MetricComparison, score: GroupScore) -> Row:
    patients = {comparison.patients[case] for case in score.cases}
    return {
        "metric": one.metric.column,
        "better": better_when(one),
        "rank": score.rank,
        "group": score.group,
        "chosen_on": comparison.groups.chosen_on(score.group),
        "mean_over_runs": score.over_runs.mean,
        "sd_over_runs": score.over_runs.sd,
        "n_runs": score.over_runs.n,
        "ci_low_over_runs": score.over_runs.ci_low,
        "ci_high_over_runs": score.over_runs.ci_high,
        "mean_over_cases": score.mean,
        "ci_low_over_patients": score.ci_low,
        "ci_high_over_patients": score.ci_high,
        "n_cases": len(score.cases),
        "n_patients": len(patients),
        "n_common_cases": one.n_common,
        "mean_rank": score.mean_rank,
        "wins": score.wins,
    }


def better_when(one: MetricComparison) -> str:
    """Return "higher" or "lower"."""
    return "higher" if one.metric.is_higher_better else "lower"


def pair_rows(comparison: Comparison) -> list[Row]:
    """Return one row per metric and pair of groups: the first minus the second."""
    return [_pair_row(comparison, pair) for one in comparison.metrics for pair in one.pairs]


def _pair_row(comparison: Comparison, pair: PairScore) -> Row:
    found = pair.difference
    on_validation = [
        group for group in (pair.first, pair.second) if comparison.groups.chosen_on(group) == ON_VALIDATION
    ]
    return {
        "metric": pair.metric,
        "first": pair.first,
        "second": pair.second,
        "n_cases": found.n_cases,
        "n_patients": found.n_patients,
        "n_ties": found.n_ties,
        "mean_difference": found.mean,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "median_difference": found.median,
        "p_wilcoxon": found.p_value,
        "p_holm": pair.p_holm,
        "rank_biserial": found.rank_biserial,
        "cohen_dz": found.cohen_dz,
        "better": pair.better or "",
        "chosen_on_validation_fold": " and ".join(on_validation),
    }


def run_rows(comparison: Comparison) -> list[Row]:
    """Return one row per metric and evaluation."""
    return [
        {
            "metric": one.metric.column,
            "group": score.group,
            "fold": run.member.repetition[0],
            "seed": run.member.repetition[1],
            "mean": run.mean,
            "n_cases": run.n_cases,
            "chosen_on": run.member.chosen_on,
            "run": run.member.evaluation.run.identity,
            "folder": run.member.evaluation.run.folder.name,
        }
        for one in comparison.metrics
        for score in one.groups
        for run in score.runs
    ]


def case_rows(comparison: Comparison) -> list[Row]:
    """Return one row per metric and case with the value of each group, a mean over its seeds; undefined is `nan`."""
    rows = []
    for one in comparison.metrics:
        for case in sorted({case for score in one.groups for case in score.cases}):
            values = {score.group: score.cases.get(case, math.nan) for score in one.groups}
            rows.append({"metric": one.metric.column, "case": case, "patient": comparison.patients[case], **values})
    return rows


def record_of(comparison: Comparison) -> Row:
    """Return the comparison for programs; undefined and infinite numbers are None."""
    return {
        "groups": {
            name: {
                "chosen_on": comparison.groups.chosen_on(name),
                "settings": {key: members[0].facts.get(key) for key in comparison.groups.keys},
                "runs": [member.evaluation.run.identity for member in members],
            }
            for name, members in comparison.groups.members.items()
        },
        "differ_in": list(comparison.groups.keys),
        "statistics": {**asdict(comparison.statistics), "num_tests": comparison.num_tests},
        "scores": [_jsonable(row) for row in group_rows(comparison)],
        "pairs": [_jsonable(row) for row in pair_rows(comparison)],
        "missing": [asdict(one) for one in comparison.missing],
        "notes": notes_of(comparison),
    }


def _jsonable(row: Mapping[str, Any]) -> Row:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def notes_of(comparison: Comparison) -> list[str]:
    """Return what must be read with the numbers: where they were chosen, what is missing or unbalanced."""
    groups = comparison.groups
    origins = {name: groups.chosen_on(name) for name in groups.members}
    notes = []
    for origin, text in ((ON_VALIDATION, VALIDATION_NOTE), (UNKNOWN, _UNKNOWN_NOTE)):
        names = [name for name, found in origins.items() if found == origin]
        if names:
            notes.append(f"{text} ({', '.join(names)}).")
    if len(set(origins.values())) > 1:
        parts = ", ".join(f"{name}: {origin}" for name, origin in origins.items())
        notes.append(f"The groups were not measured in the same way ({parts}); a difference may come from that alone.")
    notes += comparison.notes
    notes += _missing_notes(comparison)
    return notes


def _missing_notes(comparison: Comparison) -> list[str]:
    notes = []
    for key in dict.fromkeys((one.metric, one.group, one.reason) for one in comparison.missing):
        cases = [one.case for one in comparison.missing if (one.metric, one.group, one.reason) == key]
        metric, group, reason = key
        more = f" and {len(cases) - _NAMED} more (missing.csv)" if len(cases) > _NAMED else ""
        number = f"{len(cases)} case{'s' if len(cases) != 1 else ''}"
        notes.append(f"{metric}, {group}: {number} {reason}: {', '.join(cases[:_NAMED])}{more}.")
    return notes


def text_lines(comparison: Comparison) -> list[str]:
    """Return the comparison as lines of text."""
    percent = f"{100 * comparison.statistics.confidence:g} %"
    lines = []
    for one in comparison.metrics:
        lines.append(f"{one.metric.column} ({better_when(one)} is better; {one.n_common} cases in all groups)")
        lines += aligned(
            ["rank", "group", "mean", "sd", "n", f"{percent} over runs", "over cases", f"{percent}, patients", "cases",
             "mean rank"],
            [_group_cells(comparison, score) for score in one.groups],
            left={1},
        )  # fmt: skip
        lines += (
            []
            if not one.pairs
            else aligned(
                ["first - second", "difference", percent, "cases", "p", "p (Holm)", "rank-biserial", "d_z", "better"],
                [_pair_cells(comparison, pair) for pair in one.pairs],
                left={0, 8},
            )
        )
    lines += [f"{MARK if note.startswith('validation') else '!'} {note}" for note in notes_of(comparison)]
    return lines


def marked(comparison: Comparison, group: str) -> str:
    """Return a group's name, with a mark if its scores are those of the validation fold."""
    return f"{group} {MARK}" if comparison.groups.chosen_on(group) == ON_VALIDATION else group


def _group_cells(comparison: Comparison, score: GroupScore) -> list[str]:
    runs = score.over_runs
    return [
        str(score.rank),
        marked(comparison, score.group),
        digits(runs.mean),
        digits(runs.sd),
        str(runs.n),
        interval(runs.ci_low, runs.ci_high),
        digits(score.mean),
        interval(score.ci_low, score.ci_high),
        str(len(score.cases)),
        digits(score.mean_rank, 2),
    ]


def _pair_cells(comparison: Comparison, pair: PairScore) -> list[str]:
    found = pair.difference
    return [
        f"{marked(comparison, pair.first)} - {marked(comparison, pair.second)}",
        f"{found.mean:+.4f}",
        interval(found.ci_low, found.ci_high),
        str(found.n_cases),
        p_text(found.p_value),
        p_text(pair.p_holm),
        digits(found.rank_biserial, 2),
        digits(found.cohen_dz, 2),
        pair.better or "not clear",
    ]


def digits(value: float, decimals: int = 4) -> str:
    """Return a number, or a dash where it is undefined."""
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def interval(low: float, high: float) -> str:
    """Return an interval; a dash where there is none."""
    return "-" if math.isnan(low) or math.isnan(high) else f"[{low:.4f}, {high:.4f}]"


def p_text(value: float) -> str:
    """Return a p-value with three digits that matter."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


def aligned(heading: Sequence[str], rows: Sequence[Sequence[str]], *, left: set[int]) -> list[str]:
    """Return columns of text below a heading, indented; those of `left` start at the same place, others end so."""
    table = [heading, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(heading))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]

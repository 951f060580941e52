"""The figure and the page of a comparison."""

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from medexp.plots.comparison import ComparisonPanel, DifferenceRow, MethodRow, comparison_figure
from medexp.plots.pages import render
from medexp.plots.theme import inline_svg
from medexp.runs.identity import short
from medexp.stages.comparison_records import Comparison, GroupScore, MetricComparison, PairScore
from medexp.stages.comparison_tables import (
    MARK,
    better_when,
    digits,
    interval,
    marked,
    notes_of,
    p_text,
    run_rows,
)
from medexp.stages.context import Context

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_of(comparison: Comparison) -> "Figure":
    """Return scores and paired differences of every metric; scores of the validation fold are marked as such."""
    names = [marked(comparison, group) for group in comparison.groups.members]
    note = f"{MARK} scored on the validation fold, on which the checkpoint was picked" if _is_marked(names) else ""
    return comparison_figure([_panel(comparison, one) for one in comparison.metrics], note=note)


def _is_marked(names: list[str]) -> bool:
    return any(name.endswith(MARK) for name in names)


def _panel(comparison: Comparison, one: MetricComparison) -> ComparisonPanel:
    methods = [
        MethodRow(
            marked(comparison, score.group), score.mean, score.ci_low, score.ci_high, [run.mean for run in score.runs]
        )
        for score in one.groups
    ]
    differences = [
        DifferenceRow(
            f"{pair.first} − {pair.second}",
            pair.difference.mean,
            pair.difference.ci_low,
            pair.difference.ci_high,
            pair.better is not None,
        )
        for pair in one.pairs
    ]
    return ComparisonPanel(one.metric.column, better_when(one), methods, differences)


def page_of(comparison: Comparison, figure: "Figure", title: str, context: Context) -> str:
    """Return the page; it needs no other file and no network."""
    groups = comparison.groups
    number = len(groups.all_members)
    groups_text = f"{len(groups.members)} group{'s' if len(groups.members) > 1 else ''}"
    values = {
        "title": title,
        "subtitle": f"{groups_text} · {number} evaluations · {str(context.run.record['created'])[:10]}",
        "percent": f"{100 * comparison.statistics.confidence:g} %",
        "notes": notes_of(comparison),
        "figure": Markup(inline_svg(figure, name="comparison", description="Scores and paired differences")),
        "metrics": [_metric(comparison, one) for one in comparison.metrics],
        "settings": [_settings_row(comparison, key) for key in groups.keys],
        "joined": list(groups.joined),
        "names": list(groups.members),
        "runs": [{**row, "run": short(row["run"]), "mean": digits(row["mean"])} for row in run_rows(comparison)],
        "command": context.command or str(context.run.record.get("command", "")),
        "definitions": _definitions(comparison),
    }
    return render("compare.html.j2", values)


def _settings_row(comparison: Comparison, key: str) -> dict[str, Any]:
    values = [members[0].facts.get(key) for members in comparison.groups.members.values()]
    return {"key": key, "values": ["–" if value is None else str(value) for value in values]}


def _metric(comparison: Comparison, one: MetricComparison) -> dict[str, Any]:
    return {
        "name": one.metric.column,
        "better": better_when(one),
        "n_common": one.n_common,
        "groups": [_group(comparison, score) for score in one.groups],
        "pairs": [_pair(comparison, pair) for pair in one.pairs],
    }


def _group(comparison: Comparison, score: GroupScore) -> dict[str, Any]:
    runs = score.over_runs
    return {
        "rank": score.rank,
        "name": marked(comparison, score.group),
        "chosen_on": comparison.groups.chosen_on(score.group),
        "mean": digits(runs.mean),
        "sd": digits(runs.sd),
        "n": runs.n,
        "interval": interval(runs.ci_low, runs.ci_high),
        "case_mean": digits(score.mean),
        "case_interval": interval(score.ci_low, score.ci_high),
        "n_cases": len(score.cases),
        "mean_rank": digits(score.mean_rank, 2),
        "wins": score.wins,
    }


def _pair(comparison: Comparison, pair: PairScore) -> dict[str, Any]:
    found = pair.difference
    return {
        "first": marked(comparison, pair.first),
        "second": marked(comparison, pair.second),
        "mean": f"{found.mean:+.4f}".replace("-", "−"),
        "interval": interval(found.ci_low, found.ci_high).replace("-", "−"),
        "cases": found.n_cases,
        "patients": found.n_patients,
        "p": p_text(found.p_value),
        "p_holm": p_text(pair.p_holm),
        "rank_biserial": digits(found.rank_biserial, 2).replace("-", "−"),
        "cohen_dz": digits(found.cohen_dz, 2).replace("-", "−"),
        "better": pair.better or "not clear",
        "is_clear": pair.better is not None,
    }


def _definitions(comparison: Comparison) -> dict[str, str]:
    statistics = comparison.statistics
    percent = f"{100 * statistics.confidence:g} %"
    return {
        "Mean, sd, n": "Over the evaluations of a group (folds and seeds) of each one's mean over its cases; "
        f"{percent} by Student's t. Folds share training cases, so this interval is rather too narrow.",
        "Over cases": "Every case once, its value a mean over seeds; "
        f"{percent} percentile bootstrap, {statistics.num_resamples:,} resamples of patients with all their cases, "
        f"seed {statistics.seed}.",
        "Difference": "First minus second, over the cases that both have; interval as over cases.",
        "p": "Wilcoxon's signed-rank test, two-sided, on one value per patient; patients without a difference are left "
        "out. Exact for up to 50 patients without ties.",
        "p (Holm)": f"Corrected for all {comparison.num_tests} tests on this page. A difference is called clear below "
        f"{1 - statistics.confidence:.2g}.",
        "Rank-biserial": "Matched-pairs rank-biserial correlation: the share of rank sums in favor of the first minus "
        "that against, −1 to 1.",
        "d_z": "Cohen's d_z: mean over standard deviation of the patients' differences.",
        "Rank": "By the mean over the cases that all groups have; mean rank: the mean of the ranks within each case.",
    }

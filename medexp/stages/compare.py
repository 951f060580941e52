"""Compare evaluations: over folds and seeds, and case by case; never touches a prediction or a model."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medexp.io.tables import write_table
from medexp.metrics.directions import is_higher_better
from medexp.runs.files import atomic_write, write_json, write_text
from medexp.stages.compared_groups import grouped
from medexp.stages.comparison import compared
from medexp.stages.comparison_page import figure_of, page_of
from medexp.stages.comparison_records import Comparison, Metric, Statistics
from medexp.stages.comparison_tables import (
    PAIR_COLUMNS,
    case_rows,
    group_rows,
    pair_rows,
    record_of,
    run_rows,
    text_lines,
)
from medexp.stages.context import Context, Result
from medexp.types import Count, Index, PartialShare

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING_COLUMNS = ("metric", "group", "case", "reason")


def compare(
    title: str,
    *,
    by: Sequence[str] | None,
    metrics: Sequence[str] | None,
    higher_is_better: Sequence[str],
    lower_is_better: Sequence[str],
    infinite_as: float | None,
    confidence: PartialShare,
    num_resamples: Count,
    bootstrap_seed: Index,
    context: Context,
) -> Result:
    """Compare the upstream runs `evaluated`; write CSV tables, comparison.json, comparison.png and compare.html.

    Folds and seeds of one configuration are summed up: there is then no pair.

    Args:
        title: The page's heading.
        by: Keys whose values make a group; None: all in which the evaluations differ, but fold and seed.
        metrics: Columns of the per-case tables; None: the one that says how good a case is.
        higher_is_better: Columns or scores of which that is not known to medexp.
        lower_is_better: The same for the opposite.
        infinite_as: What a distance to an empty mask counts for; None: such cases are left out and named.
        confidence: Coverage of intervals; differences are called clear below 1 - confidence.
        num_resamples: Bootstrap samples.
        bootstrap_seed: Their seed.
        context: The run.

    Raises:
        ConfigurationError: There is nothing to compare, or not in the same measure; the message says what to do.
        CohortError: Groups share no cases, or a case's references differ.
        CheckpointMismatchError: A table changed after its evaluation ended.
    """
    groups = grouped(context.upstream["evaluated"], by=by, metrics=metrics)
    columns = groups.metrics
    wanted = [
        Metric(name, is_higher_better(name, higher=higher_is_better, lower=lower_is_better), infinite_as)
        for name in columns
    ]
    comparison = compared(groups, wanted, Statistics(confidence, num_resamples, bootstrap_seed))
    files = _write(context, comparison, title)
    _track(context, comparison, files)
    scores = _means(comparison)
    lines = [*text_lines(comparison), f"comparison: {files['page']}"]
    return Result(outputs=files, scores=scores, lines=tuple(lines))


def _write(context: Context, comparison: Comparison, title: str) -> dict[str, Path]:
    folder = context.run.folder
    files = {name: folder / f"{name}.csv" for name in ("groups", "pairs", "runs", "cases", "missing")}
    write_table(files["groups"], group_rows(comparison))
    write_table(files["pairs"], pair_rows(comparison), columns=PAIR_COLUMNS)
    write_table(files["runs"], run_rows(comparison))
    write_table(files["cases"], case_rows(comparison))
    missing = [{name: getattr(one, name) for name in MISSING_COLUMNS} for one in comparison.missing]
    write_table(files["missing"], missing, columns=MISSING_COLUMNS)
    files |= {"comparison": folder / "comparison.json", "figure": folder / "comparison.png"}
    write_json(files["comparison"], record_of(comparison))
    figure = figure_of(comparison)
    _save(figure, files["figure"])
    files["page"] = folder / "compare.html"
    write_text(files["page"], page_of(comparison, figure, title, context))
    return files


def _save(figure: "Figure", path: Path) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=160, facecolor="white")


def _track(context: Context, comparison: Comparison, files: dict[str, Path]) -> None:
    means = {f"compare/{name}": value for name, value in _means(comparison).items() if math.isfinite(value)}
    context.tracker.log_metrics(means, 0)
    origins = {comparison.groups.chosen_on(group) for group in comparison.groups.members}
    context.tracker.set_tags({"medexp.chosen_on": ", ".join(sorted(origins))})
    for path in files.values():
        context.tracker.log_artifact(path)


def _means(comparison: Comparison) -> dict[str, float]:
    """Return each group's mean over its evaluations, by names with the letters that MLflow admits in a metric's."""
    return {
        f"{one.metric.column}/{_plain(score.group)}": score.over_runs.mean
        for one in comparison.metrics
        for score in one.groups
    }


def _plain(name: str) -> str:
    letters = (letter if letter.isalnum() or letter in "_-. " else "-" if letter == "=" else "_" for letter in name)
    return "".join(letters)

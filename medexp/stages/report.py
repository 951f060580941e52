"""Put an evaluation and what lies behind it on one HTML page that opens anywhere, offline."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from medexp.plots.pages import render
from medexp.plots.theme import colors_of
from medexp.runs.files import write_text
from medexp.runs.lineage import ancestry
from medexp.stages.context import Context, Result
from medexp.stages.recorded_evaluation import Evaluation
from medexp.stages.report_cases import worst_cases
from medexp.stages.report_doses import dose_page
from medexp.stages.report_images import object_section
from medexp.stages.report_lineage import (
    definitions,
    facts,
    prepared_manifest,
    stage_records,
    trainings,
    warnings,
)
from medexp.stages.report_scores import all_cases, score_table, strips, tiles
from medexp.types import Index

log = logging.getLogger(__name__)


def report(title: str, max_cases: Index, *, context: Context) -> Result:
    """Write report.html from the upstream run `evaluated` and everything that it descends from.

    Of doses every figure is written as a PNG, too: `figures/<case>_<kind>.png`.

    Args:
        title: The page's heading.
        max_cases: Cases with pictures, the worst first; 0 for none.
        context: The run.

    Raises:
        CheckpointMismatchError: A table changed after its evaluation ended.
        ManifestError: A record is missing.
    """
    evaluated = context.upstream["evaluated"][0]
    evaluation = Evaluation.of(evaluated)
    log.info("drawing %d of %d cases", min(max_cases, len(evaluation.cases)), len(evaluation.cases))
    path = context.run.folder / "report.html"
    if evaluation.of_doses:
        page = dose_page(evaluation, max_cases, folder=context.run.folder)
        template, values, noted, colors = "report_doses.html.j2", page.values, page.warnings, page.colors
        figures = page.files
    else:
        template, values, noted, figures = "report.html.j2", _label_values(evaluation, max_cases), (), {}
        colors = colors_of(evaluation.labels)
    shared = _shared_values(evaluation, title, colors, noted, context)
    write_text(path, render(template, {**shared, **values}))
    context.tracker.log_artifact(path)
    lines = [f"report: {path}", "open it in a browser; it needs no network"]
    lines += [f"{len(figures)} figures: {path.parent / 'figures'}"] if figures else []
    return Result(outputs={"report": path, **figures}, lines=tuple(lines))


def _shared_values(
    evaluation: Evaluation, title: str, colors: Mapping[str, str], noted: Sequence[str], context: Context
) -> dict[str, Any]:
    behind = ancestry([evaluation.run])
    manifest = prepared_manifest(behind)
    return {
        "title": title,
        "subtitle": _subtitle(evaluation),
        "warnings": [*warnings(evaluation, manifest, behind), *noted],
        "trainings": [{**one, "figure": Markup(one["figure"])} for one in trainings(behind, colors=colors)],
        "stages": stage_records([context.run, *behind]),
        "facts": facts(evaluation, manifest, behind),
    }


def _label_values(evaluation: Evaluation, max_cases: int) -> dict[str, Any]:
    shown = min(max_cases, len(evaluation.cases))
    colors = colors_of(evaluation.labels)
    return {
        "tiles": tiles(evaluation),
        "scores": score_table(evaluation),
        "strips": Markup(strips(evaluation)),
        "worst": worst_cases(evaluation, max_cases),
        "objects": object_section(evaluation),
        "worst_caption": f"By mean Dice over labels, {shown} of {len(evaluation.cases)}. {_picture(evaluation)}",
        "legend": colors,
        "color_of_value": {value: colors[name] for name, value in evaluation.labels.items()},
        "all_cases": all_cases(evaluation),
        "all_caption": "Worst first. A click on a heading sorts. Every score is in cases.csv beside the evaluation.",
        "definitions": definitions(evaluation),
    }


def _picture(evaluation: Evaluation) -> str:
    if evaluation.of_images:
        return "The reference is filled, the prediction outlined, whole images."
    return (
        "Each picture goes through the largest lesion of the reference, where the plane cuts most of it; right is on "
        "the left."
    )


def _subtitle(evaluation: Evaluation) -> str:
    record = evaluation.run.record
    number = len(evaluation.cases)
    chosen = str(record["label"]).split("-")[1:]  # model, fold and seed, where something was trained
    parts = [str(record["dataset"]), *chosen, f"{number} case{'s' if number != 1 else ''}"]
    return " · ".join([*parts, str(record["created"])[:10]])

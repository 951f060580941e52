"""Score prediction files against reference files; never touches a model."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from medexp.errors import CohortError, ConfigurationError, GridMismatchError
from medexp.io.tables import write_table
from medexp.metrics.dose_scoring import DoseScoring
from medexp.metrics.lesions import ProtocolName
from medexp.metrics.nnunet import ScoredFiles, nnunet_summary
from medexp.metrics.object_scores import ObjectScoring
from medexp.metrics.summary import ColumnSummary
from medexp.runs.files import write_text
from medexp.stages.context import Context, Result
from medexp.stages.dose_evaluation import evaluate_doses
from medexp.stages.evaluated_files import find_labels, select
from medexp.stages.evaluation_manifest import write_manifest
from medexp.stages.measuring import measure, objects_of_image, write_objects
from medexp.stages.object_tables import ImageObjects, pooled_scores
from medexp.stages.outcomes import Refused, all_done, listed
from medexp.stages.score_tables import (
    LESION_COLUMNS,
    Foreground,
    Row,
    case_rows,
    foreground,
    lesion_rows,
    lesionwise_rows,
    score_lines,
    summaries,
)
from medexp.stages.scoring import ScoredPair, score_pair, scoring_of
from medexp.types import Index, Positive

log = logging.getLogger(__name__)


def evaluate(
    predictions: str | Path | None,
    references: str | Path | None,
    *,
    labels: Mapping[str, int] | None,
    regions: Mapping[str, Sequence[str]],
    empty_reference: Literal["nan", "one"],
    nsd_tolerances_mm: Sequence[Positive],
    lesions: ProtocolName | None,
    lesion_variant: Literal["official", "toolkit"],
    snfh_slip: bool,
    objects: ObjectScoring,
    doses: DoseScoring,
    measure_only: bool,
    num_workers: Index | None,
    context: Context,
) -> Result:
    """Score every prediction and write cases.csv, lesions.csv, lesionwise.csv, summary.json and evaluation.json.

    Of images the objects are measured and matched as well; see `medexp.stages.object_tables` for their tables. Doses
    are scored by `medexp.stages.dose_evaluation`.

    Args:
        predictions: Any folder of label maps (see `medexp.io.pairing`); None: what the upstream run `predicted` wrote.
        references: Any folder of label maps, also raw BraTS case folders; None: the labels of the predicted cases.
        labels: Value of each label; None: those of the prepared cohort, or of a dataset.json beside the files.
        regions: Labels that each region joins.
        empty_reference: What a score is worth where reference and prediction are both empty: "nan" (left out of
            means and counted) or "one" (a perfect score).
        nsd_tolerances_mm: Of the surface Dice.
        lesions: Lesion-wise protocol, one of `medexp.metrics.lesions.PROTOCOLS`; None: no lesion-wise scores.
        lesion_variant: "official", or "toolkit" for the simpler one over all labels and regions.
        snfh_slip: Reproduce the official 2024 program's dilation of SNFH.
        objects: What is an object of an image, and when two objects match.
        doses: What is computed of predicted doses; with its `structures`, the dataset holds doses and no labels.
        measure_only: Measure the objects of predicted images; no reference is read and nothing is scored.
        num_workers: Processes; None: one per core.
        context: The run.

    Raises:
        IncompletePredictionsError: Predictions are missing, or nobody asked for them; all are listed.
        GridMismatchError: Files stand on different grids (see `medexp.preparation.verification`); all are listed.
        CohortError: Files cannot be read or hold unknown label values; all are listed.
        ConfigurationError: A setting does not fit.
    """
    if doses.structures is not None:
        _refuse_for_doses(empty_reference=empty_reference, lesions=lesions, measure_only=measure_only)
        return evaluate_doses(predictions, references, doses, num_workers=num_workers, context=context)
    if measure_only:
        return measure(predictions, references, labels, regions, objects, num_workers=num_workers, context=context)
    selection = select(predictions, references, context=context)
    places = (selection.predictions, selection.references)
    values = dict(labels) if labels is not None else find_labels(places, context=context)
    scoring = scoring_of(
        values, regions, nsd_tolerances_mm, lesions=lesions, variant=lesion_variant, snfh_slip=snfh_slip
    )
    scoring = replace(scoring, objects=objects)
    scored = all_done(
        partial(score_pair, scoring=scoring),
        selection.pairs,
        num_workers=num_workers,
        what="cases scored",
        refusal=partial(_refusal, num_cases=len(selection.pairs)),
    )
    rows = case_rows(scored)
    overall = foreground(rows, list(values), empty_reference=empty_reference)
    columns = summaries(rows, empty_reference=empty_reference)
    settings = {
        "empty_reference": empty_reference,
        "nsd_tolerances_mm": list(scoring.nsd_tolerances_mm),
        "lesions": lesions,
        "lesion_variant": lesion_variant if lesions else None,
        "snfh_slip": snfh_slip if scoring.protocol is not None else None,
        "protocol": scoring.protocol_name,
        "labels": values,
        "regions": dict(scoring.regions),
    }
    images = [objects_of_image(one) for one in scored if one.objects is not None]
    if images:
        settings["objects"] = asdict(objects)
    files = _write(context.run.folder, scored, rows, columns, overall, settings, images)
    files["evaluation"] = write_manifest(
        context.run.folder,
        settings,
        [_case_record(one) for one in scored],
        files,
        predictions=selection.predictions,
        references=selection.references,
        without_reference=selection.without_reference,
    )
    _track(context, columns, overall, files)
    return _result(files, columns, overall, settings, len(scored))


def _refuse_for_doses(*, empty_reference: str, lesions: str | None, measure_only: bool) -> None:
    found = {
        "empty_reference": ("nan", empty_reference),
        "lesions": ("null", lesions or "null"),
        "measure_only": ("false", str(measure_only).lower()),
    }
    for key, (only, value) in found.items():
        if value != only:
            raise ConfigurationError(f"evaluate.{key}: expected {only} for doses, got {value}")


def _refusal(refused: Sequence[Refused], num_cases: int) -> CohortError | GridMismatchError:
    message = (
        f"expected {num_cases} pairs of label maps that can be compared, {len(refused)} cannot:{listed(refused)}\n"
    )
    if all(one.is_grid for one in refused):
        remedy = "Resample the predictions to the references' grid (nearest neighbor), or name other files."
        return GridMismatchError(message + remedy)
    return CohortError(message + "Correct the files, or name the labels that they hold in dataset.labels.")


def _write(
    folder: Path,
    scored: Sequence[ScoredPair],
    rows: Sequence[Row],
    columns: Mapping[str, ColumnSummary],
    overall: Foreground,
    settings: Mapping[str, Any],
    images: Sequence[ImageObjects],
) -> dict[str, Path]:
    files = {"cases": folder / "cases.csv", "summary": folder / "summary.json"}
    write_table(files["cases"], rows)
    if settings["protocol"] is not None:
        files |= {"lesions": folder / "lesions.csv", "lesionwise": folder / "lesionwise.csv"}
        found = lesion_rows(scored)
        write_table(files["lesions"], found, columns=None if found else LESION_COLUMNS)
        write_table(files["lesionwise"], lesionwise_rows(scored))
    if images:
        files |= write_objects(folder, images)
    _write_summary(files["summary"], scored, columns, overall, settings, pooled_scores(images))
    return files


def _write_summary(
    path: Path,
    scored: Sequence[ScoredPair],
    columns: Mapping[str, ColumnSummary],
    overall: Foreground,
    settings: Mapping[str, Any],
    objects: Mapping[str, Row],
) -> None:
    compared = [ScoredFiles(one.scores, str(one.pair.prediction), str(one.pair.reference)) for one in scored]
    own = {
        "num_cases": len(scored),
        "mean_foreground_dice": {
            "mean": overall.mean,
            "ci_low": overall.low,
            "ci_high": overall.high,
            "n_used": overall.num_cases,
            "n_undefined": len(scored) - overall.num_cases,
            "labels_without_value": list(overall.labels_without_value),
        },
        "columns": {name: summary.row() for name, summary in columns.items()},
        "settings": dict(settings),
    }
    if objects:
        own["objects_of_all_images"] = dict(objects)
    # nnU-Net writes and expects NaN, which JSON itself does not have.
    write_text(path, json.dumps({**nnunet_summary(compared), "medexp": own}, indent=1) + "\n")


def _case_record(one: ScoredPair) -> dict[str, Any]:
    return {
        "case": one.pair.case,
        "patient": one.pair.patient,
        "prediction": {"path": str(one.pair.prediction), "sha256": one.prediction_sha256},
        "reference": {"path": str(one.pair.reference), "sha256": one.reference_sha256},
        "images": {channel: str(path) for channel, path in one.pair.images},
        "shape": list(one.shape),
        **_spacing(one),
    }


def _spacing(one: ScoredPair) -> dict[str, list[float] | None]:
    name = "spacing_mm" if one.objects is None else "pixel_size_um"
    return {name: None if one.spacing is None else list(one.spacing)}


def _track(
    context: Context, columns: Mapping[str, ColumnSummary], overall: Foreground, files: Mapping[str, Path]
) -> None:
    means = {f"evaluate/{name}": summary.mean for name, summary in columns.items()}
    means["evaluate/mean_foreground_dice"] = overall.mean
    context.tracker.log_metrics({name: value for name, value in means.items() if math.isfinite(value)}, 0)
    for path in files.values():
        if path.parent == context.run.folder:  # a table per image would be thousands
            context.tracker.log_artifact(path)


def _result(
    files: Mapping[str, Path],
    columns: Mapping[str, ColumnSummary],
    overall: Foreground,
    settings: Mapping[str, Any],
    num_cases: int,
) -> Result:
    structures = list(dict.fromkeys([*settings["labels"], *settings["regions"], *_regions_of(columns)]))
    tolerances = settings["nsd_tolerances_mm"]
    nsd_mm = 1.0 if 1.0 in tolerances else next(iter(tolerances), None)
    scores = {"mean_dice": overall.mean}
    for score in ("dice", "object_f1"):
        scores |= {key: columns[key].mean for key in (f"{score}/{name}" for name in structures) if key in columns}
    lines = [
        *score_lines(columns, structures, nsd_mm=nsd_mm, num_cases=num_cases),
        f"mean foreground Dice {overall.mean:.4f} [{overall.low:.4f}, {overall.high:.4f}] over {overall.num_cases} "
        "cases; in brackets the cases that a mean stands on",
    ]
    if overall.labels_without_value:
        lines.append(f"in no case at all: {', '.join(overall.labels_without_value)} (left out of the mean)")
    defined = {name: value for name, value in scores.items() if math.isfinite(value)}
    return Result(outputs=files, objective=defined.get("mean_dice"), scores=defined, lines=tuple(lines))


def _regions_of(columns: Mapping[str, ColumnSummary]) -> list[str]:
    return [name.split("/", 1)[1] for name in columns if name.startswith("lesionwise_dice/")]

"""Measure the objects of predicted images, with no reference to compare them with; tables and figure of objects."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexp.errors import CohortError, ConfigurationError
from medexp.metrics.object_scores import ObjectScoring
from medexp.plots.objects import object_figure, size_and_shape
from medexp.runs.files import atomic_write
from medexp.stages.context import Context, Result
from medexp.stages.evaluated_files import find_labels, select_predictions
from medexp.stages.evaluation_manifest import write_manifest
from medexp.stages.image_scoring import MeasuredImage, measure_image
from medexp.stages.object_tables import ImageObjects, object_rows, reference_rows, write_object_tables
from medexp.stages.outcomes import Refused, all_done, listed
from medexp.stages.scoring import ScoredPair, Scoring

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def measure(
    predictions: str | Path | None,
    references: str | Path | None,
    labels: Mapping[str, int] | None,
    regions: Mapping[str, Sequence[str]],
    objects: ObjectScoring,
    *,
    num_workers: int | None,
    context: Context,
) -> Result:
    """Write the tables of predicted objects, their figure and evaluation.json.

    Raises:
        ConfigurationError: References are named although nothing is to be scored.
        CohortError: Images cannot be measured; all are listed.
    """
    if references is not None:
        message = f"evaluate.measure_only: expected evaluate.references=null with it, got {references}"
        raise ConfigurationError(f"{message}; leave one of them out")
    place, images = select_predictions(predictions, context=context)
    values = dict(labels) if labels is not None else find_labels([place], context=context)
    structures = Scoring(values, {name: tuple(members) for name, members in regions.items()}, ()).structures
    work = partial(measure_image, labels=values, structures=structures, scoring=objects)
    refusal = partial(_refusal, num_images=len(images))
    measured = all_done(work, images, num_workers=num_workers, what="images measured", refusal=refusal)
    found = [ImageObjects(one.case, one.shape, one.objects) for one in measured]
    files = write_objects(context.run.folder, found)
    settings = {"measure_only": True, "labels": values, "regions": dict(regions), "objects": asdict(objects)}
    cases = [_case_record(one) for one in measured]
    files["evaluation"] = write_manifest(context.run.folder, settings, cases, files, predictions=place, references=None)
    counts = {name: sum(len(one.predicted[name]) for one in found) for name in structures}
    context.tracker.log_metrics({f"evaluate/num_objects/{name}": float(count) for name, count in counts.items()}, 0)
    for name in ("all_objects", "object_summary", "object_figure", "evaluation"):
        context.tracker.log_artifact(files[name])
    lines = [f"{name}: {count} objects in {len(found)} images" for name, count in counts.items()]
    scores = {f"num_objects/{name}": float(count) for name, count in counts.items()}
    return Result(outputs=files, scores=scores, lines=(*lines, f"tables: {files['all_objects'].parent}"))


def _refusal(refused: Sequence[Refused], num_images: int) -> CohortError:
    return CohortError(f"expected {num_images} masks that can be measured, {len(refused)} cannot:{listed(refused)}")


def _case_record(one: MeasuredImage) -> dict[str, Any]:
    return {
        "case": one.case,
        "prediction": {"path": str(one.path), "sha256": one.sha256},
        "shape": list(one.shape),
        "pixel_size_um": one.pixel_size_um,
    }


def objects_of_image(one: ScoredPair) -> ImageObjects:
    """Return the objects of a scored image."""
    found = one.objects or {}
    return ImageObjects(one.pair.case, one.shape, {name: scores.predicted for name, scores in found.items()}, found)


def write_objects(folder: Path, images: Sequence[ImageObjects]) -> dict[str, Path]:
    """Write the tables of objects and objects.png; return the files by name."""
    files = write_object_tables(folder, images)
    files["object_figure"] = folder / "objects.png"
    with atomic_write(files["object_figure"]) as temporary:
        figure_of(images).savefig(temporary, format="png", dpi=160, facecolor="white")
    return files


def figure_of(images: Sequence[ImageObjects]) -> "Figure":
    """Draw sizes and shapes of all objects, and their numbers against the references'."""
    if not all(one.scores is not None for one in images):
        return object_figure(size_and_shape(object_rows(images), None), None)
    counts = {
        one.image: (
            sum(len(found) for found in one.predicted.values()),
            sum(len(scores.reference) for scores in (one.scores or {}).values()),
        )
        for one in images
    }
    return object_figure(size_and_shape(object_rows(images), reference_rows(images)), counts)

"""What a report on images has beside that on volumes: whole images with outlines, and the section on objects."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num
from markupsafe import Markup

from medexp.errors import CaseError
from medexp.io.tables import number, read_table
from medexp.io.tiff import gray_of, read_tiff
from medexp.plots.objects import object_figure, size_and_shape
from medexp.plots.pages import score
from medexp.plots.stills import Still, still
from medexp.plots.theme import inline_svg
from medexp.stages.image_scoring import is_image, read_image_labels
from medexp.stages.object_tables import ALL
from medexp.stages.recorded_evaluation import Evaluation

log = logging.getLogger(__name__)

_COLUMNS = ("found", "missed", "spurious", "precision", "recall", "F1", "mean IoU of pairs", "AP 0.50", "AP 0.50–0.95")
_KEYS = ("tp", "fn", "fp", "precision", "recall", "f1", "mean_matched_iou", "ap_0.50", "mean_ap")
_NUM_COUNTS = 3


def image_planes(files: Mapping[str, Any], labels: Mapping[str, int]) -> tuple[Sequence[Still], str, str]:
    """Return the picture of a case, the channel that it shows, and what is to be said about it."""
    try:
        prediction, reference = (_as_scored(files[kind], labels) for kind in ("prediction", "reference"))
    except CaseError as error:
        log.warning("no picture: %s", error)
        return (), "", f"No picture: {error}"
    channel, image, problem = _image(files["images"], reference.shape)
    height, width = reference.shape
    picture = still(reference=reference, prediction=prediction, image=image, caption=f"{width} x {height} pixels")
    return (picture,), channel, problem


def _as_scored(entry: Mapping[str, str], labels: Mapping[str, int]) -> Num[np.ndarray, "row column"]:
    read = read_image_labels(Path(entry["path"]), labels)
    if read.file.sha256 != entry["sha256"]:
        raise CaseError(f"{read.file.path} has changed since it was scored; run stage=evaluate again")
    return read.array


def _image(images: Mapping[str, str], shape: tuple[int, ...]) -> tuple[str, Num[np.ndarray, "row column"] | None, str]:
    problem = "No image is known for this case: outlines only."
    for channel, path in images.items():
        try:
            array = gray_of(read_tiff(Path(path)).array, "mean") if is_image(Path(path)) else None
        except CaseError as error:
            problem = f"Outlines only: {error}"
            continue
        if array is not None and array.shape == shape:
            return channel, array, ""
        problem = f"Outlines only: {path} is no image of {shape[1]} x {shape[0]} pixels"
    return "", None, problem


def object_section(evaluation: Evaluation) -> dict[str, Any] | None:
    """Return the table and the figure of objects; None where volumes were scored."""
    if not evaluation.of_images:
        return None
    instances = read_table(evaluation.run.output("instances").verified())
    predicted = read_table(evaluation.run.output("all_objects").verified())
    reference = read_table(evaluation.run.output("reference_objects").verified())
    pooled = [row for row in instances if row["image"] == ALL]
    rows = [
        {
            "name": row["label"],
            "color": evaluation.colors[row["label"]],
            "cells": [
                *(row[key] for key in _KEYS[:_NUM_COUNTS]),
                *(score(number(row[key])) for key in _KEYS[_NUM_COUNTS:]),
            ],
        }
        for row in pooled
    ]
    main = evaluation.main_structure
    counts = {
        row["image"]: (int(row["n_pred"]), int(row["n_ref"]))
        for row in instances
        if row["label"] == main and row["image"] != ALL
    }
    of_main = [[row for row in rows if row["label"] == main] for rows in (predicted, reference)]
    figure = object_figure(size_and_shape(*of_main), counts)
    caption = (
        "All images' objects together: counts are added before anything is divided, so that these numbers are not the "
        f"means over images above. The figure shows {main}; every object is in all_objects.csv beside the evaluation."
    )
    svg = inline_svg(figure, name="objects", description="Sizes, shapes and numbers of objects")
    return {"columns": _COLUMNS, "rows": rows, "figure": Markup(svg), "caption": caption}

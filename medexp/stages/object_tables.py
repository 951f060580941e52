"""The tables of an evaluation of images: every object, every image, all images together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from medexp.io.tables import write_table
from medexp.metrics.object_scores import ObjectScores, pooled_row
from medexp.metrics.objects import OBJECT_COLUMNS, ObjectMeasures

Row = dict[str, Any]

ALL = "all images"
_OBJECTS = ("image", "label", *OBJECT_COLUMNS)
_SUMMARIZED = ("area", "equivalent_diameter", "circularity", "eccentricity", "area_um2", "equivalent_diameter_um")


@dataclass(frozen=True)
class ImageObjects:
    """The objects of one image by label or region; `scores` where there is a reference."""

    image: str
    shape: tuple[int, ...]
    predicted: Mapping[str, ObjectMeasures]
    scores: Mapping[str, ObjectScores] | None = None


def write_object_tables(folder: Path, images: Sequence[ImageObjects]) -> dict[str, Path]:
    """Write the tables of objects; return the files by name.

    `per_image/<image>_objects.csv` and `all_objects.csv` hold the predicted objects, `summary.csv` their number,
    mean, spread and median per image and over all. With references, `reference_objects.csv` holds theirs and
    `instance_eval.csv` the matching per image and pooled over all.
    """
    files = {f"objects/{one.image}": folder / "per_image" / f"{one.image}_objects.csv" for one in images}
    for one in images:
        write_table(files[f"objects/{one.image}"], object_rows([one]), columns=_OBJECTS)
    files |= {"all_objects": folder / "all_objects.csv", "object_summary": folder / "summary.csv"}
    write_table(files["all_objects"], object_rows(images), columns=_OBJECTS)
    write_table(files["object_summary"], summary_rows(images))
    if images and all(one.scores is not None for one in images):
        files |= {"instances": folder / "instance_eval.csv", "reference_objects": folder / "reference_objects.csv"}
        write_table(files["instances"], instance_rows(images))
        write_table(files["reference_objects"], reference_rows(images), columns=_OBJECTS)
    return files


def object_rows(images: Sequence[ImageObjects]) -> list[Row]:
    """Return one row per predicted object."""
    return [row for one in images for name, found in one.predicted.items() for row in _rows(one.image, name, found)]


def reference_rows(images: Sequence[ImageObjects]) -> list[Row]:
    """Return one row per object of the references."""
    scored = [(one.image, name, scores) for one in images for name, scores in (one.scores or {}).items()]
    return [row for image, name, scores in scored for row in _rows(image, name, scores.reference)]


def _rows(image: str, label: str, found: ObjectMeasures) -> list[Row]:
    return [{"image": image, "label": label, **row} for row in found.rows()]


def instance_rows(images: Sequence[ImageObjects]) -> list[Row]:
    """Return one row per image and label, then one per label for all images' objects together."""
    rows: list[Row] = []
    for one in images:
        rows += [{"image": one.image, "label": name, **found.instance_row()} for name, found in _scores(one).items()]
    return [*rows, *({"image": ALL, "label": name, **row} for name, row in pooled_scores(images).items())]


def pooled_scores(images: Sequence[ImageObjects]) -> dict[str, Row]:
    """Return the scores of all images' objects together, by label or region."""
    names = list(_scores(images[0])) if images else []
    return {name: pooled_row([_scores(one)[name] for one in images]) for name in names}


def _scores(one: ImageObjects) -> Mapping[str, ObjectScores]:
    return one.scores or {}


def summary_rows(images: Sequence[ImageObjects]) -> list[Row]:
    """Return number, coverage and the spread of sizes and shapes: per image and label, then over all images."""
    rows: list[Row] = []
    for one in images:
        rows += [_summary(one.image, name, [found], _pixels(one)) for name, found in one.predicted.items()]
    for name in images[0].predicted if images else ():
        found = [one.predicted[name] for one in images]
        rows.append(_summary(ALL, name, found, sum(_pixels(one) for one in images)))
    return rows


def _pixels(one: ImageObjects) -> int:
    return int(np.prod(one.shape))


def _summary(image: str, label: str, found: Sequence[ObjectMeasures], num_pixels: int) -> Row:
    area = _joined(found, "area")
    row: Row = {"image": image, "label": label, "num_objects": area.size, "coverage": float(area.sum()) / num_pixels}
    for name in _SUMMARIZED:
        values = _joined(found, name)
        known = values[np.isfinite(values)]
        row |= {
            f"{name}_mean": float(known.mean()) if known.size else None,
            f"{name}_sd": float(known.std(ddof=1)) if known.size > 1 else None,
            f"{name}_median": float(np.median(known)) if known.size else None,
        }
    return row


def _joined(found: Sequence[ObjectMeasures], name: str) -> Shaped[np.ndarray, " object"]:
    """Return a column over several images; empty where an image's pixel size is unknown."""
    if not all(name in one.columns for one in found):
        return np.zeros(0)
    return np.concatenate([one.columns[name] for one in found]).astype(np.float64)

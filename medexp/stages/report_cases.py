"""The worst cases of a report: pictures through the largest lesion, scores and lesions."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, Num

from medexp.errors import CaseError
from medexp.io.nifti import Volume, decode, read_file, read_volume
from medexp.plots.slices import Plane, three_planes
from medexp.plots.stills import Still
from medexp.preparation.verification import grid_difference
from medexp.stages.image_scoring import is_image
from medexp.stages.recorded_evaluation import Evaluation
from medexp.stages.report_images import image_planes
from medexp.stages.report_scores import case_table, lesion_records

log = logging.getLogger(__name__)

_LONGEST_TABLE = 60  # lesions


def worst_cases(evaluation: Evaluation, max_cases: int) -> list[dict[str, Any]]:
    """Return the cards of the first cases of the evaluation, which are its worst.

    A file that is gone or has changed since it was scored costs its picture, not the report; the card says so.
    """
    return [_card(evaluation, row, rank) for rank, row in enumerate(evaluation.cases[:max_cases], start=1)]


def _card(evaluation: Evaluation, row: Mapping[str, Any], rank: int) -> dict[str, Any]:
    case = str(row["case"])
    files = evaluation.files_of[case]
    planes, channel, note = _planes(files, evaluation.labels)
    columns, rows = case_table(evaluation, row)
    lesions = lesion_records(evaluation, case)
    shown = lesions[:_LONGEST_TABLE]
    summary = f"{len(lesions)} lesion{'s' if len(lesions) != 1 else ''}, region by region"
    if len(shown) < len(lesions):
        summary += f" (the first {len(shown)}; all of them are in lesions.csv)"
    return {
        "rank": rank,
        "case": case,
        "patient": files.get("patient") or "",
        "mean_dice": row["mean_dice"],
        "planes": planes,
        "channel": channel,
        "note": note,
        "columns": columns,
        "rows": rows,
        "lesions": shown,
        "lesions_summary": summary,
    }


def _planes(files: Mapping[str, Any], labels: Mapping[str, int]) -> tuple[Sequence[Plane] | Sequence[Still], str, str]:
    """Return the planes, the channel that they show, and what is to be said about them."""
    if is_image(Path(files["prediction"]["path"])):
        return image_planes(files, labels)
    try:
        prediction, reference = (_as_scored(files[kind]) for kind in ("prediction", "reference"))
    except CaseError as error:
        log.warning("no picture: %s", error)
        return (), "", f"No picture: {error}"
    channel, image, problem = _image(files["images"], reference)
    planes = three_planes(
        reference=_integers(reference.array),
        prediction=_integers(prediction.array),
        image=image,
        affine=reference.header.affine,
    )
    return planes, channel, problem


def _as_scored(entry: Mapping[str, str]) -> Volume:
    file = read_file(Path(entry["path"]))
    if file.sha256 != entry["sha256"]:
        raise CaseError(f"{file.path} has changed since it was scored; run stage=evaluate again")
    return decode(file)


def _image(images: Mapping[str, str], reference: Volume) -> tuple[str, Num[np.ndarray, "i j k"] | None, str]:
    """Return the first channel that can be read on the reference's grid, or why there is none."""
    problem = "No image is known for this case: outlines only."
    for channel, path in images.items():
        try:
            volume = read_volume(Path(path))
        except CaseError as error:
            problem = f"Outlines only: {error}"
            continue
        difference = grid_difference(volume, reference)
        if difference is None:
            return channel, volume.array, ""
        problem = f"Outlines only: {path} and the reference differ in their grids: {difference}"
    return "", None, problem


def _integers(array: Num[np.ndarray, "i j k"]) -> Integer[np.ndarray, "i j k"]:
    return array.astype(np.int32) if array.dtype.kind == "f" else array

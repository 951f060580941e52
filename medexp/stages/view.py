"""Look at predicted images: a review in the browser, a film of it, and masks that go out to be corrected and return."""

import getpass
import logging
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from medexp.errors import CaseError, ConfigurationError, ManifestError
from medexp.inference.writers import require_file_name
from medexp.io.pairing import label_maps
from medexp.runs.files import read_json
from medexp.runs.lineage import ancestry
from medexp.stages.context import Context, Result
from medexp.stages.evaluated_files import select_predictions
from medexp.stages.image_scoring import PredictedImage, is_image
from medexp.types import Count, Positive, Share
from medexp.viewers.corrections import Origin, export_for_correction, import_corrections
from medexp.viewers.flags import Flags, read_flags
from medexp.viewers.server import Review, wait_for
from medexp.viewers.slides import Slide, slides_of
from medexp.viewers.video import write_video

log = logging.getLogger(__name__)

Action = Literal["review", "video", "export", "import"]


def view(
    title: str,
    *,
    action: Action,
    masks: str | Path | None,
    images: str | Path | None,
    flags: str | Path | None,
    corrected: str | Path | None,
    keep_unchanged: bool,
    reviewer: str | None,
    interval_s: Positive,
    alpha: Share,
    show: Mapping[str, Any],
    formats: Sequence[Literal["mp4", "gif"]],
    longest_px: Count,
    frames_per_s: Count,
    context: Context,
) -> Result:
    """Look at the upstream run `predicted`, or at masks in a folder.

    Args:
        title: Of the page.
        action: "review": serve a slideshow on this machine until the reviewer quits, and write flags.csv; the same
            command opens it again with its flags. "video": write review.mp4 or review.gif, which needs no screen.
            "export": write images and masks into a folder, to be corrected. "import": check corrected masks and store
            them with their record, for `dataset.find_cases.corrections`.
        masks: A folder of masks; None: the upstream run's predictions.
        images: The folder of their images; only with `masks`.
        flags: A flags.csv: only flagged images are shown or exported; None: all.
        corrected: The folder of corrected masks; only for "import".
        keep_unchanged: Import masks that are still as predicted, too.
        reviewer: Who looks; None: who is logged in.
        interval_s: How long a slide stays.
        alpha: Opacity of the masks.
        show: `port` (0: any that is free) and `open_browser`; these do not decide which review it is.
        formats: Of the film.
        longest_px: Of the film's frames.
        frames_per_s: Of an MP4.
        context: The run.

    Raises:
        CaseError: A mask has no image, or is no image.
        CohortError: Corrected masks cannot be used; all are listed.
        ConfigurationError: A setting does not fit the action.
        MissingDependencyError: An MP4 is asked for and PyAV is not installed.
    """
    _require_fitting(action, masks, images, corrected)
    slides = _flagged(_slides(masks, images, context), flags)
    run = next(iter(context.upstream.get("predicted", [])), None)
    origin = Origin(reviewer or _login(), None if run is None or masks is not None else run.identity)
    folder = context.run.folder
    if action == "export":
        record = export_for_correction(folder / "export", slides, origin)
        lines = (
            f"{len(slides)} images with masks: {record.parent}",
            "correct the masks there, then view.action=import",
        )
        return Result(outputs={"export": record}, lines=lines)
    if action == "import":
        return _imported(Path(corrected or ""), folder, slides, origin, keep_unchanged=keep_unchanged)
    if action == "video":
        films: dict[str, Path] = {name: folder / f"review.{name}" for name in dict.fromkeys(formats)}
        for path in films.values():
            write_video(path, slides, interval_s=interval_s, alpha=alpha, longest=longest_px, frames_per_s=frames_per_s)
        return Result(outputs=films, lines=tuple(f"film: {path}" for path in films.values()))
    return _reviewed(slides, folder / "flags.csv", origin, title, interval_s, alpha, show)


def _require_fitting(
    action: str, masks: str | Path | None, images: str | Path | None, corrected: str | Path | None
) -> None:
    if (masks is None) != (images is None):
        raise ConfigurationError("view.masks and view.images: expected both folders or none, got one; name the other")
    if (action == "import") != (corrected is not None):
        got = "none" if corrected is None else f"{corrected} with view.action={action}"
        raise ConfigurationError(
            f"view.corrected: expected a folder with view.action=import, and only there, got {got}"
        )


def _slides(masks: str | Path | None, images: str | Path | None, context: Context) -> list[Slide]:
    """Return the slides under the names of their images, sorted."""
    _, found = select_predictions(masks, context=context, key="view.masks")
    volumes = [one.case for one in found if not is_image(one.path)]
    if volumes:
        listing = ", ".join(volumes[:5])
        raise CaseError(f"stage=view: expected predicted images (TIFF), got {len(volumes)} volumes: {listing}")
    if images is not None:
        return slides_of({one.case: one.path for one in found}, label_maps(Path(images), key="view.images"))
    names = _names(context)
    placed = {names.get(one.case) or _image_of(one).stem: one for one in found}
    if len(placed) < len(found):
        raise CaseError("stage=view: expected images of different names, got several of one; rename them")
    for name in placed:
        require_file_name(name)
    return slides_of(
        {name: one.path for name, one in placed.items()}, {name: _image_of(one) for name, one in placed.items()}
    )


def _image_of(one: PredictedImage) -> Path:
    if not one.images:
        raise ManifestError(f"{one.case}: expected its image in predictions.json, found none; run stage=predict again")
    return one.images[0][1]


def _names(context: Context) -> dict[str, str]:
    """Return what the prepared cases' images are called, by case."""
    prepared = [run for run in ancestry(context.upstream["predicted"]) if run.record["stage"] == "prepare"]
    entries = read_json(prepared[0].folder / "manifest.json")["cases"] if prepared else []
    return {str(entry["case"]): str(entry["name"]) for entry in entries if entry.get("name")}


def _flagged(slides: list[Slide], flags: str | Path | None) -> list[Slide]:
    if flags is None:
        return slides
    known = read_flags(Path(flags))
    kept = [slide for slide in slides if (str(slide.image), str(slide.mask)) in known]
    if not kept:
        raise ConfigurationError(f"view.flags: expected flags of these {len(slides)} images in {flags}, found none")
    return kept


def _reviewed(
    slides: Sequence[Slide],
    path: Path,
    origin: Origin,
    title: str,
    interval_s: float | int,
    alpha: float | int,
    show: Mapping[str, Any],
) -> Result:
    flags = Flags(path, slides, origin.reviewer)
    opened = webbrowser.open if show["open_browser"] else None
    with Review(slides, flags, title=title, interval_s=interval_s, alpha=alpha, port=int(show["port"])) as review:
        wait_for(review, opened=opened)
    number = len(flags.reasons())
    share = number / len(slides)
    line = f"{number} of {len(slides)} images flagged ({share:.0%}): {path}"
    return Result(outputs={"flags": path}, scores={"flagged_share": share}, lines=(line,))


def _imported(
    corrected: Path, folder: Path, slides: Sequence[Slide], origin: Origin, *, keep_unchanged: bool
) -> Result:
    record, left_out = import_corrections(
        corrected, folder / "corrections", slides, origin, keep_unchanged=keep_unchanged
    )
    entries = read_json(record)["masks"]
    masks = {f"mask/{entry['name']}": record.parent / f"{entry['name']}_mask.tif" for entry in entries}
    changed = sum(entry["changed_pixels"] != 0 for entry in entries)
    lines = [f"{len(entries)} corrected masks, {changed} of them differ from the prediction: {record.parent}"]
    if left_out:
        names = ", ".join(left_out)
        lines.append(f"left out, because nobody changed them (view.keep_unchanged=true keeps them): {names}")
    lines += [
        f"train with them: 'dataset.find_cases.corrections=[{record.parent}]' stage=prepare,1,...; or go on from "
        "weights that were trained without them: the same with stage=2 and",
        "  'upstream.overrides=[\"dataset.find_cases.corrections=[]\"]'",
    ]
    return Result(outputs={"corrections": record, **masks}, lines=tuple(lines))


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"

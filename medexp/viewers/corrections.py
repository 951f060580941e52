"""Masks go out to be corrected and come back: a folder to draw in, and the checks and the record of what returns."""

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from medexp.errors import CaseError, CohortError
from medexp.io.corrections import FORMAT, RECORD, SUFFIX
from medexp.io.nifti import read_file
from medexp.io.tiff import EXTENSIONS, decode_tiff, read_mask, read_tiff_header, write_mask_tiff
from medexp.runs.files import atomic_write, sha256_of, write_json
from medexp.viewers.slides import Slide

_LISTED = 20


@dataclass(frozen=True)
class Origin:
    """Who corrected, and which run made the masks that were corrected."""

    reviewer: str
    from_run: str | None


def export_for_correction(folder: Path, slides: Sequence[Slide], origin: Origin) -> Path:
    """Write `images/<name>.tif` as they are, `masks/<name>_mask.tif` as 0 and 255, and export.json; return the latter.

    Raises:
        CaseError: A mask cannot be read.
        StorageError: A file cannot be written.
    """
    entries = []
    for slide in slides:
        image = folder / "images" / f"{slide.name}{slide.image.suffix.lower()}"
        mask = folder / "masks" / f"{slide.name}{SUFFIX}.tif"
        with atomic_write(image) as temporary:
            shutil.copyfile(slide.image, temporary)
        read = read_mask(slide.mask)
        write_mask_tiff(mask, read.array, pixel_size_um=read.header.pixel_size_um)
        digests = {"image_sha256": sha256_of(image), "mask_sha256": sha256_of(mask)}
        entries.append({"name": slide.name, "image": str(slide.image), "mask": str(slide.mask), **digests})
    record = folder / "export.json"
    write_json(record, {"format": FORMAT, **asdict(origin), "exported_at": _now(), "masks": entries})
    return record


def import_corrections(
    corrected: Path, folder: Path, slides: Sequence[Slide], origin: Origin, *, keep_unchanged: bool
) -> tuple[Path, list[str]]:
    """Check corrected masks and store them; return their record, corrections.json, and whose masks are left out.

    Args:
        corrected: A folder of `<name>_mask.tif`, as export wrote them; other files than TIFF are not looked at.
        folder: Where the checked masks go; it must not exist or hold an earlier import.
        slides: What may be corrected: names, images and the masks that were predicted.
        origin: Who corrected, and which run made the masks.
        keep_unchanged: Store masks that are still as predicted, too: somebody has looked and found them right.
            Otherwise they would replace references by predictions that nobody may have looked at.

    Raises:
        CohortError: Masks cannot be used, or none was changed; all of them are listed, and nothing is stored.
        StorageError: A file cannot be written.
    """
    known = {slide.name: slide for slide in slides}
    files = _by_stem(corrected)
    checked, problems = {}, []
    for stem, paths in sorted(files.items()):
        try:
            checked[stem] = _checked(stem, paths, known)
        except CaseError as error:
            problems.append(str(error))
    if problems or not files:
        raise CohortError(_refusal(corrected, problems, len(files)))
    unchanged = [stem for stem, mask in checked.items() if _is_unchanged(known[stem.removesuffix(SUFFIX)], mask)]
    left_out = [] if keep_unchanged else unchanged
    if len(left_out) == len(checked):
        message = f"{corrected}: expected corrected masks, got {len(checked)} that are as they were predicted"
        raise CohortError(f"{message}; correct some, or say that they are right: view.keep_unchanged=true")
    entries = [
        _store(folder, known[stem.removesuffix(SUFFIX)], files[stem][0], mask)
        for stem, mask in checked.items()
        if stem not in left_out
    ]
    now = _now()
    told = [{**entry, **asdict(origin), "imported_at": now} for entry in entries]
    record = folder / RECORD
    write_json(record, {"format": FORMAT, **asdict(origin), "imported_at": now, "masks": told})
    return record, [stem.removesuffix(SUFFIX) for stem in left_out]


def _is_unchanged(slide: Slide, mask: UInt8[np.ndarray, "row column"]) -> bool:
    return np.array_equal(read_mask(slide.mask).array, mask)


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise CohortError(f"view.corrected: expected a folder of corrected masks, found none at {folder}")
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith("."):
            found[path.stem].append(path)
    # An exported folder may be given whole: its images are no masks.
    return {stem: paths for stem, paths in found.items() if not all(path.parent.name == "images" for path in paths)}


def _checked(stem: str, paths: Sequence[Path], known: Mapping[str, Slide]) -> UInt8[np.ndarray, "row column"]:
    name, path = stem.removesuffix(SUFFIX), paths[0]
    if len(paths) > 1:
        places = ", ".join(str(one) for one in paths)
        raise CaseError(f"{stem}: expected one corrected mask of an image, got {len(paths)}: {places}")
    if stem == name:
        raise CaseError(f"{path}: expected a name ending in {SUFFIX}, for example {stem}{SUFFIX}.tif")
    if name not in known:
        raise CaseError(f"{path}: expected the name of an image that was reviewed, got {name!r}")
    array = decode_tiff(read_file(path)).array
    expected = read_tiff_header(known[name].image).shape
    if array.ndim != 2 or array.shape != expected:
        raise CaseError(
            f"{path}: expected a gray mask of {_size(expected)} pixels as its image, got {_size(array.shape)}"
        )
    if array.dtype == bool:
        return array.astype(np.uint8)
    values = np.unique(array)
    strange = [f"{value:g}" for value in values.tolist() if value not in (0, 255)]
    if strange:
        more = ", ..." if len(strange) > 5 else ""
        raise CaseError(f"{path}: expected the values 0 and 255 only, got also {', '.join(strange[:5])}{more}")
    return (array > 0).astype(np.uint8)


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(side) for side in shape)


def _refusal(corrected: Path, problems: Sequence[str], number: int) -> str:
    if not number:
        return f"view.corrected: expected masks <image's name>{SUFFIX}.tif in {corrected}, found none"
    rest = f"\n  and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    listing = "".join(f"\n  {line}" for line in problems[:_LISTED]) + rest
    message = f"view.corrected: expected {number} corrected masks that can be used, {len(problems)} cannot:{listing}"
    return f"{message}\nNothing was imported; correct the files and run the same command again."


def _store(folder: Path, slide: Slide, source: Path, mask: UInt8[np.ndarray, "row column"]) -> dict[str, Any]:
    path = folder / f"{slide.name}{SUFFIX}.tif"
    write_mask_tiff(path, mask, pixel_size_um=read_tiff_header(slide.image).pixel_size_um)
    before = read_mask(slide.mask).array
    return {
        "name": slide.name,
        "sha256": sha256_of(path),
        "corrected_from": str(source),
        "image": str(slide.image),
        "replaces": str(slide.mask),
        "replaces_sha256": sha256_of(slide.mask),
        "changed_pixels": int(np.count_nonzero(before != mask)) if before.shape == mask.shape else None,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

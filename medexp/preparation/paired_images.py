"""Images and their masks by configured name patterns, or from a manifest; no file is opened here but the manifest."""

import fnmatch
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medexp.errors import CohortError, ConfigurationError, ManifestError
from medexp.io.corrections import Correction, read_corrections
from medexp.io.tables import read_table
from medexp.io.tiff import EXTENSIONS
from medexp.preparation.raw_cases import (
    RawCase,
    RawCohort,
    case_identifier,
    combined,
    require_folders,
    required_channels,
    required_labels,
)

NOTES = ("date", "batch", "operator", "notes")
# What the manifest tells of a corrected mask, and what stage=view called it.
_PROVENANCE = {"corrected_by": "reviewer", "corrected_at": "imported_at", "corrected_run": "from_run"}
_REQUIRED = ("basename", "image_path", "mask_path")
_ROLES = ("train", "test")
_FIELD = re.compile(r"\{(\w+)\}")
_MASK_NAME = re.compile(r"[-_](?:mask|pred_mask|pred_prob)$")


@dataclass(frozen=True)
class Pairing:
    """Which files are images, and where the mask of each is.

    `image` is a regular expression for a path below the root, with `/` and without its ending; `mask` is such a path,
    in which `{name}` stands for the group of that name.
    """

    image: re.Pattern[str]
    mask: str
    role: str

    @classmethod
    def of(cls, record: Mapping[str, str], number: int) -> "Pairing":
        """Read an entry of `pairs`.

        Raises:
            ConfigurationError: It lacks a key or names a group that the expression does not have.
        """
        key = f"dataset.find_cases.pairs[{number}]"
        unknown = sorted(set(record) - {"image", "mask", "role"})
        if unknown or not {"image", "mask"} <= set(record):
            raise ConfigurationError(f"{key}: expected image, mask and perhaps role, got {sorted(record)}")
        try:
            image = re.compile(record["image"])
        except re.error as error:
            message = f"{key}.image: expected a regular expression, got {record['image']!r} ({error})"
            raise ConfigurationError(message) from error
        groups = _FIELD.findall(record["mask"])
        strangers = [name for name in groups if name not in image.groupindex]
        if strangers:
            message = f"{key}.mask: expected groups of {record['image']!r}: {sorted(image.groupindex)}"
            raise ConfigurationError(f"{message}, got {strangers}")
        role = record.get("role", "train")
        if role not in _ROLES:
            raise ConfigurationError(f"{key}.role: expected train or test, got '{role}'")
        return cls(image, record["mask"], role)

    def mask_of(self, match: re.Match[str]) -> str:
        """Return the mask's path without its ending."""
        return _FIELD.sub(lambda field: match[field[1]], self.mask)


def find_cases(
    roots: Sequence[Path],
    *,
    channels: Sequence[str] | None,
    labels: Mapping[str, int] | None,
    patient_pattern: str,
    pairs: Sequence[Mapping[str, str]],
    manifest: str | Path | None,
    exclude: Sequence[str],
    confirmed_empty: Sequence[str],
    corrections: Sequence[str | Path],
) -> RawCohort:
    """Return the images below `roots` with their masks.

    Where no pattern matches any file of a root, it is a folder of images without masks: every TIFF at its top whose
    name does not end like a mask's.

    Args:
        roots: Folders.
        channels: The image's one name.
        labels: The object's one name.
        patient_pattern: Regular expression for an image's path below its root, without the ending; its group `group`
            says which images stay together when the data are split (a plate, a well).
        pairs: See `Pairing`; an image belongs to the first entry that matches.
        manifest: A table with basename, image_path, mask_path (may be empty) and, if known, group, role,
            empty_confirmed, date, batch, operator, notes; its paths lie below a root. Replaces `pairs`.
        exclude: Names of images that are left out, with `*`.
        confirmed_empty: Names of images whose masks are known to be empty, with `*`.
        corrections: Folders of corrected masks `<image's name>_mask.tif`, which replace others; the last one counts.

    Raises:
        CohortError: A root is no folder, a path leaves its root, two files differ in their ending only, or a pattern
            in `exclude` or `confirmed_empty` fits no image.
        ConfigurationError: A pattern or a name is wrong.
        ManifestError: The manifest lacks columns.
    """
    names, values = required_channels(channels), required_labels(labels)
    matcher = group_matcher(patient_pattern)
    places = require_folders(roots)
    rules = [Pairing.of(record, number) for number, record in enumerate(pairs)]
    found = list(_of_manifest(Path(manifest), places) if manifest is not None else _of_folders(places, rules))
    _require_fitting(found, exclude=exclude, confirmed_empty=confirmed_empty)
    kept = _without(found, exclude)
    corrected = _corrections(corrections)
    cases = [_case(one, names[0], matcher, confirmed_empty, corrected) for one in kept]
    _require_used(corrected, kept)
    return RawCohort(combined(cases), names, values)


def find_images(folder: Path) -> dict[str, Path]:
    """Return the TIFF files at the top of a folder by name without ending; masks and predictions do not count."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and path.name[0] != ".")
    return _unique((path.stem, path) for path in sorted(files) if not _MASK_NAME.search(path.stem))


def _unique(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Return files by name; two that differ in their ending only would stand for one image.

    Raises:
        CohortError: There are such files; all are listed.
    """
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for name, path in named:
        found[name].append(path)
    twice = [f"{name}: {', '.join(str(path) for path in paths)}" for name, paths in found.items() if len(paths) > 1]
    if twice:
        listing = "".join(f"\n  {line}" for line in twice)
        raise CohortError(f"expected one TIFF file per name, got names with several:{listing}\nKeep one of each.")
    return {name: paths[0] for name, paths in found.items()}


def group_matcher(pattern: str) -> re.Pattern[str]:
    """Return the compiled `dataset.group_pattern`.

    Raises:
        ConfigurationError: It is not a regular expression with a group named `group`.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        message = f"dataset.group_pattern: expected a regular expression, got {pattern!r} ({error})"
        raise ConfigurationError(message) from error
    if "group" not in compiled.groupindex:
        raise ConfigurationError(f"dataset.group_pattern: expected a group (?P<group>...), got {pattern!r}")
    return compiled


@dataclass(frozen=True)
class _Found:
    """An image's name, its path below the root without the ending, and what is known about it."""

    name: str
    place: str
    image: Path
    mask: Path | None
    role: str
    group: str | None
    notes: Mapping[str, Any]
    problems: tuple[str, ...] = ()


def _of_folders(roots: Sequence[Path], rules: Sequence[Pairing]) -> Iterator[_Found]:
    for root in roots:
        files = _unique(_files(root))
        matched = list(_matched(root, files, rules))
        if not matched:
            matched = [_Found(name, name, path, None, "test", None, {}) for name, path in find_images(root).items()]
        yield from matched


def _matched(root: Path, files: Mapping[str, Path], rules: Sequence[Pairing]) -> Iterator[_Found]:
    for place, image in files.items():
        for rule in rules:
            match = rule.image.fullmatch(place)
            if match is None:
                continue
            wanted = rule.mask_of(match)
            mask = files.get(wanted)
            problem = _outside(root, Path(wanted), "dataset.find_cases.pairs") if mask is None else None
            yield _Found(image.stem, place, image, mask, rule.role, None, {}, (problem,) if problem else ())
            break


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the TIFF files below a root by their path without ending. Hidden ones do not count."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            if path.suffix.lower() in EXTENSIONS and not name.startswith("."):
                yield path.relative_to(root).with_suffix("").as_posix(), path


def _of_manifest(path: Path, roots: Sequence[Path]) -> Iterator[_Found]:
    rows = read_table(path)
    missing = [name for name in _REQUIRED if rows and name not in rows[0]]
    if missing or not rows:
        found = f"no {', '.join(missing)}" if rows else "no rows"
        if rows and any(";" in name for name in rows[0]):
            found += "; its columns are separated by semicolons, expected commas"
        raise ManifestError(f"{path}: expected the columns {', '.join(_REQUIRED)}, got {found}; complete the table")
    for line, row in enumerate(rows, start=2):
        empty = [name for name in ("basename", "image_path") if not row[name].strip()]
        if empty:
            raise ManifestError(f"{path}: line {line}: expected {' and '.join(empty)}, got nothing; complete the row")
        role = row.get("role") or "train"
        if role not in _ROLES:
            raise ManifestError(f"{path}: {row['basename']}: expected the role train or test, got '{role}'")
        image, problem = _below(roots, row["image_path"], path)
        mask, other = _below(roots, row["mask_path"], path) if row["mask_path"] else (None, None)
        notes: dict[str, Any] = {name: row[name] for name in NOTES if row.get(name)}
        if row.get("empty_confirmed", "").lower() in {"1", "true", "yes"}:
            notes["empty_confirmed"] = True
        problems = tuple(reason for reason in (problem, other) if reason)
        place = Path(row["image_path"]).with_suffix("").as_posix()
        yield _Found(
            row["basename"], place, image or Path(row["image_path"]), mask, role, row.get("group"), notes, problems
        )


def _below(roots: Sequence[Path], written: str, manifest: Path) -> tuple[Path | None, str | None]:
    """Return the file that a path stands for, or why there is none: it leaves the roots, or is not there."""
    reason = f"{manifest}: expected a file, found none at {written}"
    for root in roots:
        outside = _outside(root, Path(written), str(manifest))
        if outside is not None:
            reason = outside
        elif (root / written).is_file():
            return root / written, None
    return None, reason


def _outside(root: Path, written: Path, key: str) -> str | None:
    """Return why a path may not be followed; None if it stays below the root, links included."""
    if (root / written).resolve().is_relative_to(root.resolve()):
        return None
    return f"{key}: expected paths below the data root {root}, got {written}, which leads out of it"


def _require_fitting(found: Sequence[_Found], **patterns: Sequence[str]) -> None:
    for key, listed in patterns.items():
        for pattern in listed:
            if found and not any(fnmatch.fnmatchcase(one.name, pattern) for one in found):
                message = f"dataset.find_cases.{key}: expected names of images, got '{pattern}', which fits none of"
                raise CohortError(f"{message} {len(found)}, for example {found[0].name}")


def _without(found: Sequence[_Found], exclude: Sequence[str]) -> list[_Found]:
    return [one for one in found if not _fits(one.name, exclude)]


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _corrections(folders: Sequence[str | Path]) -> dict[str, Correction]:
    """Return corrected masks by the name of their image.

    Raises:
        CohortError: A folder is not there, or a mask has changed since stage=view imported it.
    """
    found: dict[str, Correction] = {}
    for folder in map(Path, folders):
        try:
            found |= read_corrections(folder)
        except CohortError as error:
            raise CohortError(f"dataset.find_cases.corrections: {error}") from error
    return found


def _require_used(corrected: Mapping[str, Correction], found: Sequence[_Found]) -> None:
    strangers = sorted(set(corrected) - {one.name for one in found})
    if strangers and found:
        message = "dataset.find_cases.corrections: expected masks of images of this data set, got masks of"
        raise CohortError(f"{message} {', '.join(strangers[:10])}; remove them or correct their names")


def _case(
    one: _Found,
    channel: str,
    matcher: re.Pattern[str],
    confirmed_empty: Sequence[str],
    corrected: Mapping[str, Correction],
) -> RawCase:
    notes = dict(one.notes)
    problems = list(one.problems)
    if _fits(one.name, confirmed_empty):
        notes["empty_confirmed"] = True
    mask = one.mask
    if one.name in corrected:
        notes["corrected_from"] = None if mask is None else str(mask)
        notes |= {name: corrected[one.name].record.get(recorded) for name, recorded in _PROVENANCE.items()}
        mask = corrected[one.name].path
    match = matcher.fullmatch(one.place)
    group = one.group or (match["group"] if match is not None else None)
    if not group:
        problems.append(f"dataset.group_pattern {matcher.pattern!r} finds no group in {one.place!r}")
    return RawCase(
        case_identifier(one.name),
        group or one.name,
        one.role,
        {channel: one.image},
        mask,
        one.name,
        tuple(problems),
        notes,
    )

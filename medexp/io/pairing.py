"""Which prediction file belongs to which reference file.

A label map of case `X` may be called `X`, `X-seg`, `X-pred`, `X-mask` or `X-pred-mask` (or with `_`), with `.nii.gz`,
`.nii`, `.tif` or `.tiff`, at any depth below its folder. Beside `X-seg.nii.gz`, the other files whose names begin with
`X-` or `X_` are the images of that case (a raw BraTS case folder) and no label maps.
"""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from medexp.errors import CohortError, ConfigurationError, IncompletePredictionsError

_EXTENSIONS = (".nii.gz", ".nii", ".tif", ".tiff")
_SUFFIX = re.compile(r"[-_](?:seg|pred|mask|pred[-_]mask)$")
_LISTED = 20  # names in one message


@dataclass(frozen=True)
class Pair:
    """A case's predicted and reference label map, and what is known about them.

    `sha256` is what the prediction's run recorded of its file. `images` are the case's images by channel, as
    far as they are known: a report draws on them, no score needs them.
    """

    case: str
    prediction: Path
    reference: Path
    patient: str | None = None
    sha256: str | None = None
    images: tuple[tuple[str, Path], ...] = ()


def label_maps(folder: Path, *, key: str) -> dict[str, Path]:
    """Return the label map of every case below a folder, sorted by case.

    Args:
        folder: Any folder, flat or with one folder per case. Hidden files are not looked at.
        key: The configuration key that named it, for messages.

    Raises:
        ConfigurationError: There is no such folder.
        CohortError: It holds no label map, or several of one case; all are listed.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{key}: expected a folder of label maps, found none at {folder}; correct {key}")
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for place, names in _volumes(folder):
        for case, name in _label_names(names):
            found[case].append(place / name)
    if not found:
        kinds = " or ".join(_EXTENSIONS)
        raise CohortError(f"{key}: expected label maps ({kinds}) in {folder}, found none; name the folder they are in")
    doubled = {case: paths for case, paths in found.items() if len(paths) > 1}
    if doubled:
        lines = [f"{case}: {', '.join(str(path.relative_to(folder)) for path in doubled[case])}" for case in doubled]
        message = f"{key}: expected one label map per case in {folder}, found several of {len(doubled)} cases"
        raise CohortError(f"{message}:{_listed(lines)}\nName the folder that holds only the label maps meant.")
    return {case: found[case][0] for case in sorted(found)}


def require_same_cases(predicted: Collection[str], asked_for: Collection[str], *, where: str) -> None:
    """Refuse predictions that lack cases or hold some that nobody asked for.

    Raises:
        IncompletePredictionsError: Lists all of them.
    """
    missing = sorted(set(asked_for) - set(predicted))
    extra = sorted(set(predicted) - set(asked_for))
    if not missing and not extra:
        return
    parts = [f"{where}: expected one prediction for each of {len(asked_for)} reference cases, got {len(predicted)}"]
    if missing:
        parts.append(f"{len(missing)} without a prediction:{_listed(missing)}")
        parts.append(
            "Predict the missing ones, or point evaluate.references at a folder of exactly the cases that were asked "
            "for. A mean over fewer cases would be another number."
        )
    if extra:
        parts.append(f"{len(extra)} without a reference:{_listed(extra)}")
        parts.append("Add their references, or point evaluate.predictions at a folder without them.")
    raise IncompletePredictionsError("\n".join(parts))


def paired(predictions: Mapping[str, Path], references: Mapping[str, Path], *, where: str) -> list[Pair]:
    """Return the pairs of two complete sides, sorted by case.

    Raises:
        IncompletePredictionsError: See `require_same_cases`.
    """
    require_same_cases(predictions, references, where=where)
    return [Pair(case, predictions[case], references[case]) for case in sorted(references)]


def case_of(name: str) -> tuple[str, bool]:
    """Return the case that a file's name tells, and whether the name says that it is a label map.

    What is escaped in names of predictions (`%20`) stands for what it was: both names are the same case.
    """
    stem = unquote(_stem(name))
    case = _SUFFIX.sub("", stem)
    return (case, True) if case and case != stem else (stem, False)


def images_beside(reference: Path) -> tuple[tuple[str, Path], ...]:
    """Return the images that stand beside `X-seg.nii.gz` in a case's folder, by what follows `X-` in their names."""
    if not _is_volume(reference.name):
        return ()
    case, is_marked = case_of(reference.name)
    if not is_marked:
        return ()
    names = sorted(path.name for path in reference.parent.iterdir() if _is_volume(path.name))
    images = [name for name in names if not case_of(name)[1] and _belongs_to(_stem(name), case)]
    return tuple((_stem(name)[len(case) + 1 :], reference.parent / name) for name in images)


def _volumes(folder: Path) -> Iterable[tuple[Path, list[str]]]:
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), sorted(name for name in names if _is_volume(name))


def _label_names(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Yield (case, file name) of the label maps among the names of one folder."""
    cases = {name: case_of(name) for name in names}
    marked = {case for case, is_marked in cases.values() if is_marked}
    for name, (case, is_marked) in cases.items():
        if is_marked or not _is_image_of(case, marked):
            yield case, name


def _is_image_of(stem: str, marked: Collection[str]) -> bool:
    # Every prefix that ends before a separator, so that a folder of thousands is read once.
    return any(stem[: match.start()] in marked for match in re.finditer("[-_]", stem))


def _belongs_to(stem: str, case: str) -> bool:
    return stem[: len(case)] == case and stem[len(case) : len(case) + 1] in {"-", "_"} and len(stem) > len(case) + 1


def _is_volume(name: str) -> bool:
    return name.lower().endswith(_EXTENSIONS) and not name.startswith(".")


def _stem(name: str) -> str:
    return next(name[: -len(extension)] for extension in _EXTENSIONS if name.lower().endswith(extension))


def _listed(lines: Iterable[str]) -> str:
    shown = list(lines)
    rest = f"\n  and {len(shown) - _LISTED} more" if len(shown) > _LISTED else ""
    return "".join(f"\n  {line}" for line in shown[:_LISTED]) + rest

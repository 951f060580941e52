"""Medical Segmentation Decathlon: `images/` or `imagesTr/` beside `labels/` or `labelsTr/`, equal file names."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medexp.errors import CohortError, ConfigurationError
from medexp.preparation.raw_cases import (
    RawCase,
    RawCohort,
    combined,
    patient_matcher,
    raw_case,
    require_folders,
    required_channels,
    required_labels,
)

_PAIRS = (("images", "labels", "train"), ("imagesTr", "labelsTr", "train"), ("imagesTs", "labelsTs", "test"))
_ENDING = ".nii.gz"


def find_cases(
    roots: Sequence[Path],
    *,
    channels: Sequence[str] | None,
    labels: Mapping[str, int] | None,
    patient_pattern: str,
) -> RawCohort:
    """Return the cases below `roots`; the file's name without its ending is the case's.

    `imagesTs` become test cases. A root without these folders that holds `.nii.gz` files itself is a folder of
    images without labels.

    Raises:
        CohortError: A root is no folder or holds no images.
        ConfigurationError: Channels, labels or the pattern do not say what they must.
    """
    names = required_channels(channels)
    if len(names) != 1:
        message = f"dataset.channels: expected one name, because this layout has one file per case, got {list(names)}"
        raise ConfigurationError(message)
    matcher = patient_matcher(patient_pattern)
    cases: list[RawCase] = []
    for root in require_folders(roots):
        for name, image, label, role in _files(root):
            images = {} if image is None else {names[0]: image}
            problems = [f"{label}: expected an image of the same name, found none"] if image is None else []
            cases.append(raw_case(name, matcher=matcher, role=role, images=images, label=label, problems=problems))
    return RawCohort(combined(cases), names, required_labels(labels))


def _files(root: Path) -> Iterator[tuple[str, Path | None, Path | None, str]]:
    present = [pair for pair in _PAIRS if (root / pair[0]).is_dir()]
    if not present:
        plain = volumes_in(root, _ENDING)
        if not plain:
            raise CohortError(f"{root}: expected a folder images/ or imagesTr/, or {_ENDING} files, found neither")
        yield from ((name, path, None, "train") for name, path in plain.items())
    for image_folder, label_folder, role in present:
        images = volumes_in(root / image_folder, _ENDING)
        labels = volumes_in(root / label_folder, _ENDING)
        for name in sorted({*images, *labels}):
            yield name, images.get(name), labels.get(name), role


def volumes_in(folder: Path, ending: str) -> dict[str, Path]:
    """Return the files of a folder by name without `ending`; none if there is no folder. Hidden files do not count.

    Raises:
        CohortError: The folder cannot be read.
    """
    if not folder.is_dir():
        return {}
    try:
        names = sorted(path.name for path in folder.iterdir() if path.name.endswith(ending) and path.name[0] != ".")
    except OSError as error:
        raise CohortError(f"{folder}: expected a readable folder, got '{error.strerror}'") from error
    return {name.removesuffix(ending): folder / name for name in names}

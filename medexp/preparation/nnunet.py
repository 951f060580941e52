"""nnU-Net v2 raw folders: read any of them, and write one that nnU-Net's own integrity check accepts."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medexp.errors import CohortError, ConfigurationError, ManifestError
from medexp.preparation.decathlon import volumes_in
from medexp.preparation.nnunet_layout import RawLayout
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
from medexp.runs.files import read_json

__all__ = ["RawLayout", "find_cases"]

_ENDINGS = (".nii.gz", ".nii")
_NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})", re.DOTALL)
_PAIRS = (("imagesTr", "labelsTr", "train"), ("imagesTs", "labelsTs", "test"))


@dataclass(frozen=True)
class _Description:
    """What dataset.json says: channels in file order, foreground labels, and how the files end."""

    channels: tuple[str, ...]
    labels: Mapping[str, int]
    ending: str
    num_training: int | None


def find_cases(
    roots: Sequence[Path],
    *,
    channels: Sequence[str] | None,
    labels: Mapping[str, int] | None,
    patient_pattern: str,
) -> RawCohort:
    """Return the cases of one or more dataset folders; `imagesTs` become test cases.

    Channels and labels are those of dataset.json. If they are configured, channels are chosen and ordered by
    name, and labels must agree. A folder without dataset.json that holds `<case>_0000.nii.gz` files is a folder
    of images without labels in the configured order of channels.

    Raises:
        CohortError: A root is no folder, or dataset.json does not fit what is there.
        ConfigurationError: Channels or labels disagree with dataset.json or between roots.
    """
    matcher = patient_matcher(patient_pattern)
    names = None if channels is None else required_channels(channels)
    values: Mapping[str, int] | None = None if labels is None else required_labels(labels)
    cases: list[RawCase] = []
    for root in require_folders(roots):
        described = _description(root, names, values)
        names = described.channels if names is None else names
        values = described.labels if values is None else values
        _require_agreement(root, described, names, values)
        found = list(_files(root, described))
        _require_count(root, described, found)
        for name, images, label, role in found:
            chosen, problems = _chosen(images, names, described, label)
            cases.append(raw_case(name, matcher=matcher, role=role, images=chosen, label=label, problems=problems))
    return RawCohort(combined(cases), required_channels(names), required_labels(values))


def _description(root: Path, channels: tuple[str, ...] | None, labels: Mapping[str, int] | None) -> _Description:
    path = root / "dataset.json"
    if not path.exists():
        if channels is None or labels is None:
            message = f"{path}: expected nnU-Net's dataset.json, found none; write it, or configure"
            raise CohortError(f"{message} dataset.channels and dataset.labels")
        return _Description(channels, labels, _ENDINGS[0], None)
    try:
        record = read_json(path)
        numbered = record["channel_names"]
        names = tuple(str(name) for _, name in sorted(numbered.items(), key=lambda item: int(item[0])))
        count = record.get("numTraining")
        described = _Description(
            names, _foreground(record["labels"]), str(record["file_ending"]), None if count is None else int(count)
        )
    except (ManifestError, AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"{path}: expected channel_names, labels and file_ending as nnU-Net v2 writes them"
        raise CohortError(f"{message}, got {error!r}") from error
    if described.ending not in _ENDINGS or "dataset" in record:
        message = f"{path}: expected files in imagesTr/ that end in {' or '.join(_ENDINGS)}"
        raise CohortError(f"{message}, got '{described.ending}'{' and a list of files' if 'dataset' in record else ''}")
    return described


def _foreground(labels: Mapping[str, Any]) -> dict[str, int]:
    """Return the labels without the background, by value."""
    regions = [name for name, value in labels.items() if not isinstance(value, int)]
    if regions:
        raise ValueError(f"regions {regions}: only one value per label can be read; name regions in dataset.regions")
    if "ignore" in labels:
        raise ValueError("an 'ignore' label, which is not supported")
    if labels.get("background") != 0:
        raise ValueError("no label 'background' with the value 0")
    return required_labels({name: value for name, value in labels.items() if name != "background"})


def _require_agreement(root: Path, described: _Description, channels: Sequence[str], labels: Mapping[str, int]) -> None:
    unknown = [name for name in channels if name not in described.channels]
    if unknown:
        message = f"dataset.channels: expected names of {root / 'dataset.json'}: {list(described.channels)}"
        raise ConfigurationError(f"{message}, got {unknown} besides")
    if dict(labels) != dict(described.labels):
        message = f"dataset.labels: expected those of {root / 'dataset.json'}: {dict(described.labels)}"
        raise ConfigurationError(f"{message}, got {dict(labels)}")


_Found = tuple[str, dict[int, Path], Path | None, str]


def _files(root: Path, described: _Description) -> Iterator[_Found]:
    present = [pair for pair in _PAIRS if (root / pair[0]).is_dir()]
    if not present:
        yield from ((name, images, None, "test") for name, images in _numbered(root, described.ending).items())
    for image_folder, label_folder, role in present:
        images = _numbered(root / image_folder, described.ending)
        labels = volumes_in(root / label_folder, described.ending)
        for name in sorted({*images, *labels}):
            yield name, images.get(name, {}), labels.get(name), role


def _numbered(folder: Path, ending: str) -> dict[str, dict[int, Path]]:
    """Return the files `<case>_<channel><ending>`, by case and channel number; a name of another form is a case."""
    cases: defaultdict[str, dict[int, Path]] = defaultdict(dict)
    for name, path in volumes_in(folder, ending).items():
        match = _NUMBERED.fullmatch(name)
        if match is None:
            cases[name] = {}
        else:
            cases[match["case"]][int(match["channel"])] = path
    return cases


def _require_count(root: Path, described: _Description, found: Sequence[_Found]) -> None:
    count = sum(role == "train" for _, _, _, role in found)
    if described.num_training is not None and (root / "imagesTr").is_dir() and count != described.num_training:
        message = f"{root / 'dataset.json'}: expected {described.num_training} training cases (numTraining)"
        raise CohortError(f"{message}, found {count}; complete the folder or correct the number")


def _chosen(
    images: Mapping[int, Path], channels: Sequence[str], described: _Description, label: Path | None
) -> tuple[dict[str, Path], list[str]]:
    chosen, problems = {}, []
    for name in channels:
        number = described.channels.index(name)
        if number in images:
            chosen[name] = images[number]
        else:
            place = next(iter(images.values()), label)
            beside = "" if place is None else f" beside {place}"
            problems.append(f"expected an image _{number:04d}{described.ending} ({name}){beside}, found none")
    surplus = [path.name for number, path in images.items() if number >= len(described.channels)]
    if surplus:
        problems.append(f"expected {len(described.channels)} channels, found {', '.join(surplus)} besides")
    return chosen, problems

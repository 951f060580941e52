"""Score one pair of label maps, read from their files; runs in a process of its own and needs no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8

from medexp.errors import CaseError, ConfigurationError, UnknownOptionError
from medexp.geometry.affine import spacing_mm
from medexp.io.nifti import RawFile, Volume, decode, read_file
from medexp.io.pairing import Pair
from medexp.metrics.brats import RegionScores, lesion_wise_scores
from medexp.metrics.image_scores import ImageScores, score_image
from medexp.metrics.lesions import PROTOCOLS, LesionProtocol
from medexp.metrics.object_scores import ObjectScores, ObjectScoring
from medexp.metrics.segmentation import CaseScores, score_case
from medexp.metrics.toolkit import ToolkitScores, toolkit_scores
from medexp.preparation.verification import grid_difference
from medexp.stages.image_scoring import is_image, pixel_side_um, read_image_labels, score_image_objects
from medexp.stages.outcomes import Refused

_LISTED_VALUES = 10
_VARIANTS = ("official", "toolkit")
_WITH_SLIP, _WITHOUT_SLIP = "brats_2024_gli", "brats_2024_gli_as_intended"


@dataclass(frozen=True)
class Scoring:
    """What is computed of every case.

    `regions` join labels by name. `protocol` asks for the official lesion-wise scores, `toolkit_regions` for the
    toolkit's, of these label values; None: not computed. `objects` says what is an object of an image; volumes have
    none.
    """

    labels: Mapping[str, int]
    regions: Mapping[str, tuple[str, ...]]
    nsd_tolerances_mm: tuple[float, ...]
    protocol: LesionProtocol | None = None
    toolkit_regions: Mapping[str, tuple[int, ...]] | None = None
    objects: ObjectScoring | None = None

    @property
    def structures(self) -> dict[str, tuple[int, ...]]:
        """The values of each label and region."""
        joined = {name: tuple(sorted(self.labels[one] for one in members)) for name, members in self.regions.items()}
        return {name: (value,) for name, value in self.labels.items()} | joined

    @property
    def protocol_name(self) -> str | None:
        """What the lesion-wise scores follow."""
        if self.protocol is not None:
            return self.protocol.name
        return None if self.toolkit_regions is None else "BraTS toolkit"


def scoring_of(
    labels: Mapping[str, int],
    regions: Mapping[str, Sequence[str]],
    nsd_tolerances_mm: Sequence[float],
    *,
    lesions: str | None,
    variant: str,
    snfh_slip: bool,
) -> Scoring:
    """Return what is to be computed, checked: the same name and the same number must mean the same everywhere.

    Raises:
        UnknownOptionError: A region names no label, or there is no such protocol or variant.
        ConfigurationError: The protocol's label values are not the dataset's.
    """
    for region, members in regions.items():
        unknown = [name for name in members if name not in labels]
        if unknown:
            message = f"dataset.regions.{region}: expected names of labels {list(labels)}, got {unknown} besides"
            raise UnknownOptionError(message)
    values: dict[str, tuple[int, ...]] = {name: (value,) for name, value in labels.items()}
    values |= {name: tuple(sorted(labels[label] for label in members)) for name, members in regions.items()}
    if variant not in _VARIANTS:
        raise UnknownOptionError(f"evaluate.lesion_variant: expected one of {list(_VARIANTS)}, got {variant!r}")
    official = lesions is not None and variant == "official"
    return Scoring(
        labels=dict(labels),
        regions={name: tuple(members) for name, members in regions.items()},
        nsd_tolerances_mm=tuple(float(tolerance) for tolerance in nsd_tolerances_mm),
        protocol=_protocol(lesions, values, snfh_slip=snfh_slip) if official and lesions else None,
        toolkit_regions=values if lesions is not None and variant == "toolkit" else None,
    )


def _protocol(lesions: str, values: Mapping[str, tuple[int, ...]], *, snfh_slip: bool) -> LesionProtocol:
    if lesions not in PROTOCOLS:
        message = f"evaluate.lesions: expected one of {sorted(PROTOCOLS)} or null, got {lesions!r}"
        raise UnknownOptionError(message)
    if not snfh_slip and lesions != _WITH_SLIP:
        message = f"evaluate.snfh_slip: expected true with evaluate.lesions={lesions}, got false"
        raise ConfigurationError(f"{message}; only {_WITH_SLIP} has the slip")
    protocol = PROTOCOLS[lesions if snfh_slip else _WITHOUT_SLIP]
    present = {value for members in values.values() for value in members}
    for region, expected in protocol.regions.items():
        if not set(expected) <= present or values.get(region, expected) != tuple(sorted(expected)):
            found = {name: list(members) for name, members in values.items()}
            message = f"evaluate.lesions={lesions}: expected {region} to be the label values {list(expected)}"
            raise ConfigurationError(f"{message}, got {found}; correct dataset.labels or set evaluate.lesions=null")
    return protocol


@dataclass(frozen=True)
class ScoredPair:
    """A case's scores with the digests of the files that they were computed from.

    `spacing` is the size of a voxel in mm, or of a pixel in um where it is known.
    """

    pair: Pair
    prediction_sha256: str
    reference_sha256: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    scores: CaseScores | ImageScores
    official: Mapping[str, RegionScores] | None = None
    toolkit: Mapping[str, ToolkitScores] | None = None
    objects: Mapping[str, ObjectScores] | None = None


def score_pair(pair: Pair, scoring: Scoring) -> ScoredPair | Refused:
    """Read, check and score one case; what is wrong with it is returned, so that all bad cases can be listed."""
    if is_image(pair.prediction) != is_image(pair.reference):
        reason = f"{pair.prediction} and {pair.reference}: expected two images or two volumes, got one of each"
        return Refused(pair.case, (reason,))
    return _score_image_pair(pair, scoring) if is_image(pair.prediction) else _score_volume_pair(pair, scoring)


def _score_image_pair(pair: Pair, scoring: Scoring) -> ScoredPair | Refused:
    objects = scoring.objects
    try:
        sides = [read_image_labels(path, scoring.labels) for path in (pair.prediction, pair.reference)]
        side_um = pixel_side_um(objects.pixel_size_um if objects else None, sides, pair.images)
    except CaseError as error:
        return Refused(pair.case, (str(error),))
    prediction, reference = (side.array for side in sides)
    if prediction.shape != reference.shape:
        shapes = f"{prediction.shape} and {reference.shape}"
        reason = f"{pair.prediction} and {pair.reference}: expected images of one size, got {shapes}"
        return Refused(pair.case, (reason,), is_grid=True)
    reasons = _changed(pair, sides[0].file)
    for path, array in ((pair.prediction, prediction), (pair.reference, reference)):
        reasons += _strangers(path, array, scoring)
    if reasons:
        return Refused(pair.case, tuple(reasons))
    arrays = (prediction, reference)
    return ScoredPair(
        pair=pair,
        prediction_sha256=sides[0].file.sha256,
        reference_sha256=sides[1].file.sha256,
        shape=reference.shape,
        spacing=None if side_um is None else (side_um, side_um),
        scores=score_image(prediction, reference, scoring.labels, scoring.regions),
        objects=score_image_objects(arrays, scoring.structures, objects, side_um) if objects else None,
    )


def _score_volume_pair(pair: Pair, scoring: Scoring) -> ScoredPair | Refused:
    try:
        prediction_file, reference_file = read_file(pair.prediction), read_file(pair.reference)
        prediction, reference = decode(prediction_file), decode(reference_file)
    except CaseError as error:
        return Refused(pair.case, (str(error),))
    grids = grid_difference(prediction, reference)
    if grids is not None:
        reason = f"{pair.prediction} and {pair.reference}: expected one voxel grid, got {grids}"
        return Refused(pair.case, (reason,), is_grid=True)
    reasons = _changed(pair, prediction_file)
    for path, volume in ((pair.prediction, prediction), (pair.reference, reference)):
        reasons += _strangers(path, volume.array, scoring)
    if reasons:
        return Refused(pair.case, tuple(reasons))
    return _scored(pair, (prediction_file, reference_file), (prediction, reference), scoring)


def _scored(pair: Pair, files: tuple[RawFile, RawFile], volumes: tuple[Volume, Volume], scoring: Scoring) -> ScoredPair:
    predicted, referred = (_compact(volume.array) for volume in volumes)
    spacing = spacing_mm(volumes[1].header.affine)
    protocol, toolkit = scoring.protocol, scoring.toolkit_regions
    return ScoredPair(
        pair=pair,
        prediction_sha256=files[0].sha256,
        reference_sha256=files[1].sha256,
        shape=volumes[1].header.shape,
        spacing=spacing,
        scores=score_case(predicted, referred, spacing, scoring.labels, scoring.regions, scoring.nsd_tolerances_mm),
        official=None if protocol is None else lesion_wise_scores(predicted, referred, spacing, protocol),
        toolkit=None if toolkit is None else toolkit_scores(predicted, referred, spacing, toolkit),
    )


def _changed(pair: Pair, file: RawFile) -> list[str]:
    if pair.sha256 is None or pair.sha256 == file.sha256:
        return []
    message = f"{file.path}: expected sha256 {pair.sha256} as stage=predict recorded it, got {file.sha256}"
    return [f"{message}; to score another file, name its folder: evaluate.predictions=FOLDER"]


def _strangers(path: Path, array: Num[np.ndarray, "..."], scoring: Scoring) -> list[str]:
    values = sorted(scoring.labels.values())
    unknown = _unknown_values(array, values)
    return [f"{path}: expected the label values {[0, *values]}, got also {unknown}"] if unknown else []


def _unknown_values(array: Num[np.ndarray, "..."], known: list[int]) -> list[float | int]:
    """Return the values that are neither 0 nor a label, the first few."""
    if array.dtype.kind == "u" and array.dtype.itemsize == 1:
        found = np.flatnonzero(np.bincount(array.ravel())).astype(np.float64)
    else:
        found = np.unique(array).astype(np.float64)
    unknown = [float(value) for value in found if value not in {0, *known}][:_LISTED_VALUES]
    return [int(value) if value.is_integer() else value for value in unknown]


def _compact(array: Num[np.ndarray, "i j k"]) -> UInt8[np.ndarray, "i j k"] | Num[np.ndarray, "i j k"]:
    return array.astype(np.uint8, copy=False) if array.max(initial=0) <= 255 else array

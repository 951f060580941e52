"""Score one pair of label maps, read from their files; runs in a process of its own and needs no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Num, UInt8

from medexp.errors import CaseError, ConfigurationError, UnknownOptionError
from medexp.geometry.affine import spacing_mm
from medexp.io.nifti import RawFile, Volume, decode, read_file
from medexp.io.pairing import Pair
from medexp.metrics.brats import RegionScores, lesion_wise_scores
from medexp.metrics.lesions import PROTOCOLS, LesionProtocol
from medexp.metrics.segmentation import CaseScores, score_case
from medexp.metrics.toolkit import ToolkitScores, toolkit_scores
from medexp.preparation.verification import grid_difference

_LISTED_VALUES = 10
_VARIANTS = ("official", "toolkit")
_WITH_SLIP, _WITHOUT_SLIP = "brats_2024_gli", "brats_2024_gli_as_intended"


@dataclass(frozen=True)
class Scoring:
    """What is computed of every case.

    `regions` join labels by name. `protocol` asks for the official lesion-wise scores, `toolkit_regions` for the
    toolkit's, of these label values; None: not computed.
    """

    labels: Mapping[str, int]
    regions: Mapping[str, tuple[str, ...]]
    nsd_tolerances_mm: tuple[float, ...]
    protocol: LesionProtocol | None = None
    toolkit_regions: Mapping[str, tuple[int, ...]] | None = None

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
    """A case's scores with the digests of the files that they were computed from."""

    pair: Pair
    prediction_sha256: str
    reference_sha256: str
    shape: tuple[int, ...]
    scores: CaseScores
    official: Mapping[str, RegionScores] | None
    toolkit: Mapping[str, ToolkitScores] | None


@dataclass(frozen=True)
class BadPair:
    """Why a pair cannot be scored. `is_grid` says that the grids, and nothing else, are to blame."""

    pair: Pair
    reasons: tuple[str, ...]
    is_grid: bool


def score_pair(pair: Pair, scoring: Scoring) -> ScoredPair | BadPair:
    """Read, check and score one case; what is wrong with it is returned, so that all bad cases can be listed."""
    try:
        prediction_file, reference_file = read_file(pair.prediction), read_file(pair.reference)
        prediction, reference = decode(prediction_file), decode(reference_file)
    except CaseError as error:
        return BadPair(pair, (str(error),), is_grid=False)
    grids = grid_difference(prediction, reference)
    if grids is not None:
        reason = f"{pair.prediction} and {pair.reference}: expected one voxel grid, got {grids}"
        return BadPair(pair, (reason,), is_grid=True)
    reasons = _changed(pair, prediction_file)
    values = sorted(scoring.labels.values())
    for path, volume in ((pair.prediction, prediction), (pair.reference, reference)):
        unknown = _unknown_values(volume.array, values)
        if unknown:
            reasons.append(f"{path}: expected the label values {[0, *values]}, got also {unknown}")
    if reasons:
        return BadPair(pair, tuple(reasons), is_grid=False)
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
        scores=score_case(predicted, referred, spacing, scoring.labels, scoring.regions, scoring.nsd_tolerances_mm),
        official=None if protocol is None else lesion_wise_scores(predicted, referred, spacing, protocol),
        toolkit=None if toolkit is None else toolkit_scores(predicted, referred, spacing, toolkit),
    )


def _changed(pair: Pair, file: RawFile) -> list[str]:
    if pair.sha256 is None or pair.sha256 == file.sha256:
        return []
    message = f"{file.path}: expected sha256 {pair.sha256} as stage=predict recorded it, got {file.sha256}"
    return [f"{message}; to score another file, name its folder: evaluate.predictions=FOLDER"]


def _unknown_values(array: Num[np.ndarray, "i j k"], known: list[int]) -> list[float | int]:
    """Return the values that are neither 0 nor a label, the first few."""
    if array.dtype.kind == "u" and array.dtype.itemsize == 1:
        found = np.flatnonzero(np.bincount(array.ravel())).astype(np.float64)
    else:
        found = np.unique(array).astype(np.float64)
    unknown = [float(value) for value in found if value not in {0, *known}][:_LISTED_VALUES]
    return [int(value) if value.is_integer() else value for value in unknown]


def _compact(array: Num[np.ndarray, "i j k"]) -> UInt8[np.ndarray, "i j k"] | Num[np.ndarray, "i j k"]:
    return array.astype(np.uint8, copy=False) if array.max(initial=0) <= 255 else array

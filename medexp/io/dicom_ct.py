"""A CT series, one file per slice, as a volume of Hounsfield units."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from jaxtyping import Float64, Int16, Integer

from medexp.errors import CaseError
from medexp.io.dicom import MAX_BYTES, PIXEL_DATA, DicomError, number, parse, shown, text
from medexp.io.dicom_geometry import Plane, plane_of, slice_distance_mm
from medexp.io.dicom_pixels import PixelLayout, layout_of, pixels_of
from medexp.io.nifti import RawFile

if TYPE_CHECKING:
    from pydicom import Dataset

Given = TypeVar("Given")
Result = TypeVar("Result")

_INT16 = np.iinfo(np.int16)
_UNITS = ("HU", "")


@dataclass(frozen=True, eq=False)
class CtVolume:
    """A series' voxels: i column, j row, k slice by rising z; `affine` maps their centers to RAS+ mm."""

    hu: Int16[np.ndarray, "i j k"]
    affine: Float64[np.ndarray, "4 4"]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Slice:
    file: RawFile
    plane: Plane
    layout: PixelLayout
    slope: float
    intercept: float
    oddity: str


def read_ct(files: Sequence[RawFile]) -> CtVolume:
    """Return the volume of the files of one series, in any order.

    All headers are judged, and their sum held against the budget, before any pixel is unpacked.

    Raises:
        CaseError: Slices cannot be used, differ or are missing; all reasons are listed.
    """
    slices = sorted(_heads(files), key=lambda one: float(one.plane.position[2]))
    first = slices[0]
    _require_one_grid(slices)
    num_bytes = first.layout.num_pixels * len(slices) * _INT16.dtype.itemsize
    if num_bytes > MAX_BYTES:
        raise CaseError(f"{first.file.path}: expected a series of at most {MAX_BYTES:,} bytes, got {num_bytes:,}")
    positions = np.array([one.plane.position[2] for one in slices])
    distance = _named(first.file, slice_distance_mm, positions)
    volume = np.empty((len(slices), first.layout.rows, first.layout.columns), np.int16)
    oddities = {one.oddity for one in slices if one.oddity}
    for one, target in zip(slices, volume, strict=True):
        if _fill(target, _named(one.file, _stored, one), one):
            oddities.add("Hounsfield units beyond 16 bits are clipped")
    warnings = tuple(f"CT: {oddity}" for oddity in sorted(oddities))
    return CtVolume(volume.transpose(2, 1, 0), first.plane.affine(float(positions[0]), distance), warnings)


def _named(file: RawFile, step: Callable[[Given], Result], given: Given) -> Result:
    try:
        return step(given)
    except DicomError as error:
        raise CaseError(f"{file.path}: {error}") from error


def _heads(files: Sequence[RawFile]) -> list[_Slice]:
    heads = []
    reasons: list[tuple[Path, str]] = []
    for file in files:
        try:
            heads.append(_head(file))
        except DicomError as error:
            reasons.append((file.path, str(error)))
    _refuse(reasons)
    if not heads:
        raise CaseError("expected a CT series, got no file of one")
    return heads


def _refuse(reasons: Sequence[tuple[Path, str]]) -> None:
    """Raise what is wrong with slices, if anything is; what is wrong with many stands there once."""
    paths: defaultdict[str, list[Path]] = defaultdict(list)
    for path, reason in reasons:
        paths[reason].append(path)
    if paths:
        named = {reason: f"{found[0]}{_and_others(len(found) - 1)}" for reason, found in paths.items()}
        raise CaseError("\n".join(f"{place}: {reason}" for reason, place in named.items()))


def _and_others(count: int) -> str:
    return "" if count == 0 else f" and {count} other slice{'s' if count > 1 else ''}"


def _head(file: RawFile) -> _Slice:
    dataset = parse(file, stop=PIXEL_DATA)
    layout = layout_of(dataset)
    if layout.frames != 1:
        raise DicomError(f"expected one slice per file, got {layout.frames} frames; export the series as CT images")
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    if slope <= 0.0:
        raise DicomError(f"expected a positive RescaleSlope, got {slope:g}")
    if (unit := text(dataset, "RescaleType")) not in _UNITS:
        raise DicomError(f"expected Hounsfield units (RescaleType HU), got {shown(unit)}")
    return _Slice(file, plane_of(dataset), layout, slope, intercept, _oddity(dataset))


def _oddity(dataset: "Dataset") -> str:
    position = text(dataset, "PatientPosition")
    return "" if position in {"HFS", ""} else f"expected the patient head first, supine (HFS), got {shown(position)}"


def _require_one_grid(slices: Sequence[_Slice]) -> None:
    first = slices[0]
    reasons: list[tuple[Path, str]] = []
    for one in slices[1:]:
        if replace(one.layout, bits_stored=first.layout.bits_stored, signed=first.layout.signed) != first.layout:
            message = f"expected {first.layout.shape} pixels as in its series' first slice, got {one.layout.shape}"
            reasons.append((one.file.path, message))
        elif not one.plane.same_grid(first.plane):
            message = "expected the place and size of the pixels of its series' first slice, got others"
            reasons.append((one.file.path, f"{message}; reconstruct the series without tilt"))
    _refuse(reasons)


def _stored(one: _Slice) -> Integer[np.ndarray, "row column"]:
    return pixels_of(parse(one.file), one.layout)[0]


def _fill(target: Int16[np.ndarray, "row column"], stored: Integer[np.ndarray, "row column"], one: _Slice) -> bool:
    """Write Hounsfield units, rounded to whole ones; return whether some did not fit."""
    units = np.rint(stored * one.slope + one.intercept)
    np.clip(units, _INT16.min, _INT16.max, out=target, casting="unsafe")
    return bool(units.min() < _INT16.min or units.max() > _INT16.max)

"""Whether a case can be used: all of its files are judged and every reason is collected, none stops the search."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Num, UInt8

from medexp.errors import CaseError
from medexp.geometry.affine import corner_distance_mm, orientation, spacing_mm
from medexp.geometry.grids import Grid
from medexp.io.nifti import RawFile, Volume, decode, read_file

# Two grids are one if their voxel sizes differ by at most this share and none of their corners by more than
# this share of the smallest voxel edge. Rounding to 32-bit floats, as file headers do, stays far below both.
SPACING_TOLERANCE = 5e-4
CORNER_TOLERANCE = 1e-2

Frame: TypeAlias = tuple[tuple[int, ...], Float64[np.ndarray, "4 4"]]

_LISTED_VALUES = 10


@dataclass(frozen=True, eq=False)
class RawContent:
    """A case's bytes, as far as they could be read, and the reasons where not."""

    images: Mapping[str, RawFile]
    label: RawFile | None
    reasons: tuple[str, ...]

    def source(self) -> dict[str, str]:
        """Return the SHA-256 of every file, by channel and "label"."""
        files = {**self.images, **({} if self.label is None else {"label": self.label})}
        return {name: file.sha256 for name, file in files.items()}


@dataclass(frozen=True, eq=False)
class VerifiedCase:
    """A case's voxels in the file's axis order: one finite array per channel, one grid, known labels."""

    images: Mapping[str, Num[np.ndarray, "i j k"]]
    label: UInt8[np.ndarray, "i j k"] | None
    grid: Grid
    warnings: tuple[str, ...]


def read_content(images: Mapping[str, Path], label: Path | None) -> RawContent:
    """Read a case's files; one that cannot be read is a reason."""
    contents: dict[str, RawFile] = {}
    reasons = []
    for name, path in (*images.items(), *(() if label is None else (("label", label),))):
        try:
            contents[name] = read_file(path)
        except CaseError as error:
            reasons.append(str(error))
    found = contents.pop("label", None)
    return RawContent(contents, found, tuple(reasons))


def verify(content: RawContent, labels: Mapping[str, int]) -> tuple[VerifiedCase | None, tuple[str, ...]]:
    """Return the usable case, or None, and the reasons why it cannot be used; one of the two is empty."""
    reasons = list(content.reasons)
    volumes: dict[str, tuple[RawFile, Volume]] = {}
    for name, file in (*content.images.items(), *(() if content.label is None else (("label", content.label),))):
        try:
            volumes[name] = (file, decode(file))
        except CaseError as error:
            reasons.append(str(error))
    reasons += _grid_reasons(volumes)
    labelled = volumes.pop("label", None)
    for file, volume in volumes.values():
        reasons += _voxel_reasons(file.path, volume.array)
    label, label_reasons = _integers(*labelled, labels) if labelled is not None else (None, [])
    reasons += label_reasons
    if reasons or not volumes:
        return None, tuple(reasons)
    images = {name: volume.array for name, (_, volume) in volumes.items()}
    first = next(iter(volumes.values()))[1]
    headers = [volume.header for _, volume in volumes.values()]
    warnings = [*dict.fromkeys(warning for header in headers for warning in header.warnings)]
    warnings += _image_warnings(images)
    if label is not None and not label.any():
        warnings.append("the label is empty")
    return VerifiedCase(images, label, first.grid, tuple(warnings)), ()


def _grid_reasons(volumes: Mapping[str, tuple[RawFile, Volume]]) -> list[str]:
    if len(volumes) < 2:
        return []
    (first_file, first), *others = volumes.values()
    reasons = []
    for file, volume in others:
        difference = grid_difference(volume, first)
        if difference:
            reasons.append(f"{file.path} and {first_file.path}: expected one voxel grid, got {difference}")
    return reasons


def grid_difference(volume: Volume, other: Volume) -> str | None:
    """Return in words how two grids differ beyond the tolerances, or None."""
    mine, its = volume.header, other.header
    return frame_difference((mine.shape, mine.affine), (its.shape, its.affine))


def frame_difference(mine: Frame, its: Frame) -> str | None:
    """Return in words how two grids, each a shape and an affine, differ beyond the tolerances, or None."""
    (shape, affine), (its_shape, its_affine) = mine, its
    if shape != its_shape:
        return f"shapes {shape} and {its_shape}"
    if orientation(affine) != orientation(its_affine):
        return f"orientations {orientation(affine)} and {orientation(its_affine)}"
    sizes, its_sizes = np.array(spacing_mm(affine)), np.array(spacing_mm(its_affine))
    if np.abs(sizes / its_sizes - 1.0).max() > SPACING_TOLERANCE:
        return f"voxel sizes {_rounded(sizes)} and {_rounded(its_sizes)} mm"
    apart = corner_distance_mm(affine, its_affine, shape)
    if apart > CORNER_TOLERANCE * its_sizes.min():
        return f"corners up to {apart:.4g} mm apart"
    return None


def _rounded(values: Num[np.ndarray, "3"]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)


def _voxel_reasons(path: Path, array: Num[np.ndarray, "i j k"]) -> list[str]:
    if array.dtype.kind != "f":
        return []
    finite = np.isfinite(array)
    if finite.all():
        largest = float(np.abs(array).max())
        limit = float(np.finfo(np.float32).max)
        return [f"{path}: expected values within 32-bit floats, got {largest:.4g}"] if largest > limit else []
    return [f"{path}: expected finite voxels, got {int((~finite).sum()):,} that are NaN or infinite"]


def _integers(
    file: RawFile, volume: Volume, labels: Mapping[str, int]
) -> tuple[UInt8[np.ndarray, "i j k"] | None, list[str]]:
    """Return a label map of known values, or the reasons why there is none."""
    array = volume.array
    reasons = _voxel_reasons(file.path, array)
    if reasons:
        return None, reasons
    if array.dtype.kind == "f" and not (array == np.rint(array)).all():
        return None, [f"{file.path}: expected integers as labels, got fractions such as {_fraction(array):.6g}"]
    if array.min() < 0 or array.max() > max(labels.values()):
        values = [int(value) for value in np.unique(array)]
        unknown = [value for value in values if value and value not in set(labels.values())][:_LISTED_VALUES]
        known = {0, *labels.values()}
        return None, [f"{file.path}: expected label values of {sorted(known)}, got {unknown} besides"]
    return array.astype(np.uint8, copy=False), []


def _fraction(array: Num[np.ndarray, "i j k"]) -> float:
    return float(array[array != np.rint(array)][0])


def _image_warnings(images: Mapping[str, Num[np.ndarray, "i j k"]]) -> list[str]:
    found = []
    for name, array in images.items():
        low, high = array.min(), array.max()
        if low == high:
            found.append(f"{name} holds only zeros" if low == 0 else f"{name} holds only the value {float(low):.6g}")
    return found

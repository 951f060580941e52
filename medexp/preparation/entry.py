"""What a store entry holds: a verified case turned to RAS+, cropped, normalized and resampled."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float32, Int16, Integer, Num, Shaped, UInt8

from medexp.geometry.grids import Box, to_canonical
from medexp.geometry.resampling import resample_label, resample_linear
from medexp.preparation.normalization import normalize, stored_dtype
from medexp.preparation.picture import case_picture
from medexp.preparation.verification import RawContent, VerifiedCase, verify

_MAX_FOREGROUND = 10_000  # coordinates per label
_MAX_SAMPLES = 10_000  # foreground intensities per case
_GOLDEN_RATIO = 0.6180339887498949


@dataclass(frozen=True)
class Transform:
    """The deterministic way from a raw case to its entry; with the source's bytes it is the entry's key.

    `schemes` holds one normalization per channel. `labels` are names and values 1..n.
    """

    kind: ClassVar[str] = "volumes"

    channels: tuple[str, ...]
    labels: Mapping[str, int]
    schemes: tuple[str, ...]
    spacing_mm: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        return {
            "channels": list(self.channels),
            "labels": dict(self.labels),
            "schemes": list(self.schemes),
            "spacing_mm": [round(size, 6) for size in self.spacing_mm],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Transform":
        """Read what `to_json` wrote."""
        return cls(
            channels=tuple(record["channels"]),
            labels=dict(record["labels"]),
            schemes=tuple(record["schemes"]),
            spacing_mm=tuple(float(size) for size in record["spacing_mm"]),
        )

    def entry(self, content: RawContent) -> "tuple[Entry | None, tuple[str, ...]]":
        """Return the entry of a case's files, or None, and the reasons why there is none."""
        verified, reasons = self.verify(content)
        if verified is None:
            return None, reasons
        try:
            return build_entry(verified, self), ()
        except EmptyCaseError as error:
            return None, (str(error),)

    def verify(self, content: RawContent) -> tuple[VerifiedCase | None, tuple[str, ...]]:
        """Return the usable case, or None, and the reasons why it cannot be used."""
        return verify(content, self.labels)

    def picture(self, entry: "Entry") -> bytes:
        """Return a PNG for the quality report."""
        return case_picture(entry.image, entry.label)


@dataclass(frozen=True, eq=False)
class Entry:
    """The arrays of an entry by name, what is known about them, and files that belong to them.

    Every kind of case has an `image`; the other names are its own. `foreground` has rows (label, i, j, k), in 2D
    (label, i, j). `intensities` are native values at labelled voxels, a sample. `facts` are plain values. `files`
    are written by the functions given for their names.
    """

    arrays: Mapping[str, Shaped[np.ndarray, "..."]]
    facts: Mapping[str, Any]
    files: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)

    @classmethod
    def labelled(
        cls,
        *,
        image: Num[np.ndarray, "channel *spatial"],
        label: UInt8[np.ndarray, "*spatial"] | None,
        foreground: Integer[np.ndarray, "voxel column"] | None,
        intensities: Float32[np.ndarray, "channel sample"],
        facts: Mapping[str, Any],
    ) -> "Entry":
        """Return the entry of an image with a label map, or of one without."""
        arrays = {"image": image, "label": label, "foreground": foreground, "intensities": intensities}
        return cls({name: array for name, array in arrays.items() if array is not None}, facts)

    @property
    def image(self) -> Num[np.ndarray, "channel *spatial"]:
        """The channels."""
        return self.arrays["image"]

    @property
    def label(self) -> UInt8[np.ndarray, "*spatial"] | None:
        """The label map, if there is one."""
        return self.arrays.get("label")


class EmptyCaseError(ValueError):
    """No channel of a case holds a voxel that is not 0."""


def build_entry(case: VerifiedCase, transform: Transform) -> Entry:
    """Return a case's entry.

    The crop is the box of the voxels that are not 0 in any channel, wide enough for every labelled voxel.

    Raises:
        EmptyCaseError: There is no such voxel.
    """
    box, warnings = _crop(case)
    grid = case.grid.cropped(box, transform.spacing_mm)
    window = tuple(slice(start, stop) for start, stop in box)
    crops = [to_canonical(case.images[channel], case.grid)[window] for channel in transform.channels]
    native_label = None if case.label is None else np.ascontiguousarray(to_canonical(case.label, case.grid)[window])
    image = _image(crops, transform.schemes, grid.stored_shape)
    label = None if native_label is None else resample_label(native_label, grid.stored_shape)
    hashes = channel_hashes(image)
    facts = {
        "grid": grid.to_json(),
        "spacing_mm": list(grid.stored_spacing_mm),
        "warnings": [*case.warnings, *warnings],
        "channel_sha256": hashes,
        "voxel_sha256": combined_hash(image, hashes),
        "label_sha256": None if label is None else hashlib.sha256(label.data).hexdigest(),
        "label_voxels": None if native_label is None else _label_voxels(native_label, transform.labels),
        "intensity": [_summary(crop) for crop in crops],
    }
    foreground = None if label is None else foreground_voxels(label)
    intensities = _samples(crops, native_label)
    return Entry.labelled(image=image, label=label, foreground=foreground, intensities=intensities, facts=facts)


def _crop(case: VerifiedCase) -> tuple[Box, list[str]]:
    occupied: Bool[np.ndarray, "..."] | None = None
    for array in case.images.values():
        occupied = np.not_equal(array, 0) if occupied is None else np.logical_or(occupied, array, out=occupied)
    image_box = None if occupied is None else occupied_box(to_canonical(occupied, case.grid))
    if image_box is None:
        raise EmptyCaseError("expected voxels that are not 0, got only zeros in every channel")
    label_box = None if case.label is None else occupied_box(to_canonical(case.label != 0, case.grid))
    if label_box is None:
        return image_box, []
    hull = tuple((min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(image_box, label_box, strict=True))
    outside = hull != image_box
    return (hull[0], hull[1], hull[2]), ["labelled voxels lie outside the box of the image"] if outside else []


def occupied_box(mask: Bool[np.ndarray, "i j k"]) -> Box | None:
    """Return start and stop of the true voxels along each axis; None if there are none."""
    box = [(0, 0)] * 3
    view = mask
    for axis in sorted(range(3), key=lambda axis: -abs(mask.strides[axis])):  # slowest first: each step halves the rest
        others = tuple(other for other in range(3) if other != axis)
        along = np.flatnonzero(view.any(axis=others))
        if along.size == 0:
            return None
        box[axis] = (int(along[0]), int(along[-1]) + 1)
        view = view[(slice(None),) * axis + (slice(*box[axis]),)]
    return (box[0], box[1], box[2])


def _image(
    crops: Sequence[Num[np.ndarray, "i j k"]], schemes: Sequence[str], shape: tuple[int, ...]
) -> Num[np.ndarray, "channel ..."]:
    dtype = stored_dtype(schemes, [crop.dtype for crop in crops])
    image = np.empty((len(crops), *shape), dtype)
    for index, (crop, scheme) in enumerate(zip(crops, schemes, strict=True)):
        values = resample_linear(normalize(crop, scheme), shape)
        image[index] = np.rint(values) if dtype.kind == "i" else values
    return image


def channel_hashes(image: Num[np.ndarray, "channel *spatial"]) -> list[str | None]:
    """Return a hash per channel; None for a constant one, which tells nothing about whose it is."""
    bits = image.view(f"u{image.dtype.itemsize}")  # integers compare faster than 16-bit floats
    return [None if channel.min() == channel.max() else hashlib.sha256(channel.data).hexdigest() for channel in bits]


def combined_hash(image: Num[np.ndarray, "channel *spatial"], hashes: Sequence[str | None]) -> str:
    """Return a hash of a case's channels together."""
    described = json.dumps([list(image.shape), str(image.dtype), list(hashes)])
    return hashlib.sha256(described.encode()).hexdigest()


def _label_voxels(label: UInt8[np.ndarray, "i j k"], labels: Mapping[str, int]) -> dict[str, int]:
    counts = np.bincount(label[label != 0], minlength=max(labels.values()) + 1)
    return {name: int(counts[value]) for name, value in labels.items()}


def _summary(crop: Num[np.ndarray, "i j k"]) -> dict[str, float]:
    """Return the range of a channel within the crop, and the share of its voxels that are not 0."""
    share = np.count_nonzero(crop) / crop.size
    return {"minimum": float(crop.min()), "maximum": float(crop.max()), "nonzero_share": float(share)}


def _samples(
    crops: Sequence[Num[np.ndarray, "i j k"]], label: UInt8[np.ndarray, "i j k"] | None
) -> Float32[np.ndarray, "channel sample"]:
    if label is None:
        return np.zeros((len(crops), 0), np.float32)
    chosen = evenly(np.flatnonzero(label), _MAX_SAMPLES)
    where = np.unravel_index(chosen, label.shape)
    return np.stack([crop[where].astype(np.float32) for crop in crops])


def foreground_voxels(label: UInt8[np.ndarray, "i j k"]) -> Int16[np.ndarray, "voxel 4"]:
    """Return rows (label, i, j, k) of labelled voxels, sorted; at most 10,000 of each label, evenly spread."""
    positions = np.flatnonzero(label)
    values = label.reshape(-1)[positions]
    rows = []
    for value in np.unique(values):
        chosen = evenly(positions[values == value], _MAX_FOREGROUND)
        coordinates = np.stack(np.unravel_index(chosen, label.shape), axis=1)
        rows.append(np.concatenate([np.full((len(chosen), 1), value), coordinates], axis=1))
    return np.concatenate(rows).astype(np.int16) if rows else np.zeros((0, 4), np.int16)


def evenly(values: Num[np.ndarray, "n"], count: int) -> Num[np.ndarray, "m"]:
    """Return at most `count` of the values, one from each of `count` equal stretches, in their order.

    Where in its stretch follows the golden ratio: a fixed place would favor some voxels of a regular volume.
    """
    if len(values) <= count:
        return values
    numbers = np.arange(count)
    places = (numbers + numbers * _GOLDEN_RATIO % 1.0) * (len(values) / count)
    return values[np.unique(places.astype(np.intp))]

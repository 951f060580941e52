"""What a store entry of a 2D image holds: one gray channel, normalized, and a mask; each case is stored whole."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Float32, Int32, Num, UInt8

from medexp.errors import CaseError, ConfigurationError
from medexp.geometry.grids import ImageGrid
from medexp.io.tiff import Gray, MaskImage, TiffImage, decode_tiff, gray_of, mask_of
from medexp.plots.overlays import blend, encode_png, shrink, side_by_side
from medexp.preparation.entry import Entry, channel_hashes, combined_hash, evenly
from medexp.preparation.verification import RawContent

ImageNormalization = Literal["type_range", "percentiles", "zscore"]

FULL_COVERAGE, LEAST_COVERAGE = 0.8, 0.01  # beyond these a mask is odd
_MAX_FOREGROUND = 10_000
_MAX_SAMPLES = 10_000
_PERCENTILES = (0.1, 99.9)
_LEAST_RANGE = 1e-6
_PICTURE_SIDE = 320  # pixels
_ALPHA = 0.45


@dataclass(frozen=True)
class ImageTransform:
    """The deterministic way from an image and its mask to their entry.

    Attributes:
        channels: The image's one name.
        labels: The object's one name, with the value 1.
        gray: How colors become gray.
        normalization: `type_range` divides by the largest value of the file's type, `percentiles` puts 0 and 1 where
            0.1 and 99.9 % of the pixels lie below, `zscore` subtracts the mean and divides by the deviation.
        pixel_size_um: Of all images, whatever the files say; None: the files'.
        min_object_px: Smaller objects count neither in a mask's number of objects nor in their diameter.
    """

    kind: ClassVar[str] = "images"

    channels: tuple[str, ...]
    labels: Mapping[str, int]
    gray: Gray
    normalization: ImageNormalization
    pixel_size_um: tuple[float, float] | None
    min_object_px: int

    def __post_init__(self) -> None:
        """Refuse what no image has.

        Raises:
            ConfigurationError: Names the key.
        """
        if len(self.channels) != 1:
            raise ConfigurationError(f"dataset.channels: expected one name for images, got {list(self.channels)}")
        if list(self.labels.values()) != [1]:
            raise ConfigurationError(f"dataset.labels: expected one label with the value 1, got {dict(self.labels)}")
        for key, value, choices in (
            ("gray", self.gray, get_args(Gray)),
            ("normalization", self.normalization, get_args(ImageNormalization)),
        ):
            if value not in choices:
                raise ConfigurationError(f"dataset.{key}: expected one of {', '.join(choices)}, got '{value}'")

    @property
    def schemes(self) -> tuple[str, ...]:
        """The normalization of each channel."""
        return (self.normalization,)

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        return {
            "channels": list(self.channels),
            "labels": dict(self.labels),
            "gray": self.gray,
            "normalization": self.normalization,
            "pixel_size_um": None if self.pixel_size_um is None else list(self.pixel_size_um),
            "min_object_px": self.min_object_px,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "ImageTransform":
        """Read what `to_json` wrote."""
        size = record["pixel_size_um"]
        return cls(
            channels=tuple(record["channels"]),
            labels=dict(record["labels"]),
            gray=record["gray"],
            normalization=record["normalization"],
            pixel_size_um=None if size is None else (float(size[0]), float(size[1])),
            min_object_px=int(record["min_object_px"]),
        )

    def verify(self, content: RawContent) -> "tuple[_VerifiedImage | None, tuple[str, ...]]":
        """Return the usable image and mask, or None, and the reasons why they cannot be used."""
        reasons = list(content.reasons)
        image: TiffImage | None = None
        mask: MaskImage | None = None
        path = Path()
        for file in content.images.values():
            try:
                path, image = file.path, decode_tiff(file)
                reasons += _image_reasons(path, image, self.normalization)
            except CaseError as error:
                reasons.append(str(error))
        if content.label is not None:
            try:
                mask = mask_of(decode_tiff(content.label), content.label.path)
            except CaseError as error:
                reasons.append(str(error))
        if image is not None and mask is not None and image.header.shape != mask.header.shape:
            sizes = f"{_sides(image.header.shape)} and {_sides(mask.header.shape)} pixels"
            place = content.label.path if content.label is not None else ""
            reasons.append(f"{path} and {place}: expected an image and a mask of one size, got {sizes}")
        return (None, tuple(reasons)) if reasons or image is None else (_VerifiedImage(image, mask), ())

    def entry(self, content: RawContent) -> tuple[Entry | None, tuple[str, ...]]:
        """Return the entry of a case's files, or None, and the reasons why there is none."""
        verified, reasons = self.verify(content)
        return (None, reasons) if verified is None else (self._built(verified), ())

    def _built(self, case: "_VerifiedImage") -> Entry:
        gray = gray_of(case.image.array, self.gray)
        image = normalized(gray, self.normalization).astype(np.float16)[None]
        mask = None if case.mask is None else case.mask.array
        hashes = channel_hashes(image)
        grid = ImageGrid(case.image.header.shape, self.pixel_size_um or case.image.header.pixel_size_um)
        facts = {
            "grid": grid.to_json(),
            "stored_type": str(gray.dtype),
            "channel_sha256": hashes,
            "voxel_sha256": combined_hash(image, hashes),
            "label_sha256": None if mask is None else hashlib.sha256(mask.tobytes()).hexdigest(),
            "label_voxels": None if mask is None else {name: int(mask.sum()) for name in self.labels},
            "intensity": [{"minimum": float(gray.min()), "maximum": float(gray.max())}],
            **self._object_facts(mask),
            "warnings": [*_warnings(case, gray, mask)],
        }
        foreground = None if mask is None else _foreground(mask)
        intensities = _samples(gray, mask)
        return Entry.labelled(image=image, label=mask, foreground=foreground, intensities=intensities, facts=facts)

    def _object_facts(self, mask: UInt8[np.ndarray, "height width"] | None) -> dict[str, float | int | None]:
        """Return what a manifest says about a mask; the diameter is that of circles of the objects' areas."""
        if mask is None:
            return {"coverage": None, "object_count": None, "mean_diameter_px": None}
        from scipy import ndimage

        labelled, _ = ndimage.label(mask, np.ones((3, 3), bool))
        areas = np.bincount(labelled.reshape(-1))[1:]
        areas = areas[areas >= self.min_object_px]
        diameters = np.sqrt(4.0 * areas / np.pi)
        return {
            "coverage": float(mask.mean(dtype=np.float64)),
            "object_count": len(areas),
            "mean_diameter_px": float(diameters.mean()) if len(areas) else None,
        }

    def picture(self, entry: Entry) -> bytes:
        """Return a PNG: the image, and the image with the mask painted on it."""
        gray = shrink(np.asarray(entry.image[0], np.float32), _PICTURE_SIDE)
        low, high = np.percentile(gray, _PERCENTILES)
        levels = np.rint(np.clip((gray - low) / max(high - low, _LEAST_RANGE), 0.0, 1.0) * 255.0).astype(np.uint8)
        pictures = [blend(levels, np.zeros_like(levels), alpha=_ALPHA)]
        if entry.label is not None:
            pictures.append(blend(levels, shrink(entry.label, _PICTURE_SIDE), alpha=_ALPHA))
        return encode_png(side_by_side(pictures))


@dataclass(frozen=True, eq=False)
class _VerifiedImage:
    image: TiffImage
    mask: MaskImage | None


def normalized(
    gray: Num[np.ndarray, "height width"], scheme: ImageNormalization
) -> Float32[np.ndarray, "height width"]:
    """Return network input; a constant image becomes 0, except under `type_range`."""
    values = gray.astype(np.float32)
    if scheme == "type_range":
        return values / np.float32(1.0 if gray.dtype.kind == "b" else np.iinfo(gray.dtype).max)
    if scheme == "zscore":
        return (values - values.mean(dtype=np.float64)).astype(np.float32) / max(float(values.std()), _LEAST_RANGE)
    low, high = np.percentile(gray, _PERCENTILES)
    return np.clip((values - np.float32(low)) / np.float32(max(high - low, _LEAST_RANGE)), 0.0, 1.0)


def _image_reasons(path: Path, image: TiffImage, normalization: ImageNormalization) -> list[str]:
    array = image.array
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            return [f"{path}: expected finite pixels, got {int((~np.isfinite(array)).sum()):,} that are not"]
        if normalization == "type_range":
            hint = "dataset.normalization=percentiles takes any range"
            return [f"{path}: expected integers, whose type says their range, got {array.dtype}; {hint}"]
    return []


def _warnings(
    case: _VerifiedImage, gray: Num[np.ndarray, "height width"], mask: UInt8[np.ndarray, "height width"] | None
) -> list[str]:
    found = [f"image: {warning}" for warning in case.image.header.warnings]
    if case.image.header.white_is_zero:
        found.append("image: stored as WhiteIsZero: it is turned round, bright is large")
    if gray.min() == gray.max():
        found.append(f"the image holds only the value {gray.min():g}")
    if mask is None or case.mask is None:
        return found
    found += [f"mask: {warning}" for warning in case.mask.warnings]
    coverage = float(mask.mean(dtype=np.float64))
    if coverage > FULL_COVERAGE:
        turned = " (stored as WhiteIsZero: is that tag right?)" if case.mask.header.white_is_zero else ""
        found.append(f"the mask covers {100 * coverage:.1f} % of the image: is it inverted?{turned}")
    elif 0.0 < coverage < LEAST_COVERAGE:
        found.append(f"the mask covers only {100 * coverage:.2f} % of the image")
    return found


def _foreground(mask: UInt8[np.ndarray, "height width"]) -> Int32[np.ndarray, "pixel 3"]:
    """Return rows (1, i, j) of object pixels, sorted; at most 10,000, evenly spread."""
    chosen = evenly(np.flatnonzero(mask), _MAX_FOREGROUND)
    rows = [np.ones(len(chosen), np.int64), *np.unravel_index(chosen, mask.shape)]
    return np.stack(rows, axis=1).astype(np.int32)


def _samples(
    gray: Num[np.ndarray, "height width"], mask: UInt8[np.ndarray, "height width"] | None
) -> Float32[np.ndarray, "1 sample"]:
    if mask is None:
        return np.zeros((1, 0), np.float32)
    return gray.reshape(-1)[evenly(np.flatnonzero(mask), _MAX_SAMPLES)].astype(np.float32)[None]


def _sides(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"

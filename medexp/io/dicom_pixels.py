"""Pixels of a DICOM object: judged by the header before any is unpacked, then whole or not at all."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Integer

from medexp.io.dicom import MAX_BYTES, DicomError, integer, quiet, shown, text

if TYPE_CHECKING:
    from pydicom import Dataset

_UNPACKED_BYTES = 4  # of a voxel as it is used: float32 or int32
_BITS = (8, 16, 32)


@dataclass(frozen=True)
class PixelLayout:
    """How a header says that pixels are stored, after all rules held."""

    frames: int
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool

    @property
    def num_pixels(self) -> int:
        """Of all frames."""
        return math.prod(self.shape)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return (self.frames, self.rows, self.columns)


def layout_of(dataset: "Dataset") -> PixelLayout:
    """Judge a header.

    Raises:
        DicomError: It describes no grey image of whole bytes, or one beyond the budget.
    """
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    frames = integer(dataset, "NumberOfFrames", 1)
    if min(rows, columns, frames) < 1:
        raise DicomError(f"expected at least one row, column and frame, got {rows}, {columns}, {frames}")
    if rows * columns * frames * _UNPACKED_BYTES > MAX_BYTES:
        size = f"{frames} x {rows} x {columns}"
        raise DicomError(f"expected at most {MAX_BYTES // _UNPACKED_BYTES:,} voxels, got {size} by its header")
    _require_grey(dataset)
    allocated, stored = integer(dataset, "BitsAllocated"), integer(dataset, "BitsStored")
    if allocated not in _BITS or not 1 <= stored <= allocated:
        raise DicomError(f"expected 8, 16 or 32 bits and no more of them stored, got {allocated} and {stored}")
    if (high := integer(dataset, "HighBit", stored - 1)) != stored - 1:
        raise DicomError(f"expected HighBit {stored - 1} for {stored} bits stored, got {high}")
    representation = integer(dataset, "PixelRepresentation")
    if representation not in (0, 1):
        raise DicomError(f"expected PixelRepresentation 0 or 1, got {representation}")
    return PixelLayout(frames, rows, columns, allocated, stored, signed=representation == 1)


def _require_grey(dataset: "Dataset") -> None:
    samples, photometric = integer(dataset, "SamplesPerPixel", 1), text(dataset, "PhotometricInterpretation")
    if samples != 1 or photometric != "MONOCHROME2":
        raise DicomError(f"expected one MONOCHROME2 sample per pixel, got {samples} of {shown(photometric)}")


@quiet()
def pixels_of(dataset: "Dataset", layout: PixelLayout) -> Integer[np.ndarray, "frame row column"]:
    """Return the stored values.

    Raises:
        DicomError: They are not all there, are more than the header says, or cannot be unpacked here.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if "PixelData" not in dataset:
        raise DicomError("expected PixelData, got none")
    if syntax.is_private or (syntax.is_compressed and not syntax.is_deflated):
        return _unpacked(dataset, layout)
    content = dataset.get_item("PixelData").value
    expected = layout.num_pixels * layout.bits_allocated // 8
    found = len(content) if isinstance(content, bytes) else 0
    if found not in (expected, expected + expected % 2):
        state = "it is truncated" if found < expected else "Rows, Columns, NumberOfFrames or BitsAllocated are wrong"
        raise DicomError(f"expected {expected:,} bytes of pixels by its header, got {found:,}: {state}")
    kind = f"{'<' if syntax.is_little_endian else '>'}{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}"
    stored = np.frombuffer(content, kind, layout.num_pixels).reshape(layout.shape)
    return _without_unused_bits(stored.astype(stored.dtype.newbyteorder("="), copy=False), layout)


def _without_unused_bits(
    stored: Integer[np.ndarray, "frame row column"], layout: PixelLayout
) -> Integer[np.ndarray, "frame row column"]:
    """Drop bits above the stored ones, where old files keep overlays; a signed value's sign is extended."""
    unused = layout.bits_allocated - layout.bits_stored
    return (stored << unused) >> unused if unused else stored


def _unpacked(dataset: "Dataset", layout: PixelLayout) -> Integer[np.ndarray, "frame row column"]:
    try:
        pixels = np.asarray(dataset.pixel_array)
    except Exception as error:  # noqa: BLE001 - damaged pixels and missing decoders make pydicom raise anything
        name = shown(str(dataset.file_meta.TransferSyntaxUID.name))
        message = f"expected pixels that can be unpacked here, got {name} ({type(error).__name__})"
        raise DicomError(f"{message}; export the file uncompressed (Explicit VR Little Endian)") from None
    if pixels.size != layout.num_pixels or pixels.dtype.kind not in "iu":
        raise DicomError(f"expected {layout.num_pixels:,} whole numbers by its header, got {pixels.size:,}")
    return pixels.reshape(layout.shape)

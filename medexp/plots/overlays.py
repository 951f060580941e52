"""Slices with painted labels as pixels and PNG bytes: a few milliseconds, cheap enough for every case of a cohort.

Pictures follow the radiological convention: the patient's right on the left, front or top upwards.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Num, Shaped, UInt8

# By label value, from 1. The first four are the BraTS toolkit's, then matplotlib's.
LABEL_COLORS = (
    "#1f77b4", "#d62728", "#2ca02c", "#f1c40f", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#ff7f0e",
)  # fmt: skip


def display_slice(volume: Shaped[np.ndarray, "i j k"], axis: int, index: int) -> Shaped[np.ndarray, "row column"]:
    """Return a slice of a RAS+ volume, turned for display; axis 0 is sagittal, 1 coronal, 2 axial."""
    return volume.take(index, axis=axis)[::-1, ::-1].T


def gray_levels(
    picture: Num[np.ndarray, "row column"], lower: float | None = None, upper: float | None = None
) -> UInt8[np.ndarray, "row column"]:
    """Return intensities as 0..255; the limits default to the 1 and 99 percentile of what is not 0."""
    values = picture.astype(np.float32)
    occupied = values[values != 0]
    if occupied.size == 0:
        return np.zeros(picture.shape, np.uint8)
    low = float(np.percentile(occupied, 1)) if lower is None else lower
    high = float(np.percentile(occupied, 99)) if upper is None else upper
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0.0, 1.0)
    return np.where(values != 0, np.rint(scaled * 255.0), 0.0).astype(np.uint8)


def blend(
    gray: UInt8[np.ndarray, "row column"], label: UInt8[np.ndarray, "row column"], *, alpha: float
) -> UInt8[np.ndarray, "row column 3"]:
    """Return the picture in color with every labelled pixel mixed with its label's color."""
    colors = np.zeros((256, 3), np.float32)
    colors[1:] = [tuple(bytes.fromhex(LABEL_COLORS[index % len(LABEL_COLORS)][1:])) for index in range(255)]
    weight = np.where(label > 0, np.float32(alpha), np.float32(0.0))[..., None]
    mixed = gray[..., None] * (1.0 - weight) + colors[label] * weight
    return np.rint(mixed).astype(np.uint8)


def shrink(picture: Shaped[np.ndarray, "row column"], longest: int) -> Shaped[np.ndarray, "_ _"]:
    """Return every n-th pixel, so that no side is longer than `longest`."""
    step = max(1, -(-max(picture.shape) // longest))
    return picture[::step, ::step]


def side_by_side(pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], *, gap: int = 2) -> UInt8[np.ndarray, "row column 3"]:
    """Return pictures of any height in one row, separated by dark columns."""
    height = max(picture.shape[0] for picture in pictures)
    tiles = []
    for picture in pictures:
        tile = np.zeros((height, picture.shape[1] + gap, 3), np.uint8)
        tile[: picture.shape[0], : picture.shape[1]] = picture
        tiles.append(tile)
    return np.concatenate(tiles, axis=1)[:, :-gap] if gap else np.concatenate(tiles, axis=1)


def encode_png(picture: UInt8[np.ndarray, "row column 3"]) -> bytes:
    """Return a PNG file of one byte per pixel before packing: exact if it is gray, else of at most 256 colors."""
    from PIL import Image

    gray = np.ascontiguousarray(picture[..., 0])
    if (picture == gray[..., None]).all():
        image = Image.fromarray(gray)
    else:
        image = Image.fromarray(picture).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """Return a PNG as text for the `src` of an image in a page that needs no other file."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")

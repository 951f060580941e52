"""The picture of a case of dose prediction in the quality report: 2 x 4 panels, painted in a tenth of a second.

Above, axial, through the middle of the first structure: CT, dose, dose on the CT, outlines on the CT. Below: sagittal
and coronal with dose and outlines, the dose-volume histograms, and the dose from right to left through that middle.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int, Int16, Num, Shaped, UInt8

from medexp.plots.overlays import LABEL_COLORS, display_slice, encode_png
from medexp.preparation.entry import occupied_box

_SIDE = 160  # pixels of a panel
_GAP = 2
_WINDOW_HU = (-160.0, 240.0)
_AIR_HU = -400
_MOST_GY = 75.0  # of the colors, the histograms and the profile
_ALPHA = 0.45
_LEAST_SHARE = 0.05  # of _MOST_GY; below it the CT shows through
_SAGITTAL, _CORONAL, _AXIAL = 0, 1, 2
_MOST_SAMPLES = 20_000  # voxels of a structure, for its histogram


def dose_picture(
    *,
    ct_hu: Int16[np.ndarray, "i j k"],
    dose_gy: Float32[np.ndarray, "i j k"] | None,
    distances: Shaped[np.ndarray, "structure i j k"],
    spacing_mm: Sequence[float],
) -> bytes:
    """Return a PNG.

    Args:
        ct_hu: In RAS+.
        dose_gy: None: the panels that would show it stay black.
        distances: Negative inside, one per structure.
        spacing_mm: Along i, j, k.
    """
    box = _body(ct_hu)
    ct_hu, distances = ct_hu[box], distances[(slice(None), *box)]
    dose = np.zeros(ct_hu.shape, np.float32) if dose_gy is None else dose_gy[box]
    middle = _middle(distances)
    views = {axis: _View(axis, middle[axis], spacing_mm, ct_hu.shape) for axis in (_AXIAL, _SAGITTAL, _CORONAL)}
    panels = []
    for axis, view in views.items():
        gray = np.repeat(_gray(view.of(ct_hu))[..., None], 3, axis=2)
        wash, over = _wash(view.of(dose)), _over(gray, view.of(dose))
        outlines = [_outline(view.of(distance) < 0) for distance in distances]
        panels += [gray, wash, over, _outlined(gray, outlines)] if axis == _AXIAL else [_outlined(over, outlines)]
    panels += [_histograms(dose, distances), _profile(dose[:, middle[1], middle[2]])]
    return encode_png(_page([_framed(panel) for panel in panels]))


def _body(ct_hu: Int16[np.ndarray, "i j k"]) -> tuple[slice, slice, slice]:
    """Return the box of what is no air."""
    box = occupied_box(ct_hu > _AIR_HU)
    i, j, k = (slice(*side) for side in box) if box is not None else (slice(None),) * 3
    return i, j, k


def _middle(distances: Shaped[np.ndarray, "structure i j k"]) -> tuple[int, int, int]:
    """Return the voxel to cut through: the middle of the first structure, or of the volume."""
    inside = np.argwhere(distances[0] < 0)
    if not len(inside):
        i, j, k = (size // 2 for size in distances.shape[1:])
        return i, j, k
    i, j, k = (int(value) for value in np.median(inside, axis=0))
    return i, j, k


class _View:
    """A slice of every volume of a case, as a panel: nearest voxels, true proportions."""

    def __init__(self, axis: int, index: int, spacing_mm: Sequence[float], shape: tuple[int, ...]) -> None:
        self.axis, self.index = axis, index
        across, upwards = (other for other in range(3) if other != axis)
        lengths = [shape[upwards] * spacing_mm[upwards], shape[across] * spacing_mm[across]]
        scale = _SIDE / max(lengths)
        self.rows, self.columns = (
            _samples(shape[one], max(1, round(length * scale)))
            for one, length in zip((upwards, across), lengths, strict=True)
        )

    def of(self, volume: Num[np.ndarray, "i j k"]) -> Num[np.ndarray, "row column"]:
        return display_slice(volume, self.axis, self.index)[np.ix_(self.rows, self.columns)]


def _samples(size: int, count: int) -> Int[np.ndarray, " pixel"]:
    return np.minimum(((np.arange(count) + 0.5) * (size / count)).astype(np.int64), size - 1)


def _gray(picture: Num[np.ndarray, "row column"]) -> UInt8[np.ndarray, "row column"]:
    low, high = _WINDOW_HU
    return np.rint(np.clip((picture - low) / (high - low), 0.0, 1.0) * 255.0).astype(np.uint8)


def _wash(dose: Num[np.ndarray, "row column"]) -> UInt8[np.ndarray, "row column 3"]:
    """Return the dose in colors that run from blue over green to red, as planning systems do; no dose is black."""
    share = np.clip(dose.astype(np.float32) / _MOST_GY, 0.0, 1.0)
    channels = [np.clip(1.5 - np.abs(4.0 * share - peak), 0.0, 1.0) for peak in (3.0, 2.0, 1.0)]
    return np.rint(255.0 * np.stack(channels, axis=-1) * (share >= _LEAST_SHARE)[..., None]).astype(np.uint8)


def _over(
    gray: UInt8[np.ndarray, "row column 3"], dose: Num[np.ndarray, "row column"]
) -> UInt8[np.ndarray, "row column 3"]:
    weight = np.where(dose >= _LEAST_SHARE * _MOST_GY, np.float32(_ALPHA), np.float32(0.0))[..., None]
    return np.rint(gray * (1.0 - weight) + _wash(dose) * weight).astype(np.uint8)


def _outline(inside: Bool[np.ndarray, "row column"]) -> Bool[np.ndarray, "row column"]:
    """Return the pixels inside that have a neighbor outside."""
    padded = np.pad(inside, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~core


def _outlined(
    picture: UInt8[np.ndarray, "row column 3"], outlines: Sequence[Bool[np.ndarray, "row column"]]
) -> UInt8[np.ndarray, "row column 3"]:
    painted = picture.copy()
    for index, outline in enumerate(outlines):
        painted[outline] = _color(index)
    return painted


def _color(index: int) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(LABEL_COLORS[index % len(LABEL_COLORS)][1:])
    return red, green, blue


def _histograms(
    dose: Float32[np.ndarray, "i j k"], distances: Shaped[np.ndarray, "structure i j k"]
) -> UInt8[np.ndarray, "row column 3"]:
    """Return the share of each structure that receives at least a dose, from 0 to 75 Gy."""
    levels = np.linspace(0.0, _MOST_GY, _SIDE)
    lines: dict[int, Float32[np.ndarray, " level"]] = {}
    for index, distance in enumerate(distances):
        values = dose[distance < 0]
        if values.size:
            ordered = np.sort(values[:: -(-values.size // _MOST_SAMPLES)])
            below = np.searchsorted(ordered, levels, side="left")
            lines[index] = (1.0 - below / ordered.size).astype(np.float32)
    return _drawn(lines)


def _profile(dose: Float32[np.ndarray, " i"]) -> UInt8[np.ndarray, "row column 3"]:
    """Return the dose along a line, the patient's right on the left."""
    line = dose[::-1][_samples(len(dose), _SIDE)] / np.float32(_MOST_GY)
    return _drawn({1: line})


def _drawn(lines: Mapping[int, Float32[np.ndarray, " column"]]) -> UInt8[np.ndarray, "row column 3"]:
    """Return lines of shares, 0 at the bottom and 1 at the top, each in the color of its number."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (_SIDE, _SIDE))
    draw = ImageDraw.Draw(image)
    for share in (0.25, 0.5, 0.75):
        draw.line([(0, share * _SIDE), (_SIDE, share * _SIDE)], fill=(60, 60, 60))
        draw.line([(share * _SIDE, 0), (share * _SIDE, _SIDE)], fill=(60, 60, 60))
    for index, line in lines.items():
        heights = (_SIDE - 1) * (1.0 - np.clip(line, 0.0, 1.0))
        draw.line(list(enumerate(heights.tolist())), fill=_color(index), width=2)
    return np.asarray(image)


def _framed(panel: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "row column 3"]:
    """Return the panel in the middle of a black square with an edge."""
    side = _SIDE + _GAP
    frame = np.zeros((side, side, 3), np.uint8)
    top, left = ((side - length) // 2 for length in panel.shape[:2])
    frame[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
    return frame


def _page(panels: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> UInt8[np.ndarray, "row column 3"]:
    half = len(panels) // 2
    return np.concatenate([np.concatenate(row, axis=1) for row in (panels[:half], panels[half:])], axis=0)

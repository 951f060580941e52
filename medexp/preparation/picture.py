"""The picture of a case in the quality report: one slice of every channel, the label painted on a copy."""

import numpy as np
from jaxtyping import Num, UInt8

from medexp.plots.overlays import blend, display_slice, encode_png, gray_levels, shrink, side_by_side

_AXIAL = 2
_LONGEST = 128  # pixels of one tile
_ALPHA = 0.45


def case_picture(image: Num[np.ndarray, "channel i j k"], label: UInt8[np.ndarray, "i j k"] | None) -> bytes:
    """Return a PNG: the axial slice in the middle of the largest label, once per channel, then with the label.

    Without a label, or with an empty one, it is the middle slice.
    """
    index = middle_slice(label, image.shape[3])
    tiles = [gray_levels(shrink(display_slice(channel, _AXIAL, index), _LONGEST)) for channel in image]
    empty = np.zeros(tiles[0].shape, np.uint8)
    pictures = [blend(tile, empty, alpha=_ALPHA) for tile in tiles]
    if label is not None:
        painted = shrink(display_slice(label, _AXIAL, index), _LONGEST)
        pictures.append(blend(tiles[0], painted, alpha=_ALPHA))
    return encode_png(side_by_side(pictures))


def middle_slice(label: UInt8[np.ndarray, "i j k"] | None, num_slices: int) -> int:
    """Return the axial slice that halves the voxels of the most frequent label."""
    if label is None or not label.any():
        return num_slices // 2
    occupied = np.flatnonzero(label)
    values = label.reshape(-1)[occupied]
    largest = np.argmax(np.bincount(values))
    slices = occupied[values == largest] % label.shape[2]
    return int(np.sort(slices)[len(slices) // 2])

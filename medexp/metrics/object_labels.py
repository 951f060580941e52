"""From a mask to numbered objects: holes filled, touching ones split, small ones left out.

Objects are 8-connected: pixels that share a corner belong together. A hole is a 4-connected part of the background
that reaches no border of the image.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32
from scipy import ndimage

from medexp.errors import ConfigurationError

_EIGHT = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class ObjectRule:
    """What counts as an object of a mask.

    Attributes:
        min_area_px: Objects of fewer pixels are left out.
        fill_holes: Whether what an object encloses belongs to it.
        split_touching: Whether objects that touch are split where a neck is narrow enough (a watershed of the
            distance to the background).
        split_depth_px: By how much the distance to the background must fall from the smaller of two parts to the
            neck between them, in pixels, for them to be two objects. Only for `split_touching`.

    Raises:
        ConfigurationError: An area or depth is negative.
    """

    min_area_px: int
    fill_holes: bool
    split_touching: bool
    split_depth_px: float | int

    def __post_init__(self) -> None:
        for name, value, least in (("min_area_px", self.min_area_px, 0), ("split_depth_px", self.split_depth_px, 0.5)):
            if not value >= least:
                raise ConfigurationError(f"{name}: expected at least {least}, got {value}")


def objects_of(mask: Bool[np.ndarray, "row column"], rule: ObjectRule) -> Int32[np.ndarray, "row column"]:
    """Return the objects of a mask, numbered from 1 in the order of their first pixels; 0 is background."""
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    labels = _eight_connected(with_holes_filled(mask) if rule.fill_holes else mask)
    if rule.split_touching:
        labels = split_touching(labels, rule.split_depth_px)
    return without_small(labels, rule.min_area_px)


def cleaned(mask: Bool[np.ndarray, "row column"], rule: ObjectRule) -> Bool[np.ndarray, "row column"]:
    """Return a mask whose holes are filled and whose small objects are gone; nothing is split."""
    if not mask.any():
        return mask.copy()
    labels = _eight_connected(with_holes_filled(mask) if rule.fill_holes else mask)
    return without_small(labels, rule.min_area_px) > 0


def with_holes_filled(mask: Bool[np.ndarray, "row column"]) -> Bool[np.ndarray, "row column"]:
    """Return the mask with every hole filled, of whatever size."""
    outside, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))  # 4-connected: the complement of 8
    return (outside != outside[0, 0])[1:-1, 1:-1]


def without_small(labels: Int32[np.ndarray, "row column"], min_area_px: int) -> Int32[np.ndarray, "row column"]:
    """Return the objects of at least this many pixels, numbered anew in their order."""
    areas = np.bincount(labels.ravel())
    kept = areas >= max(min_area_px, 1)
    kept[0] = False
    numbers = np.zeros(areas.size, np.int32)
    numbers[kept] = np.arange(1, np.count_nonzero(kept) + 1)
    return numbers[labels]


def split_touching(labels: Int32[np.ndarray, "row column"], depth_px: float) -> Int32[np.ndarray, "row column"]:
    """Split objects along their necks; see `ObjectRule`. Objects with one summit stay as they are.

    Source:
        Extended (h-)maxima of the distance map as markers of a watershed: Soille, Morphological Image Analysis
        (2003), sections 6.4 and 9.2.
    """
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    distance = ndimage.distance_transform_edt(np.pad(labels > 0, 1))[1:-1, 1:-1]  # the border of the image is an edge
    lowered = reconstruction(distance - depth_px, distance)
    summits, _ = ndimage.label(local_maxima(lowered) & (labels > 0), structure=_EIGHT)
    owner_of = ndimage.maximum(labels, summits, np.arange(1, summits.max() + 1)).astype(np.int64)
    is_split = np.bincount(owner_of, minlength=int(labels.max()) + 1) > 1
    divided = is_split[labels]
    if not divided.any():
        return labels
    parts = watershed(-distance, np.where(divided, summits, 0), connectivity=_EIGHT, mask=divided)
    return _in_order(np.where(divided, parts + int(labels.max()), labels))


def _eight_connected(mask: Bool[np.ndarray, "row column"]) -> Int32[np.ndarray, "row column"]:
    labels, _ = ndimage.label(mask, structure=_EIGHT, output=np.int32)
    return labels


def _in_order(labels: Int32[np.ndarray, "row column"]) -> Int32[np.ndarray, "row column"]:
    """Number objects anew, in the order of their first pixels."""
    present, first = np.unique(labels, return_index=True)
    present, first = present[present > 0], first[present > 0]
    numbers = np.zeros(int(labels.max()) + 1, np.int32)
    numbers[present[np.argsort(first)]] = np.arange(1, present.size + 1)
    return numbers[labels]

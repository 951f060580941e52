"""Voxel grids that two masks share: checks, and boxes that keep the work near the foreground."""

from collections.abc import Iterable
from typing import SupportsFloat, TypeAlias

import numpy as np
from jaxtyping import Bool, Num, Real, Shaped

from medexp.errors import CaseError, GridMismatchError

Box: TypeAlias = tuple[slice, ...]
Spacing: TypeAlias = Iterable[SupportsFloat]


def require_same_grid(prediction: Shaped[np.ndarray, "..."], reference: Shaped[np.ndarray, "..."]) -> None:
    """Refuse two arrays that do not stand on one grid.

    Raises:
        GridMismatchError: The shapes differ.
    """
    if prediction.shape != reference.shape:
        raise GridMismatchError(
            f"expected prediction and reference on one grid, got shapes {prediction.shape} and {reference.shape}; "
            "resample the prediction to the reference grid (nearest neighbor for labels)"
        )


def spacing_on(array: Shaped[np.ndarray, "..."], spacing_mm: Spacing) -> tuple[float, ...]:
    """Return the voxel size as plain floats, one per axis of `array`.

    Raises:
        CaseError: The number of values is not the number of axes, or a value is not positive and finite.
    """
    spacing = tuple(float(size) for size in spacing_mm)
    if len(spacing) != array.ndim or not all(0.0 < size < np.inf for size in spacing):
        raise CaseError(
            f"expected {array.ndim} positive voxel sizes in mm, one per axis, got {spacing}; "
            "read them from the image header"
        )
    return spacing


def bounding_box(array: Num[np.ndarray, "..."] | Bool[np.ndarray, "..."]) -> Box:
    """Return the smallest box that holds every non-zero element; a box of no elements if there is none."""
    box = [slice(0, 0)] * array.ndim
    view = array
    for axis in sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])):  # slowest axis first
        others = tuple(other for other in range(array.ndim) if other != axis)
        occupied = np.flatnonzero(view.any(axis=others))
        if occupied.size == 0:
            return tuple([slice(0, 0)] * array.ndim)
        box[axis] = slice(int(occupied[0]), int(occupied[-1]) + 1)
        view = view[(slice(None),) * axis + (box[axis],)]
    return tuple(box)


def mask_of(labels: Real[np.ndarray, "*grid"], values: Iterable[int]) -> Bool[np.ndarray, "*grid"]:
    """Return where a label map has one of these values."""
    mask = np.zeros(labels.shape, dtype=bool)
    for value in values:  # a few comparisons of bytes cost less than a table
        mask |= labels == value
    return mask


def grown(box: Box, margin: int, shape: tuple[int, ...]) -> Box:
    """Return the box with `margin` more voxels on every side, cut at the borders of a volume of this shape.

    A box of no elements stays one.
    """
    if is_empty(box):
        return box
    return tuple(
        slice(max(side.start - margin, 0), min(side.stop + margin, size)) for side, size in zip(box, shape, strict=True)
    )


def is_empty(box: Box) -> bool:
    """Say whether the box holds no element."""
    return any(side.stop <= side.start for side in box)


def hull(first: Box, second: Box) -> Box:
    """Return the smallest box that holds both."""
    if is_empty(first) or is_empty(second):
        return second if is_empty(first) else first
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))


def common(first: Box, second: Box) -> tuple[Box, Box]:
    """Return where the two boxes overlap, once in the coordinates of each."""
    pairs = [
        (max(a.start, b.start), max(min(a.stop, b.stop), max(a.start, b.start)), a.start, b.start)
        for a, b in zip(first, second, strict=True)
    ]
    return (
        tuple(slice(start - own, stop - own) for start, stop, own, _ in pairs),
        tuple(slice(start - own, stop - own) for start, stop, _, own in pairs),
    )

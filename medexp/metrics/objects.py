"""Size and shape of the numbered objects of an image, all of them at once.

Lengths and areas are in pixels, and in micrometers where the pixel size is known. Every number equals that of
scikit-image's `regionprops` (tests/metrics/test_objects.py), which looks at one object after the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64
from scipy import ndimage

from medexp.errors import CaseError

# How columns that are lengths (exponent 1) or areas (2) are called in micrometers.
_IN_UM = {
    "area": ("area_um2", 2),
    "perimeter": ("perimeter_um", 1),
    "equivalent_diameter": ("equivalent_diameter_um", 1),
    "major_axis_length": ("major_axis_length_um", 1),
    "minor_axis_length": ("minor_axis_length_um", 1),
    "centroid_x": ("centroid_x_um", 1),
    "centroid_y": ("centroid_y_um", 1),
}
_PIXELS = (
    "object_id", "area", "perimeter", "equivalent_diameter", "major_axis_length", "minor_axis_length", "eccentricity",
    "circularity", "centroid_x", "centroid_y", "bbox_min_row", "bbox_min_col", "bbox_max_row", "bbox_max_col",
)  # fmt: skip
OBJECT_COLUMNS = (*_PIXELS, *(name for name, _ in _IN_UM.values()))

_EDGE, _STRAIGHT, _DIAGONAL = 1, 2, 10
# Length that a pixel of the border stands for, by _EDGE + _STRAIGHT n4 + _DIAGONAL n8 of its neighbors on the border.
_LENGTHS = np.zeros(50)
_LENGTHS[[5, 7, 15, 17, 25, 27]] = 1.0
_LENGTHS[[21, 33]] = math.sqrt(2.0)
_LENGTHS[[13, 23]] = (1.0 + math.sqrt(2.0)) / 2.0


@dataclass(frozen=True, eq=False)
class ObjectMeasures:
    """Measures of the objects of one image, one entry per object in the order of their numbers.

    Attributes:
        columns: Arrays by the names of `OBJECT_COLUMNS`; those in micrometers only where `pixel_size_um` is known.
            The box is half open (`bbox_max_row` is the first row below); x is the column, y the row; circularity,
            4 pi area / perimeter^2, is `nan` where the perimeter is 0 (objects of one or two pixels).
        pixel_size_um: Side of a pixel; None: unknown.
    """

    columns: dict[str, Float64[np.ndarray, " object"] | Int64[np.ndarray, " object"]]
    pixel_size_um: float | None

    def __len__(self) -> int:
        return int(self.columns["object_id"].size)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per object; micrometers are empty where the pixel size is unknown."""
        lists = {name: self.columns[name].tolist() for name in OBJECT_COLUMNS if name in self.columns}
        unknown = {name: None for name in OBJECT_COLUMNS if name not in self.columns}
        return [{**{name: lists[name][index] for name in lists}, **unknown} for index in range(len(self))]


def measure_objects(
    labels: Int32[np.ndarray, "row column"], pixel_size_um: float | int | Sequence[float] | None
) -> ObjectMeasures:
    """Measure every object of a label map; numbers may be missing.

    Axes are those of the ellipse with the same second moments. The perimeter runs through the centers of the border
    pixels, those with a 4-neighbor outside the object.

    Args:
        labels: Numbers of the objects, 0 is background.
        pixel_size_um: Side of a pixel; two equal numbers are one; None: unknown.

    Raises:
        CaseError: The pixels are not square, or their size is not positive.

    Source:
        Perimeter: Benkrid, Crookes, Real-time estimation of perimeter (2000), as in scikit-image's
        `measure.perimeter(neighborhood=4)`; re-implemented over all objects.
    """
    side_um = square_side_um(pixel_size_um)
    width = labels.shape[1]
    flat = np.flatnonzero(labels)
    numbers = labels.ravel()[flat]
    areas = np.bincount(numbers, minlength=1).astype(np.float64)
    present = np.flatnonzero(areas)
    boxes = _boxes(labels, present)
    corners = np.zeros((2, areas.size))
    corners[:, present] = boxes[:, :2].T
    down = flat // width - corners[0][numbers]  # from the box, so that sums stay small and exact
    across = flat % width - corners[1][numbers]
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [np.bincount(numbers, at, areas.size) / areas for at in (down, across)]
        products = ((down, down), (across, across), (down, across))
        seconds = [np.bincount(numbers, a * b, areas.size) / areas for a, b in products]
    spread = _Spread.of(means, seconds, present)
    area, perimeter = areas[present], _perimeters(labels)[present]
    with np.errstate(divide="ignore"):
        circularity = np.where(perimeter > 0, 4.0 * np.pi * area / perimeter**2, np.nan)
    columns: dict[str, Any] = {
        "object_id": present,
        "area": area.astype(np.int64),
        "perimeter": perimeter,
        "equivalent_diameter": np.sqrt(4.0 * area / np.pi),
        "major_axis_length": 4.0 * np.sqrt(spread.larger),
        "minor_axis_length": 4.0 * np.sqrt(spread.smaller),
        "eccentricity": spread.eccentricity,
        "circularity": circularity,
        "centroid_x": (means[1] + corners[1])[present],
        "centroid_y": (means[0] + corners[0])[present],
        **{name: boxes[:, index] for index, name in enumerate(_PIXELS[-4:])},
    }
    if side_um is not None:
        columns |= {name: columns[source] * side_um**power for source, (name, power) in _IN_UM.items()}
    return ObjectMeasures(columns, side_um)


def square_side_um(pixel_size_um: float | int | Sequence[float] | None) -> float | None:
    """Return the side of a pixel as one number.

    Raises:
        CaseError: The pixels are not square, or their size is not positive.
    """
    if pixel_size_um is None:
        return None
    sides = [float(pixel_size_um)] if isinstance(pixel_size_um, float | int) else [float(one) for one in pixel_size_um]
    if not all(0.0 < side < math.inf for side in sides) or max(sides) - min(sides) > 1e-3 * max(sides):
        message = f"expected square pixels of a positive size in micrometers, got {sides}"
        raise CaseError(f"{message}; correct the image's resolution or dataset.pixel_size_um")
    return sides[0]


@dataclass(frozen=True, eq=False)
class _Spread:
    """Eigenvalues of each object's covariance of pixel positions."""

    larger: Float64[np.ndarray, " object"]
    smaller: Float64[np.ndarray, " object"]

    @classmethod
    def of(
        cls,
        means: Sequence[Float64[np.ndarray, " number"]],
        seconds: Sequence[Float64[np.ndarray, " number"]],
        present: Int64[np.ndarray, " object"],
    ) -> "_Spread":
        rows, columns = (mean[present] for mean in means)
        a, c, b = (second[present] for second in seconds)
        a, c, b = a - rows**2, c - columns**2, b - rows * columns
        half = np.sqrt(((a - c) / 2.0) ** 2 + b**2)
        middle = (a + c) / 2.0
        return cls(np.maximum(middle + half, 0.0), np.maximum(middle - half, 0.0))

    @property
    def eccentricity(self) -> Float64[np.ndarray, " object"]:
        """0 for a circle and for a single pixel."""
        ratio = np.divide(self.smaller, self.larger, out=np.ones_like(self.larger), where=self.larger > 0)
        return np.sqrt(1.0 - ratio)


def _boxes(labels: Int32[np.ndarray, "row column"], present: Int64[np.ndarray, " object"]) -> Int64[np.ndarray, "_ 4"]:
    found = ndimage.find_objects(labels)
    chosen = [found[number - 1] for number in present]
    corners = [(rows.start, columns.start, rows.stop, columns.stop) for rows, columns in chosen]
    return np.array(corners, np.int64).reshape(-1, 4)


def _perimeters(labels: Int32[np.ndarray, "row column"]) -> Float64[np.ndarray, " number"]:
    """Return the perimeter by number; a neighbor counts only if it belongs to the same object."""
    padded = np.pad(labels, 1)
    width = padded.shape[1]
    inner = padded[1:-1, 1:-1]
    straight = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    enclosed = np.logical_and.reduce([inner == neighbor for neighbor in straight])
    border = np.zeros_like(padded)
    border[1:-1, 1:-1] = np.where(enclosed, 0, inner)  # the objects' border pixels, with their numbers
    on_border = border.ravel()
    at = np.flatnonzero(on_border)
    numbers = on_border[at]
    kind = np.full(at.size, _EDGE)
    for weight, steps in ((_STRAIGHT, (1, width)), (_DIAGONAL, (width - 1, width + 1))):
        for step in (*steps, *(-step for step in steps)):
            kind += weight * (on_border[at + step] == numbers)
    lengths = np.bincount(numbers, weights=_LENGTHS[kind], minlength=int(labels.max(initial=0)) + 1)
    return lengths.astype(np.float64)  # an empty count is of integers

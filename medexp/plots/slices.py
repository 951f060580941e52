"""Three planes of a case with outlines, as pieces of SVG: a gray picture and one path per label.

Outlines stay paths instead of being painted, so that a page can hide them and they stay sharp at any size.
The view is the radiological one: the patient's right is on the left of axial and coronal pictures.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Integer, Num, Shaped

from medexp.geometry.affine import Axes, Flips, closest_axes, native_from_canonical, spacing_mm
from medexp.plots.overlays import data_uri, display_slice, encode_png, gray_levels

_MARGIN_VOXELS = 3
_TOLERANCE_VOXELS = 0.15  # by which an outline may be simplified
# Where between a voxel outside (0) and one inside (1) an outline runs. Lines run a little inside, so that those of
# two labels that touch lie side by side instead of on each other; fills end on the edge.
ON_THE_EDGE, INSIDE = 0.5, 0.85
_PLANES = (
    # name, axis looked along (RAS+), axes of columns and rows, letters at the left, right and top edge
    ("axial", 2, (0, 1), ("R", "L", "A")),
    ("coronal", 1, (0, 2), ("R", "L", "S")),
    ("sagittal", 0, (1, 2), ("A", "P", "S")),
)


@dataclass(frozen=True)
class Outline:
    """One label's outline in one plane, as the `d` of an SVG path; lengths in mm from the picture's corner."""

    value: int
    path: str


@dataclass(frozen=True)
class Plane:
    """One plane of a case.

    `position_mm` is where it lies along its axis in the world. `picture` is the `href` of a PNG, empty where there is
    no image. Sizes are in mm.
    """

    name: str
    position_mm: float
    width_mm: float
    height_mm: float
    picture: str
    reference: tuple[Outline, ...]
    prediction: tuple[Outline, ...]
    letters: tuple[str, str, str]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in the unit of the outlines."""
        return self.width_mm, self.height_mm

    @property
    def caption(self) -> str:
        """What the picture shows."""
        return f"{self.name} {self.position_mm:.0f} mm".replace("-", "−")


def three_planes(
    *,
    reference: Integer[np.ndarray, "i j k"],
    prediction: Integer[np.ndarray, "i j k"],
    image: Num[np.ndarray, "i j k"] | None,
    affine: Float64[np.ndarray, "4 4"],
) -> tuple[Plane, ...]:
    """Return the planes through the largest lesion of the reference, where each cuts most of it.

    A lesion is a connected part of the foreground. Without any in the reference the prediction's largest is
    taken, and without that the center.
    """
    axes, flips = closest_axes(affine)
    volumes = [_canonical(volume, axes, flips) for volume in (reference, prediction)]
    gray = None if image is None else _canonical(image, axes, flips)
    native_mm = spacing_mm(affine)
    spacing = (native_mm[axes[0]], native_mm[axes[1]], native_mm[axes[2]])
    position = _position(*volumes)
    box = _content(gray, volumes)
    window = None if gray is None else _window(gray)
    i, j, k = reference.shape
    world_from_shown = affine @ native_from_canonical((i, j, k), axes, flips)
    planes = []
    for name, axis, shown, letters in _PLANES:
        cut = _Cut(axis, position[axis], shown, box, spacing)
        planes.append(
            Plane(
                name=name,
                position_mm=float((world_from_shown @ (*position, 1.0))[axis]),
                width_mm=cut.size_mm[0],
                height_mm=cut.size_mm[1],
                picture="" if gray is None or window is None else _picture(cut.of(gray), window),
                reference=cut.outlines(volumes[0], level=ON_THE_EDGE),
                prediction=cut.outlines(volumes[1], level=INSIDE),
                letters=letters,
            )
        )
    return tuple(planes)


@dataclass(frozen=True)
class _Cut:
    """A plane of a RAS+ array, turned so that rows run down and columns to the right of the page."""

    axis: int
    index: int
    shown: tuple[int, int]
    box: tuple[slice, slice, slice]
    spacing: tuple[float, float, float]

    @property
    def size_mm(self) -> tuple[float, float]:
        columns, rows = (self.box[axis] for axis in self.shown)
        width, height = (self.spacing[axis] for axis in self.shown)
        return (columns.stop - columns.start) * width, (rows.stop - rows.start) * height

    def of(self, volume: Shaped[np.ndarray, "i j k"]) -> Shaped[np.ndarray, "row column"]:
        where = [*self.box]
        where[self.axis] = slice(self.index, self.index + 1)
        return display_slice(volume[tuple(where)], self.axis, 0)

    def outlines(self, labels: Integer[np.ndarray, "i j k"], *, level: float) -> tuple[Outline, ...]:
        plane = self.of(labels)
        step = (self.spacing[self.shown[0]], self.spacing[self.shown[1]])
        values = np.unique(plane[plane > 0])
        return tuple(Outline(int(value), outline_path(plane == value, step, level)) for value in values)


def _canonical(volume: Shaped[np.ndarray, "i j k"], axes: Axes, flips: Flips) -> Shaped[np.ndarray, "..."]:
    return volume.transpose(axes)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def _position(
    reference: Integer[np.ndarray, "i j k"], prediction: Integer[np.ndarray, "i j k"]
) -> tuple[int, int, int]:
    mask = reference > 0 if reference.any() else prediction > 0
    if not mask.any():
        i, j, k = (size // 2 for size in mask.shape)
        return i, j, k
    lesion = _largest_component(mask)
    i, j, k = (_widest(lesion.sum(axis=_others(axis))) for axis in range(3))
    return i, j, k


def _widest(areas: Integer[np.ndarray, " slice"]) -> int:
    """Return the slice with the largest area; of equal ones that in the middle."""
    widest = np.flatnonzero(areas == areas.max())
    return int(widest[len(widest) // 2])


def _others(axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(3) if other != axis)


def _largest_component(mask: Bool[np.ndarray, "i j k"]) -> Bool[np.ndarray, "i j k"]:
    from scipy import ndimage

    numbered, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(numbered.ravel())
    sizes[0] = 0
    return numbered == int(np.argmax(sizes))


def _content(
    image: Num[np.ndarray, "i j k"] | None, labels: Iterable[Integer[np.ndarray, "i j k"]]
) -> tuple[slice, slice, slice]:
    """Return the box of what differs from the background, with a margin; the whole volume without an image."""
    masks = [label > 0 for label in labels]
    if image is None:
        return _three(slice(0, size) for size in masks[0].shape)
    occupied = image > _background(image)
    for mask in masks:
        occupied |= mask
    if not occupied.any():
        return _three(slice(0, size) for size in occupied.shape)
    sides = []
    for axis, size in enumerate(occupied.shape):
        along = np.flatnonzero(occupied.any(axis=_others(axis)))
        sides.append(slice(max(0, int(along[0]) - _MARGIN_VOXELS), min(size, int(along[-1]) + 1 + _MARGIN_VOXELS)))
    return _three(sides)


def _three(sides: Iterable[slice]) -> tuple[slice, slice, slice]:
    i, j, k = sides
    return i, j, k


def _background(image: Num[np.ndarray, "i j k"]) -> float:
    """Return the value of the eight corners' median: 0 around a stripped head, air in a CT."""
    corners = image[:: max(1, image.shape[0] - 1), :: max(1, image.shape[1] - 1), :: max(1, image.shape[2] - 1)]
    return float(np.median(corners))


def _window(image: Num[np.ndarray, "i j k"]) -> tuple[float, float]:
    content = image[image > _background(image)]
    lower, upper = np.percentile(content if content.size else image, [0.5, 99.5])
    return float(lower), float(max(upper, lower + 1e-12))


def _picture(plane: Num[np.ndarray, "row column"], window: tuple[float, float]) -> str:
    gray = gray_levels(plane, *window)
    return data_uri(encode_png(np.repeat(gray[..., None], 3, axis=2)))


def outline_path(mask: Bool[np.ndarray, "row column"], step: tuple[float, float], level: float) -> str:
    """Return the outline of a mask as the `d` of an SVG path.

    Args:
        mask: The mask.
        step: Width and height of a pixel in the path's unit.
        level: Where between a pixel outside (0) and one inside (1) the line runs.
    """
    from skimage.measure import approximate_polygon, find_contours

    parts = []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), level):
        points = approximate_polygon(contour, _TOLERANCE_VOXELS) - 0.5  # padding, and voxel centers at halves
        steps = "L".join(f"{column * step[0]:.1f} {row * step[1]:.1f}" for row, column in points[:-1])
        parts.append(f"M{steps}Z")
    return "".join(parts)

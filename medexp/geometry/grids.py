"""Where a stored array came from, and the exact way back.

A file's array is turned to RAS+ (axes exchanged and reversed, no interpolation), cropped to a box, and
resampled if the cohort's spacing differs. `Grid` records these steps; `to_native` undoes them.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

from medexp.errors import GridMismatchError
from medexp.geometry.affine import Axes, Flips, Shape, closest_axes, native_from_canonical, orientation, spacing_mm
from medexp.geometry.resampling import resample_label, resample_linear, resampled_shape

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Grid:
    """The voxel grid of a raw file and how the stored array lies in it.

    `shape` and `affine` are the file's own; `header` is its NIfTI header, byte for byte. RAS+ axis d is the
    file's axis `axes[d]`, reversed where `flips[d]`. `box` holds start and stop of the crop in RAS+ voxels of
    the file's spacing. `stored_shape` is what the crop became after resampling.
    """

    shape: Shape
    affine: Float64[np.ndarray, "4 4"]
    header: bytes | None
    axes: Axes
    flips: Flips
    box: Box
    stored_shape: Shape

    @classmethod
    def native(cls, shape: Shape, affine: Float64[np.ndarray, "4 4"], header: bytes | None = None) -> "Grid":
        """Return the grid of a file whose array is stored whole: turned to RAS+, neither cropped nor resampled."""
        axes, flips = closest_axes(affine)
        i, j, k = (shape[axis] for axis in axes)
        return cls(shape, affine, header, axes, flips, ((0, i), (0, j), (0, k)), (i, j, k))

    def cropped(self, box: Box, target_mm: tuple[float, ...] | None = None) -> "Grid":
        """Return the grid of the box `box` of the whole RAS+ array, resampled to `target_mm` if given."""
        i, j, k = (stop - start for start, stop in box)
        stored: tuple[int, ...] = (i, j, k)
        if target_mm is not None:
            stored = resampled_shape(stored, self.canonical_spacing_mm, target_mm)
        result = (stored[0], stored[1], stored[2])
        return Grid(self.shape, self.affine, self.header, self.axes, self.flips, box, result)

    @property
    def canonical_spacing_mm(self) -> tuple[float, float, float]:
        """The file's voxel size along the RAS+ axes."""
        native = spacing_mm(self.affine)
        return (native[self.axes[0]], native[self.axes[1]], native[self.axes[2]])

    @property
    def orientation(self) -> str:
        """The letters of the directions in which the file's axes grow."""
        return orientation(self.affine)

    def described(self) -> dict[str, Any]:
        """Return what a manifest says about it."""
        canonical = dict(zip(self.axes, self.canonical_spacing_mm, strict=True))
        return {
            "shape": list(self.shape),
            "spacing_mm": [round(canonical[axis], 6) for axis in range(3)],
            "affine": self.affine.tolist(),
            "orientation": self.orientation,
            "stored_shape": list(self.stored_shape),
        }

    @property
    def box_shape(self) -> Shape:
        """The size of the crop before resampling."""
        i, j, k = (stop - start for start, stop in self.box)
        return (i, j, k)

    @property
    def stored_affine(self) -> Float64[np.ndarray, "4 4"]:
        """The affine of the stored array: its voxels -> world millimeters."""
        box_from_stored = np.eye(4)
        for axis, (size, stored) in enumerate(zip(self.box_shape, self.stored_shape, strict=True)):
            ratio = size / stored
            box_from_stored[axis, axis] = ratio
            box_from_stored[axis, 3] = 0.5 * ratio - 0.5 + self.box[axis][0]
        return self.affine @ native_from_canonical(self.shape, self.axes, self.flips) @ box_from_stored

    @property
    def stored_spacing_mm(self) -> tuple[float, float, float]:
        """The voxel size of the stored array."""
        return spacing_mm(self.stored_affine)

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, numbers and text."""
        return {
            "shape": list(self.shape),
            "affine": self.affine.tolist(),
            "header": None if self.header is None else base64.b64encode(self.header).decode("ascii"),
            "axes": list(self.axes),
            "flips": list(self.flips),
            "box": [list(side) for side in self.box],
            "stored_shape": list(self.stored_shape),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Grid":
        """Read what `to_json` wrote."""
        header = record["header"]
        return cls(
            shape=_three(record["shape"]),
            affine=np.array(record["affine"], dtype=np.float64),
            header=None if header is None else base64.b64decode(header, validate=True),
            axes=_three(record["axes"]),
            flips=(bool(record["flips"][0]), bool(record["flips"][1]), bool(record["flips"][2])),
            box=_box(record["box"]),
            stored_shape=_three(record["stored_shape"]),
        )


@dataclass(frozen=True)
class ImageGrid:
    """The pixels of a 2D image, which is stored whole: height and width, and the size of a pixel where it is known."""

    shape: tuple[int, int]
    pixel_size_um: tuple[float, float] | None

    @property
    def stored_shape(self) -> tuple[int, int]:
        """The size of the stored array."""
        return self.shape

    @property
    def box_shape(self) -> tuple[int, int]:
        """The size of the part that is stored: all of it."""
        return self.shape

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        size = self.pixel_size_um
        return {"shape": list(self.shape), "pixel_size_um": None if size is None else list(size)}

    def described(self) -> dict[str, Any]:
        """Return what a manifest says about it."""
        return {**self.to_json(), "stored_shape": list(self.shape)}


AnyGrid = Grid | ImageGrid


def grid_from_json(record: Mapping[str, Any]) -> AnyGrid:
    """Read what a grid's `to_json` wrote."""
    if "affine" in record:
        return Grid.from_json(record)
    size = record["pixel_size_um"]
    height, width = (int(side) for side in record["shape"])
    return ImageGrid((height, width), None if size is None else (float(size[0]), float(size[1])))


def _three(values: Any) -> Shape:
    i, j, k = (int(value) for value in values)
    return (i, j, k)


def _box(sides: Any) -> Box:
    i, j, k = ((int(start), int(stop)) for start, stop in sides)
    return (i, j, k)


def to_canonical(array: Shaped[np.ndarray, "i j k"], grid: Grid) -> Shaped[np.ndarray, "..."]:
    """Return a view of a file's array with its axes in RAS+ order and direction."""
    turned = array.transpose(grid.axes)
    return turned[tuple(slice(None, None, -1 if flipped else 1) for flipped in grid.flips)]


def to_native(array: Shaped[np.ndarray, "*leading_and_spatial"], grid: AnyGrid) -> Shaped[np.ndarray, "..."]:
    """Put an array of the stored grid back on the file's own grid; a 2D image is there already.

    Args:
        array: Probabilities `[label, i, j, k]`, background first, which are interpolated linearly (take the
            arg-max afterwards); or a label map `[i, j, k]`, interpolated label by label. Where the spacing was
            not changed, nothing is interpolated and every value comes back exactly.
        grid: The grid of the stored case.

    Returns:
        An array of the same kind on the file's grid. Outside the crop the background is certain.

    Raises:
        GridMismatchError: The array does not have the stored shape.
    """
    num_axes = len(grid.stored_shape)
    if array.shape[-num_axes:] != grid.stored_shape:
        message = f"expected an array on the stored grid {grid.stored_shape}, got {array.shape[-num_axes:]}"
        raise GridMismatchError(message)
    if isinstance(grid, ImageGrid):
        return array
    if array.ndim == 3:
        return _native_volume(resample_label(array, grid.box_shape) if _resampled(grid) else array, grid, fill=0)
    native = np.empty((array.shape[0], *grid.shape), np.float32)
    for index, channel in enumerate(array):
        volume = resample_linear(channel, grid.box_shape)
        native[index] = _native_volume(volume, grid, fill=1 if index == 0 else 0)
    return native


def _resampled(grid: Grid) -> bool:
    return grid.box_shape != grid.stored_shape


def _native_volume(volume: Shaped[np.ndarray, "i j k"], grid: Grid, *, fill: int) -> Shaped[np.ndarray, "..."]:
    native = np.full(grid.shape, fill, volume.dtype)
    to_canonical(native, grid)[tuple(slice(start, stop) for start, stop in grid.box)] = volume
    return native

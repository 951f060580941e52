"""On which voxel grid a case of dose prediction is stored: a piece of the planning CT's own, or one that is laid anew.

Masks and dose must come to the grid in one step each. Resampling finished masks and a finished dose separately
shifts one against the other by up to a voxel, enough to make the coverage of a target look 15 Gy too low. So a
window moves whole voxels, and a new grid is given to the rasterizer and to the dose's own interpolation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from jaxtyping import Float64, Num, Shaped, UInt8

from medexp.errors import CaseError, ConfigurationError
from medexp.geometry.affine import Shape, spacing_mm
from medexp.types import Count, Positive

AIR_HU = -1000  # where the CT ends
_AXES = 3
_ROUNDING = 1e-3  # voxels


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """A voxel grid: its size and its affine, voxel centers -> world millimeters in RAS+."""

    shape: Shape
    affine: Float64[np.ndarray, "4 4"]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along i, j, k."""
        return spacing_mm(self.affine)

    def share_outside(
        self, amount: Num[np.ndarray, "i j k"], source: "VoxelGrid", *, reach_voxels: float = 0.5
    ) -> float:
        """Return how much of what `source` holds lies outside of this grid, 0 to 1; 0 of nothing.

        Both grids must have the same axes; a voxel counts where its center lies. This grid ends `reach_voxels` beyond
        the centers of its outermost voxels.
        """
        total = float(amount.sum(dtype=np.float64))
        source_from_mine = np.linalg.inv(source.affine) @ self.affine
        corners = np.array([[-reach_voxels] * _AXES, [size - 1.0 + reach_voxels for size in self.shape]])
        ends = corners @ source_from_mine[:3, :3].T + source_from_mine[:3, 3]
        low = np.clip(np.ceil(ends.min(axis=0) - _ROUNDING), 0, source.shape).astype(int)
        high = np.clip(np.floor(ends.max(axis=0) + _ROUNDING) + 1, low, source.shape).astype(int)
        inside = amount[tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))]
        return 1.0 - float(inside.sum(dtype=np.float64)) / total if total else 0.0


@dataclass(frozen=True)
class Window:
    """A box of whole voxels of a grid; it may reach beyond the grid's ends, and even begin before its first voxel."""

    start: Shape
    shape: Shape

    def cut(self, array: Shaped[np.ndarray, "i j k"], *, fill: int) -> Shaped[np.ndarray, "i2 j2 k2"]:
        """Return the box of an array, with `fill` where the array ends."""
        inside, placed = [], []
        for start, size, available in zip(self.start, self.shape, array.shape, strict=True):
            low = min(max(start, 0), available)
            high = max(min(start + size, available), low)
            inside.append(slice(low, high))
            placed.append(slice(low - start, high - start) if high > low else slice(0, 0))
        found = array[tuple(inside)]
        if found.shape == self.shape:
            return np.ascontiguousarray(found)
        result = np.full(self.shape, fill, array.dtype)
        result[tuple(placed)] = found
        return result

    def of(self, grid: VoxelGrid) -> VoxelGrid:
        """Return the grid that the box is."""
        affine = grid.affine.copy()
        affine[:3, 3] += grid.affine[:3, :3] @ np.array(self.start, dtype=np.float64)
        return VoxelGrid(self.shape, affine)


Amounts: TypeAlias = Mapping[str, UInt8[np.ndarray, "i j k"]]  # by structure, how much of each voxel it fills


@dataclass(frozen=True)
class NativeCrop:
    """The CT's own voxels around the target: nothing but the dose is interpolated.

    In the plane a square around the centroid of the first structure of `center` that is there; along k the
    structures and a margin, at least `min_slices`, as far as possible within the CT. What lies outside of it is air.
    """

    kind: ClassVar[str] = "native_crop"

    inplane_size: Count
    z_margin_mm: Positive
    min_slices: Count
    center: Sequence[str] = ("PTV70",)

    def window(self, grid: VoxelGrid, amounts: Amounts) -> Window:
        """Return the box for a case.

        Raises:
            CaseError: None of the structures to center on is there.
        """
        middle = centroid(amounts, self.center)
        first_i, first_j = (int(np.floor(value + 0.5)) - self.inplane_size // 2 for value in middle[:2])
        first_k, num_slices = self._slices(grid, amounts)
        return Window((first_i, first_j, first_k), (self.inplane_size, self.inplane_size, num_slices))

    def _slices(self, grid: VoxelGrid, amounts: Amounts) -> tuple[int, int]:
        """Return the first slice and their number."""
        available = grid.shape[2]
        margin = int(np.ceil(self.z_margin_mm / grid.spacing_mm[2] - _ROUNDING))
        used = np.flatnonzero(np.any([amount.any(axis=(0, 1)) for amount in amounts.values()], axis=0))
        low, high = max(int(used[0]) - margin, 0), min(int(used[-1]) + 1 + margin, available)
        lacking = max(self.min_slices - (high - low), 0)
        # Half of what is lacking goes below; within the CT where it can, else evenly beyond both ends.
        low -= lacking // 2
        size = high - low + lacking - lacking // 2
        if size <= available:
            low = min(max(low, 0), available - size)
        elif lacking:
            low = -((size - available) // 2)
        return low, size

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "kind": self.kind,
            "inplane_size": self.inplane_size,
            "z_margin_mm": float(self.z_margin_mm),
            "min_slices": self.min_slices,
            "center": list(self.center),
        }


@dataclass(frozen=True)
class AsStored:
    """The grid of the files, whole."""

    kind: ClassVar[str] = "as_stored"

    def window(self, grid: VoxelGrid, amounts: Amounts) -> Window:
        """Return the box of everything; `amounts` do not matter."""
        return Window((0, 0, 0), grid.shape)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"kind": self.kind}


@dataclass(frozen=True)
class FixedGrid:
    """A grid of one size for every case, laid around the target: CT and dose are interpolated, contours drawn on it.

    Its middle is the centroid of the first structure of `center` that is there.
    """

    kind: ClassVar[str] = "fixed"

    shape: Sequence[Count]
    spacing_mm: Sequence[Positive]
    center: Sequence[str] = ("Prostate", "PTV70")

    def __post_init__(self) -> None:
        """Refuse what is no grid.

        Raises:
            ConfigurationError: Names the key.
        """
        for key, values in (("shape", self.shape), ("spacing_mm", self.spacing_mm)):
            if len(values) != _AXES:
                raise ConfigurationError(f"dataset.grid.{key}: expected three values along i, j, k, got {list(values)}")

    def lattice(self, grid: VoxelGrid, amounts: Amounts) -> VoxelGrid:
        """Return the new grid; its axes run as those of `grid`.

        Raises:
            CaseError: None of the structures to center on is there.
        """
        middle = centroid(amounts, self.center)
        affine = np.eye(4)
        affine[:3, :3] = grid.affine[:3, :3] / np.array(grid.spacing_mm) * np.array(self.spacing_mm, dtype=np.float64)
        i, j, k = (int(size) for size in self.shape)
        world = grid.affine[:3, :3] @ middle + grid.affine[:3, 3]
        affine[:3, 3] = world - affine[:3, :3] @ (np.array([i, j, k]) - 1.0) / 2.0
        return VoxelGrid((i, j, k), affine)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "kind": self.kind,
            "shape": [int(size) for size in self.shape],
            "spacing_mm": [float(size) for size in self.spacing_mm],
            "center": list(self.center),
        }


DoseGrid: TypeAlias = NativeCrop | AsStored | FixedGrid
_GRIDS = {grid.kind: grid for grid in (NativeCrop, AsStored, FixedGrid)}


def grid_from_json(record: Mapping[str, Any]) -> DoseGrid:
    """Read what a grid's `to_json` wrote."""
    return _GRIDS[record["kind"]](**{name: value for name, value in record.items() if name != "kind"})


def centroid(amounts: Amounts, structures: Sequence[str]) -> Float64[np.ndarray, "3"]:
    """Return the centroid, in voxels, of the first of `structures` that is there.

    Raises:
        CaseError: None is.
    """
    amount = next((amounts[name] for name in structures if name in amounts and amounts[name].any()), None)
    if amount is None:
        message = f"expected one of {', '.join(structures)} to center the grid on, got {', '.join(amounts) or 'none'}"
        raise CaseError(f"{message}; contour it or change dataset.grid.center")
    result = np.empty(_AXES)
    for axis in range(_AXES):
        others = tuple(other for other in range(_AXES) if other != axis)
        profile = amount.sum(axis=others, dtype=np.float64)
        result[axis] = profile @ np.arange(len(profile)) / profile.sum()
    return result

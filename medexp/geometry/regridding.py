"""Put values on another grid along the same axes: lines first, one axis after the other.

Between voxel centers values are interpolated, linearly or by cubic B-splines; beyond the outermost centers nothing is
known and the fill value stands. On a grid of the same voxel centers the values themselves come back.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, Num
from scipy import ndimage, sparse

from medexp.errors import GridMismatchError
from medexp.geometry.affine import Shape

Order = Literal[1, 3]

_SAME_VOXELS = 1e-3  # positions that differ by less are one
_OBLIQUE = 1e-4  # of a voxel's size


def resample_to(
    values: Num[np.ndarray, "i j k"],
    affine: Float64[np.ndarray, "4 4"],
    target_affine: Float64[np.ndarray, "4 4"],
    target_shape: Shape,
    *,
    order: int,
    fill: float = 0.0,
) -> Float32[np.ndarray, "target_i target_j target_k"]:
    """Interpolate values at the voxel centers of another grid.

    B-splines (order 3) go through the values at voxel centers and may swing over in between: the result is clipped to
    the range of the values, so that a dose stays at or above 0.

    Args:
        values: On the grid of `affine`.
        affine: Voxel centers -> world, mm.
        target_affine: Of the grid that is asked for; its axes run along those of `affine`, or against them.
        target_shape: Of that grid.
        order: 1 linear, 3 cubic B-splines.
        fill: Beyond the outermost voxel centers of the source.

    Raises:
        GridMismatchError: The axes of one grid are oblique to those of the other.
        ValueError: There is no such order.
    """
    if order not in (1, 3):
        raise ValueError(f"order: expected 1 (linear) or 3 (cubic B-splines), got {order}")
    axes = [
        _Axis.of(source_size, positions, order)
        for source_size, positions in zip(values.shape, _positions(affine, target_affine, target_shape), strict=True)
    ]
    result = np.full(target_shape, fill, np.float32)
    if not values.size or not all(axis.covered.any() for axis in axes):
        return result
    inside = values.astype(np.float32)
    for number in sorted(range(3), key=lambda number: axes[number].growth):  # small arrays first
        inside = axes[number].along(inside, number)
    np.clip(inside, values.min(), values.max(), out=inside)
    result[tuple(_span(axis.covered) for axis in axes)] = inside
    return result


def share_outside(
    mask: Bool[np.ndarray, "i j k"],
    affine: Float64[np.ndarray, "4 4"],
    source_affine: Float64[np.ndarray, "4 4"],
    source_shape: Shape,
) -> float:
    """Return the share of a mask's voxels at which `resample_to` has no value of the source; NaN of an empty mask.

    Raises:
        GridMismatchError: The axes of one grid are oblique to those of the other.
    """
    total = int(mask.sum())
    if not total:
        return float("nan")
    positions = _positions(source_affine, affine, _shape_of(mask))
    covered = [_covered(size, place) for size, place in zip(source_shape, positions, strict=True)]
    return 1.0 - int(mask[np.ix_(*covered)].sum()) / total


def _shape_of(mask: Bool[np.ndarray, "i j k"]) -> Shape:
    i, j, k = mask.shape
    return (i, j, k)


def _positions(
    source: Float64[np.ndarray, "4 4"], target: Float64[np.ndarray, "4 4"], target_shape: Shape
) -> list[Float64[np.ndarray, " n"]]:
    """Return, per axis, the voxel coordinates in the source of the target's voxel centers."""
    matrix = np.linalg.solve(source, target)
    steps = np.diag(matrix)[:3]
    if np.abs(matrix[:3, :3] - np.diag(steps)).max() > _OBLIQUE * np.abs(steps).min():
        message = "expected two grids along the same axes, got one turned against the other"
        raise GridMismatchError(f"{message}: {matrix[:3, :3].round(4).tolist()} source voxels per target voxel")
    places = zip(target_shape, steps, matrix[:3, 3], strict=True)
    return [np.arange(size) * step + start for size, step, start in places]


def _covered(source_size: int, positions: Float64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    return (positions >= -_SAME_VOXELS) & (positions <= source_size - 1 + _SAME_VOXELS)


def _span(covered: Bool[np.ndarray, " n"]) -> slice:
    places = np.flatnonzero(covered)
    return slice(int(places[0]), int(places[-1]) + 1)


@dataclass(frozen=True, eq=False)
class _Axis:
    """Interpolation along one axis: which targets lie within the source, and where."""

    covered: Bool[np.ndarray, " n"]
    positions: Float64[np.ndarray, " covered"]
    source_size: int
    order: int

    @classmethod
    def of(cls, source_size: int, positions: Float64[np.ndarray, " n"], order: int) -> "_Axis":
        covered = _covered(source_size, positions)
        return cls(covered, np.clip(positions[covered], 0.0, source_size - 1.0), source_size, order)

    @property
    def growth(self) -> float:
        return self.positions.size / self.source_size

    def along(self, values: Float[np.ndarray, "..."], axis: int) -> Float32[np.ndarray, "..."]:
        whole = np.rint(self.positions)
        if np.abs(self.positions - whole).max() < _SAME_VOXELS:
            return np.take(values, whole.astype(np.intp), axis=axis)
        if self.order == 3 and self.source_size > 1:
            values = ndimage.spline_filter1d(values, order=3, axis=axis, output=np.float32, mode="mirror")
        front = np.ascontiguousarray(np.moveaxis(values, axis, 0))
        result = self.matrix() @ front.reshape(len(front), -1)
        return np.moveaxis(result.reshape(-1, *front.shape[1:]), 0, axis)

    def matrix(self) -> sparse.csr_array:
        """Return what turns values (order 3: B-spline coefficients) on the source's line into those at the targets."""
        lower = np.minimum(np.floor(self.positions), max(self.source_size - 2, 0)).astype(np.int64)
        offset = self.positions - lower
        if self.order == 1:
            columns, weights = np.stack([lower, lower + 1]), np.stack([1.0 - offset, offset])
        else:
            columns, weights = lower + np.arange(-1, 3)[:, None], _cubic_weights(offset)
        rows = np.broadcast_to(np.arange(lower.size), columns.shape)
        entries = (weights.astype(np.float32).ravel(), (rows.ravel(), _mirrored(columns, self.source_size).ravel()))
        return sparse.csr_array(entries, shape=(lower.size, self.source_size))


def _cubic_weights(offset: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "4 n"]:
    """Return the cubic B-spline at the four centers around a position, `offset` behind the second of them.

    Source:
        Unser, "Splines: a perfect fit for signal and image processing", IEEE Signal Processing Magazine 16(6), 1999.
    """
    rest = 1.0 - offset
    return np.stack(
        [
            rest**3 / 6.0,
            2.0 / 3.0 - offset**2 + offset**3 / 2.0,
            2.0 / 3.0 - rest**2 + rest**3 / 2.0,
            offset**3 / 6.0,
        ]
    )


def _mirrored(columns: Int64[np.ndarray, "tap n"], size: int) -> Int64[np.ndarray, "tap n"]:
    """Reflect indices beyond the line about its outermost centers, as the filter does."""
    if size == 1:
        return np.zeros_like(columns)
    folded = np.abs(columns) % (2 * (size - 1))
    return np.minimum(folded, 2 * (size - 1) - folded)

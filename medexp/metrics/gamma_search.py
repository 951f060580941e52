"""The search for gamma, compiled: exact over the given points, and quick by leaving out what cannot win.

Around each voxel of the reference the cells of the evaluated dose are visited nearest first, until the next is farther
than the gamma found so far. A cell is searched only if its nearest point, taken with the dose of the cell that is
closest to the reference, could be better; inside it the same holds from one block of points to the next.

The module imports numba: import it where it is used. Threads are Python's, as the kernels release the lock: unlike
numba's own threads they survive a fork. `numba.set_num_threads` says how many; every number of them gives one result.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias, no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from medexp.metrics.gamma_points import SearchPoints

Dose: TypeAlias = Float[np.ndarray, "i j k"]
Coefficients: TypeAlias = tuple[float, ...]
Ranges: TypeAlias = Float[np.ndarray, " cell"]
Corner: TypeAlias = tuple[int, int, int]

_PLANES = 8  # that a task takes; memory for their neighborhood is little, and there are enough tasks to share out
# Points until the first look at whether the rest of a cell can still win; each following block has twice as many.
_FIRST_BLOCK = 32
_STEEPEST_PER_GY = 1e100  # the square of what a dose differs by in this unit is still a number
# Many voxels lie a hair beyond 1, as the search has points at just the distance criterion. Rounding to float32 must not
# let them pass, nor the last digits of float64 fail a dose that differs by just what is allowed.
_PASSES = 1 + 1e-12  # squared
_JUST_FAILS = np.nextafter(np.float32(1), np.float32(2))


class Bounds(NamedTuple):
    """What one search is bound to.

    Attributes:
        dose_share: The dose criterion as a share of the reference's dose at the voxel; 0: it is the same everywhere.
        dose_gy: The dose criterion where it is the same everywhere.
        limit: A squared gamma that is larger is not searched for, and counts as this.
        enough: The search of a voxel ends at a squared gamma as small as this.
    """

    dose_share: float
    dose_gy: float
    limit: float
    enough: float


def search(
    reference: Float[np.ndarray, "i j k"],
    evaluated: Float[np.ndarray, "i j k"],
    wanted: Bool[np.ndarray, "i j k"],
    points: SearchPoints,
    bounds: Bounds,
) -> Float32[np.ndarray, "i j k"]:
    """Return gamma where it is wanted, `nan` elsewhere; what is above 1 stays above it in single precision.

    Args:
        reference: Dose around whose voxels is searched; C order.
        evaluated: Dose that is interpolated; C order.
        wanted: Voxels to evaluate.
        points: Where to look.
        bounds: What is allowed, and where to end.
    """
    gamma = np.full(reference.shape, np.nan, dtype=np.float32)

    def search_planes(first: int) -> None:
        stop = min(first + _PLANES, reference.shape[0])
        if wanted[first:stop].any():
            _search_planes(reference, evaluated, wanted, points, bounds, first, stop, gamma)

    with ThreadPoolExecutor(max_workers=numba.get_num_threads()) as pool:
        list(pool.map(search_planes, range(0, reference.shape[0], _PLANES)))
    return gamma


def _compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile at the first call, and keep the result on disk where there is a folder that can be written to."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # numba found no such folder
            return numba.njit(nogil=True, **options)(function)

    return decorate


# numba compiles what Python wrote, not what a type checker has wrapped: hence `no_type_check`.


@_compiled(fastmath={"nsz", "contract", "reassoc"})
@no_type_check
def _least_in_block(points: SearchPoints, start: int, stop: int, coefficients: Coefficients, best: float) -> float:
    """Return the least of `best` and the squared gammas of some points of one cell.

    Floats that are not negative sort like their bits. The least of integers is found many at a time; that of floats
    is not, as the order of NaN has to be minded.
    """
    c, cx, cy, cz, cxy, cxz, cyz, cxyz = coefficients
    least = np.float64(best).view(np.int64)
    x, y, z, squared = points.x, points.y, points.z, points.squared
    for n in range(np.uint64(start), np.uint64(stop)):
        dose = c + x[n] * (cx + y[n] * (cxy + z[n] * cxyz) + z[n] * cxz) + y[n] * (cy + z[n] * cyz) + z[n] * cz
        least = min(least, np.float64(dose * dose + squared[n]).view(np.int64))
    return np.int64(least).view(np.float64)


@_compiled()
@no_type_check
def _coefficients(evaluated: Dose, i: int, j: int, k: int, dose: float, per_gy: float) -> Coefficients:
    """Return linear interpolation in a cell as a polynomial of the position, of what a dose differs by."""
    f000, f001 = (evaluated[i, j, k] - dose) * per_gy, (evaluated[i, j, k + 1] - dose) * per_gy
    f010, f011 = (evaluated[i, j + 1, k] - dose) * per_gy, (evaluated[i, j + 1, k + 1] - dose) * per_gy
    f100, f101 = (evaluated[i + 1, j, k] - dose) * per_gy, (evaluated[i + 1, j, k + 1] - dose) * per_gy
    f110, f111 = (evaluated[i + 1, j + 1, k] - dose) * per_gy, (evaluated[i + 1, j + 1, k + 1] - dose) * per_gy
    return (
        f000,
        f100 - f000,
        f010 - f000,
        f001 - f000,
        f110 - f100 - f010 + f000,
        f101 - f100 - f001 + f000,
        f011 - f010 - f001 + f000,
        f111 - f110 - f101 - f011 + f100 + f010 + f001 - f000,
    )


@_compiled()
@no_type_check
def _search_cell(
    coefficients: Coefficients, points: SearchPoints, start: int, stop: int, gap: float, best: float
) -> float:
    """Return the least of `best` and the squared gammas of a cell, whose doses alone add `gap` at least."""
    size = _FIRST_BLOCK
    while start < stop and points.squared[start] + gap < best:
        end = min(stop, start + size)
        best = _least_in_block(points, start, end, coefficients, best)
        start, size = end, 2 * size
    return best


@_compiled()
@no_type_check
def _dose_ranges(evaluated: Dose, start: Corner, shape: Corner) -> tuple[Dose, Dose]:
    """Return the lowest and the highest dose of each cell in a box that may reach beyond the grid.

    A cell off the grid has a range that no dose is near to: none is ever searched, and nobody needs to ask.
    """
    low, high = np.empty(shape, evaluated.dtype), np.empty(shape, evaluated.dtype)
    low[:], high[:] = np.inf, -np.inf
    ni, nj, nk = evaluated.shape
    for i in range(max(start[0], 0), min(start[0] + shape[0], ni - 1)):
        for j in range(max(start[1], 0), min(start[1] + shape[1], nj - 1)):
            for k in range(max(start[2], 0), min(start[2] + shape[2], nk - 1)):
                lowest = highest = evaluated[i, j, k]
                for di in range(2):
                    for dj in range(2):
                        for dk in range(2):
                            value = evaluated[i + di, j + dj, k + dk]
                            lowest, highest = min(lowest, value), max(highest, value)
                low[i - start[0], j - start[1], k - start[2]] = lowest
                high[i - start[0], j - start[1], k - start[2]] = highest
    return low, high


@_compiled()
@no_type_check
def _search_around(
    evaluated: Dose,
    low: Ranges,
    high: Ranges,
    steps: Int64[np.ndarray, " cell"],
    here: int,
    voxel: Corner,
    dose: float,
    per_gy: float,
    points: SearchPoints,
    bounds: Bounds,
) -> float:
    """Return the squared gamma of a voxel, whose cell is `here` in the ranges; the others are some steps away."""
    i, j, k = voxel
    best = min(bounds.limit, ((evaluated[i, j, k] - dose) * per_gy) ** 2)
    if best <= bounds.enough:
        return best
    for n in range(steps.shape[0]):
        if points.nearest[n] >= best:
            break
        there = here + steps[n]
        gap = (max(low[there] - dose, dose - high[there], 0.0) * per_gy) ** 2
        if points.nearest[n] + gap < best:
            ci, cj, ck = i + points.cells[n, 0], j + points.cells[n, 1], k + points.cells[n, 2]
            coefficients = _coefficients(evaluated, ci, cj, ck, dose, per_gy)
            best = _search_cell(coefficients, points, points.starts[n], points.starts[n + 1], gap, best)
            if best <= bounds.enough:
                break
    return best


@_compiled()
@no_type_check
def _search_planes(
    reference: Dose,
    evaluated: Dose,
    wanted: Bool[np.ndarray, "i j k"],
    points: SearchPoints,
    bounds: Bounds,
    first: int,
    stop: int,
    gamma: Float32[np.ndarray, "i j k"],
) -> None:
    """Write gamma into some planes."""
    _, nj, nk = reference.shape
    cells = points.cells
    start = (first + cells[:, 0].min(), cells[:, 1].min(), cells[:, 2].min())
    shape = (
        stop + cells[:, 0].max() - start[0],
        nj + cells[:, 1].max() - start[1],
        nk + cells[:, 2].max() - start[2],
    )
    low, high = _dose_ranges(evaluated, start, shape)
    low, high = low.ravel(), high.ravel()
    steps = (cells[:, 0] * shape[1] + cells[:, 1]) * shape[2] + cells[:, 2]
    for i in range(first, stop):
        for j in range(nj):
            for k in range(nk):
                if wanted[i, j, k]:
                    dose = np.float64(reference[i, j, k])
                    allowed_gy = bounds.dose_share * dose if bounds.dose_share > 0 else bounds.dose_gy
                    per_gy = min(1 / allowed_gy, _STEEPEST_PER_GY)
                    here = ((i - start[0]) * shape[1] + j - start[1]) * shape[2] + k - start[2]
                    best = _search_around(evaluated, low, high, steps, here, (i, j, k), dose, per_gy, points, bounds)
                    gamma[i, j, k] = np.sqrt(best)
                    if best <= _PASSES:
                        gamma[i, j, k] = min(gamma[i, j, k], 1)
                    else:
                        gamma[i, j, k] = max(gamma[i, j, k], _JUST_FAILS)

"""Affines: voxel indices -> world millimeters in RAS+ (x to the right, y to the front, z up)."""

import numpy as np
from jaxtyping import Float64

_CODES = ("LR", "PA", "IS")  # world axes x y z: the letter of the negative, then of the positive direction

Axes = tuple[int, int, int]
Flips = tuple[bool, bool, bool]
Shape = tuple[int, int, int]


def spacing_mm(affine: Float64[np.ndarray, "4 4"]) -> tuple[float, float, float]:
    """Return the voxel size along the axes i, j, k."""
    i, j, k = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return (float(i), float(j), float(k))


def closest_axes(affine: Float64[np.ndarray, "4 4"]) -> tuple[Axes, Flips]:
    """Return which voxel axis runs closest to each of x, y, z, and whether it runs against it.

    Every voxel axis is used once; nibabel decides where two of them run closest to the same direction.
    """
    import nibabel as nib  # here, because images in 2D never need it

    world_of, signs = nib.io_orientation(affine).T
    x, y, z = (int(axis) for axis in np.argsort(world_of))
    return (x, y, z), (bool(signs[x] < 0), bool(signs[y] < 0), bool(signs[z] < 0))


def orientation(affine: Float64[np.ndarray, "4 4"]) -> str:
    """Return the three letters of the directions in which i, j and k grow, for example `LPS`."""
    axes, flips = closest_axes(affine)
    letters = {axis: _CODES[world][0 if flips[world] else 1] for world, axis in enumerate(axes)}
    return "".join(letters[axis] for axis in range(3))


def native_from_canonical(shape: Shape, axes: Axes, flips: Flips) -> Float64[np.ndarray, "4 4"]:
    """Return the matrix from voxels of the RAS+ array to voxels of the array as it was stored."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1.0
    for world, axis in enumerate(axes):
        matrix[axis, world] = -1.0 if flips[world] else 1.0
        matrix[axis, 3] = shape[axis] - 1.0 if flips[world] else 0.0
    return matrix


def corner_distance_mm(
    first: Float64[np.ndarray, "4 4"], second: Float64[np.ndarray, "4 4"], shape: tuple[int, ...]
) -> float:
    """Return how far apart the two affines put the worst of the eight corner voxels."""
    corners = np.stack(np.meshgrid(*[(0.0, size - 1.0) for size in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    homogeneous = np.concatenate([corners, np.ones((8, 1))], axis=1)
    moved = homogeneous @ (first - second).T
    return float(np.sqrt((moved[:, :3] ** 2).sum(axis=1)).max())

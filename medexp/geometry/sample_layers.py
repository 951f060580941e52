"""Layers of sample points in voxel indices, finer than the voxels, and those of a structure known on a grid only.

Points in the middle of small cells would share a coordinate by the thousand, and a dose that changes along that axis
would come in steps. So every point is moved within its cell, to the places of a sequence that fills the unit square
evenly: layers as a whole along i and j, points of a layer along k.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, Int64

Integers: TypeAlias = Int64[np.ndarray, "..."] | int


@dataclass(frozen=True, eq=False)
class SampleLayer:
    """Points of a lattice in one plane, and how much of the structure each stands for.

    Attributes:
        i: Of the points, in voxel indices.
        j: Likewise.
        k: Of the layer's middle, in voxel indices.
        shifts_k: Of the points from the middle, in voxel indices.
        volumes_cc: Of the structure around each point; 0 outside.
        cell_cc: Of a cell that lies inside the structure.
    """

    i: Float64[np.ndarray, " row"]
    j: Float64[np.ndarray, " column"]
    k: float
    shifts_k: Float64[np.ndarray, "row column"]
    volumes_cc: Float32[np.ndarray, "row column"]
    cell_cc: float


def voxel_layers(
    shares: Float32[np.ndarray, "i j k"], origin: tuple[int, int, int], voxel_cc: float, *, refine: int
) -> Iterator[SampleLayer]:
    """Divide voxels into `refine` cells along each axis, which share what the voxel holds; 1 leaves them whole.

    Args:
        shares: Of the voxels inside the structure, from 0 to 1.
        origin: Index of the first of these voxels in the volume.
        voxel_cc: Volume of a voxel.
        refine: Cells along each axis.
    """
    i, j, k = (
        first - 0.5 + (np.arange(refine * size) + 0.5) / refine
        for first, size in zip(origin, shares.shape, strict=True)
    )
    cell_cc = voxel_cc / refine**3
    shifts_k = evenly_spread(np.arange(len(i))[:, None], np.arange(len(j))) / refine
    for number, middle in enumerate(k):
        if number % refine == 0:  # layers of one slice of voxels
            held_cc = shares[:, :, number // refine] * np.float32(cell_cc)
            volumes_cc = held_cc.repeat(refine, axis=0).repeat(refine, axis=1)
        yield SampleLayer(
            i=i + evenly_spread(number, 0) / refine,
            j=j + evenly_spread(0, number) / refine,
            k=float(middle),
            shifts_k=shifts_k,
            volumes_cc=volumes_cc,
            cell_cc=cell_cc,
        )


def evenly_spread(first: Integers, second: Integers) -> Any:
    """Return numbers from -0.5 to 0.5 that fill the interval evenly over any run of either index.

    Source:
        The generalized golden ratio of Roberts, "The unreasonable effectiveness of quasirandom sequences" (2018).
    """
    return (0.5 + first * 0.7548776662466927 + second * 0.5698402909980532) % 1.0 - 0.5

"""Connected components of masks, and components joined by dilation, each kept in a box around its mask."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from jaxtyping import Bool, Int32, Integer
from scipy import ndimage

from medexp.metrics.grids import Box, bounding_box, common, grown, is_empty

# Neighbors across a face or an edge (18 in a volume), without those across corners and the voxel itself.
_FACES_AND_EDGES = [offset for offset in product((-1, 0, 1), repeat=3) if 1 <= sum(map(abs, offset)) <= 2]


@dataclass(frozen=True, eq=False)
class LesionMap:
    """Numbered lesions of one mask inside a box of a larger grid.

    Attributes:
        box: Where the arrays lie in the grid.
        lesions: Number of the lesion that a voxel belongs to, 0 outside the mask.
        zones: The same numbers, spread over the dilated lesions.
        count: The largest number that can occur; numbers may be missing.
    """

    box: Box
    lesions: Int32[np.ndarray, "i j k"]
    zones: Int32[np.ndarray, "i j k"]
    count: int

    @property
    def origin(self) -> tuple[int, ...]:
        """Position of the first voxel of the box in the grid."""
        return tuple(side.start for side in self.box)

    @cached_property
    def num_voxels(self) -> Integer[np.ndarray, " number"]:
        """Number of voxels of each lesion; the first entry is the background of the box."""
        return np.bincount(self.lesions.ravel(), minlength=self.count + 1)

    def numbers(self) -> list[int]:
        """Return the numbers in use, ascending."""
        return [int(number) for number in np.flatnonzero(self.num_voxels[1:]) + 1]

    def renumbered(self, new_numbers: Integer[np.ndarray, " number"]) -> "LesionMap":
        """Return the map with number n replaced by `new_numbers[n]`; 0 removes a lesion."""
        table = new_numbers.astype(np.int32)
        if np.array_equal(table, np.arange(self.count + 1)):
            return self
        lesions = table[self.lesions]
        zones = lesions if self.zones is self.lesions else table[self.zones]
        return replace(self, lesions=lesions, zones=zones, count=int(table.max()))

    def without_zones(self) -> "LesionMap":
        """Return the map with the lesions themselves as zones, which saves their memory."""
        return replace(self, zones=self.lesions)


def label_components(mask: Bool[np.ndarray, "i j k"]) -> tuple[Int32[np.ndarray, "i j k"], int]:
    """Number the 26-connected components in the order of their first voxels (last axis fastest), from 1."""
    if mask.size == 0:
        return np.zeros(mask.shape, dtype=np.int32), 0
    numbers, count = ndimage.label(mask, structure=np.ones((3, 3, 3), dtype=bool))
    return numbers, int(count)


def components(mask: Bool[np.ndarray, "i j k"]) -> LesionMap:
    """Return the plain 26-connected components of a mask; its zones are the components themselves."""
    box = bounding_box(mask)
    numbers, count = label_components(mask[box])
    return LesionMap(box, numbers, numbers, count)


def components_joined_by_dilation(mask: Bool[np.ndarray, "i j k"], iterations: int) -> LesionMap:
    """Number the lesions of a mask; parts whose dilations are connected are one lesion.

    The zones are the components of the dilated mask. They are also the dilations of the single lesions: what a
    lesion reaches lies in its own zone.

    Args:
        mask: The mask; its dilation stops at the borders of the array.
        iterations: Dilation steps with the 18-neighborhood.
    """
    box = grown(bounding_box(mask), iterations, mask.shape)
    inside = mask[box]
    zones, count = label_components(dilated(inside, iterations))
    return LesionMap(box, np.where(inside, zones, np.int32(0)), zones, count)


def dilated(mask: Bool[np.ndarray, "i j k"], iterations: int) -> Bool[np.ndarray, "i j k"]:
    """Dilate with the 18-neighborhood: steps across faces and edges, not across corners.

    The neighborhood is the union of three 3x3 squares, one in each plane, and a square is a line along a line.
    """
    for _ in range(iterations if mask.size else 0):
        along_i, along_j = _spread(mask, 0), _spread(mask, 1)
        mask = _spread(along_i, 1) | _spread(along_i, 2) | _spread(along_j, 2)
    return mask


def touching_pairs(first: LesionMap, second: LesionMap) -> set[tuple[int, int]]:
    """Return the pairs of lesions (first, second) that are 18-neighbors somewhere.

    Both boxes must reach at least one voxel beyond their mask, or to the border of the grid, as those of
    `components_joined_by_dilation` do.
    """
    in_first, in_second = common(first.box, second.box)
    if is_empty(in_first):
        return set()
    own, other = first.lesions[in_first], np.pad(second.lesions[in_second], 1)
    near = np.nonzero(dilated(other > 0, 1)[1:-1, 1:-1, 1:-1] & (own > 0))
    pairs: set[tuple[int, int]] = set()
    for offset in _FACES_AND_EDGES:
        neighbors = other[tuple(axis + step + 1 for axis, step in zip(near, offset, strict=True))]
        pairs |= number_pairs(own[near], neighbors).keys()
    return pairs


def overlapping_pairs(first: Int32[np.ndarray, "..."], second: Int32[np.ndarray, "..."]) -> dict[tuple[int, int], int]:
    """Return the pairs of numbers that share voxels, and how many; 0 is no number."""
    chosen = np.flatnonzero((first != 0) & (second != 0))
    return number_pairs(first.ravel()[chosen], second.ravel()[chosen])


def number_pairs(first: Int32[np.ndarray, " point"], second: Int32[np.ndarray, " point"]) -> dict[tuple[int, int], int]:
    """Return the pairs (first, second) with a second number that is not 0, and how often they occur."""
    width = int(second.max(initial=0)) + 1
    codes, counts = np.unique(first.astype(np.int64) * width + second, return_counts=True)
    return {divmod(int(code), width): int(count) for code, count in zip(codes, counts, strict=True) if code % width}


def _spread(mask: Bool[np.ndarray, "i j k"], axis: int) -> Bool[np.ndarray, "i j k"]:
    spread = mask.copy()
    target, source = np.moveaxis(spread, axis, 0), np.moveaxis(mask, axis, 0)
    target[1:] |= source[:-1]
    target[:-1] |= source[1:]
    return spread

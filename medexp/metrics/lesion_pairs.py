"""Lesions of a reference against those of a prediction: who belongs to whom, and how well they agree."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from medexp.metrics.components import LesionMap, overlapping_pairs
from medexp.metrics.grids import common
from medexp.metrics.lesion_surfaces import Numbers, lesion_corners, lesion_voxels
from medexp.metrics.surface import distances_between, robust_hausdorff_mm
from medexp.metrics.surface_points import SurfacePoints, corner_surface


class LesionPairs:
    """The lesions of one region in a reference and a prediction."""

    def __init__(
        self,
        predicted: LesionMap,
        referred: LesionMap,
        spacing_mm: tuple[float, ...],
        nsd_tolerances_mm: tuple[float, ...],
    ) -> None:
        self._maps = predicted, referred
        self._spacing_mm = spacing_mm
        self._tolerances_mm = nsd_tolerances_mm
        in_predicted, in_referred = common(predicted.box, referred.box)
        shared = predicted.lesions[in_predicted]
        self._overlaps = _by_first(overlapping_pairs(referred.lesions[in_referred], shared))
        self._reached = _by_first(overlapping_pairs(referred.zones[in_referred], shared))
        self._corners = [lesion_corners(lesion_map, spacing_mm) for lesion_map in self._maps]
        self._voxels = [lesion_voxels(lesion_map, spacing_mm, connectivity=1) for lesion_map in self._maps]
        self._hd95_mm: dict[tuple[Numbers, Numbers], float] = {}
        self._nsd: dict[tuple[Numbers, Numbers], dict[float, float]] = {}

    @property
    def all_predicted(self) -> Numbers:
        """Every predicted lesion."""
        return frozenset(self._maps[0].numbers())

    @property
    def all_referred(self) -> Numbers:
        """Every reference lesion."""
        return frozenset(self._maps[1].numbers())

    @property
    def num_shared_voxels(self) -> int:
        """Voxels that are foreground in both."""
        return sum(sum(shared.values()) for shared in self._overlaps.values())

    def num_predicted_voxels(self, predicted: Numbers) -> int:
        """Return the size of these predicted lesions together."""
        return int(self._maps[0].num_voxels[list(predicted)].sum())

    def num_referred_voxels(self, referred: Numbers) -> int:
        """Return the size of these reference lesions together."""
        return int(self._maps[1].num_voxels[list(referred)].sum())

    def partners(self, referred: int) -> Numbers:
        """Return the predicted lesions that reach into the zone of a reference lesion, be it by one voxel."""
        return frozenset(self._reached.get(referred, {}))

    def dice(self, predicted: Numbers, referred: Numbers) -> float:
        """Return the Dice of these lesions taken together; 1 if there are none on either side."""
        overlaps = [self._overlaps.get(own, {}) for own in referred]
        shared = sum(count for counts in overlaps for other, count in counts.items() if other in predicted)
        sizes = self.num_predicted_voxels(predicted) + self.num_referred_voxels(referred)
        return 2 * shared / sizes if sizes else 1.0

    def hd95_mm(self, predicted: Numbers, referred: Numbers) -> float:
        """Return the HD95 of these lesions taken together; 0 if there are none, `inf` if one side has none."""
        key = predicted, referred
        if not predicted or not referred:
            return 0.0 if predicted == referred else float("inf")
        if key not in self._hd95_mm:  # with one lesion in each, the whole mask asks the same
            surfaces = self._corners[0].of(predicted), self._corners[1].of(referred)
            self._hd95_mm[key] = robust_hausdorff_mm(distances_between(*surfaces))
        return self._hd95_mm[key]

    def nsd(self, predicted: Numbers, referred: Numbers) -> dict[float, float]:
        """Return nnU-Net's surface Dice of these lesions by tolerance; 1 if there are none, 0 if one side has none."""
        key = predicted, referred
        if not predicted or not referred:
            return dict.fromkeys(self._tolerances_mm, float(predicted == referred))
        if key not in self._nsd:
            surfaces = self._voxels[0].of(predicted), self._voxels[1].of(referred)
            self._nsd[key] = _mean_share_within(*surfaces, tolerances_mm=self._tolerances_mm)
        return self._nsd[key]

    def hd95_on_numbers_mm(self) -> float:
        """Return the HD95 of the numbered maps where masks were meant.

        Theirs: the neighbor codes are computed on the numbers as bytes, so that with two lesions the whole inside
        of the second counts as surface, and a lesion of number 256 does not exist. With lesion number 1
        alone on each side it is the HD95 of the masks.
        """
        if all(lesion_map.count <= 1 for lesion_map in self._maps):
            return self.hd95_mm(self.all_predicted, self.all_referred)
        predicted, referred = (
            corner_surface(lesion_map.lesions.astype(np.uint8), self._spacing_mm, lesion_map.origin)
            for lesion_map in self._maps
        )
        distance = robust_hausdorff_mm(distances_between(predicted, referred))
        return float("inf") if np.isnan(distance) else distance  # nan: the bytes left no surface on either side


def _by_first(pairs: Mapping[tuple[int, int], int]) -> dict[int, dict[int, int]]:
    """Turn {(first, second): count} into {first: {second: count}}."""
    grouped: dict[int, dict[int, int]] = {}
    for (first, second), count in pairs.items():
        grouped.setdefault(first, {})[second] = count
    return grouped


def _mean_share_within(
    first: SurfacePoints, second: SurfacePoints, tolerances_mm: tuple[float, ...]
) -> dict[float, float]:
    """Return nnU-Net's surface Dice: the mean of the shares of both surfaces within each tolerance.

    Source:
        MIC-DKFZ/nnUNet (version 1), `evaluation/surface_dice.py`, with its 1e-8 in the denominator; its surface
        distances are those of MedPy.
    """
    if not tolerances_mm:
        return {}
    farthest = max(tolerances_mm)
    forth, back = first.distances_to(second, farthest), second.distances_to(first, farthest)
    return {
        tolerance: (_share(forth, tolerance) + _share(back, tolerance)) / (2.0 + 1e-8) for tolerance in tolerances_mm
    }


def _share(distances_mm: Float[np.ndarray, " point"], tolerance_mm: float) -> float:
    return int(np.count_nonzero(distances_mm <= tolerance_mm)) / len(distances_mm)

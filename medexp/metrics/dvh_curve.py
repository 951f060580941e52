"""Cumulative dose-volume histograms (DVHs) and their points.

Definitions, for samples (voxels or finer) that each stand for a volume:

- V_x is the share or volume of the structure with a dose of x or more: samples are counted, nothing is interpolated.
- D_p is the minimum dose to the hottest p percent. A sample stands in the middle of its volume: ordered from the
  hottest down, the dose is linear between the middles, and constant from the last middle to the end.
- D_cc likewise, for a volume in cc; of a structure that is smaller, it is the minimum.
- Mean, minimum and maximum are those of the samples; the mean is weighted by volume. A sample of which less than half
  lies inside counts with its volume, but its dose, taken in its middle, is no minimum or maximum.

No sample is rounded to a bin. Doses are put into 4096 bins only to be found again quickly: a point is computed from the
samples of the few bins around it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import SupportsFloat

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, UInt16

RELIABLE_VOXELS = 100  # below, points of a DVH depend on how the voxels happen to lie
_BINS = 4096
_AT_ONCE = 65_536


@dataclass(frozen=True, eq=False)
class Dvh:
    """The doses in one structure.

    Attributes:
        doses_gy: Of the samples, in any order.
        volumes_cc: Of each sample, or one volume for all.
        num_voxels: Voxels of the dose grid that the structure holds.
        mostly_inside: Samples of which at least half lies inside; None: all.
    """

    doses_gy: Float[np.ndarray, " sample"]
    volumes_cc: Float64[np.ndarray, " sample"] | float
    num_voxels: int
    mostly_inside: Bool[np.ndarray, " sample"] | None = None

    @property
    def is_reliable(self) -> bool:
        """Say whether the structure has enough voxels for its points to mean something."""
        return self.num_voxels >= RELIABLE_VOXELS

    @cached_property
    def volume_cc(self) -> float:
        """Volume of the structure."""
        if isinstance(self.volumes_cc, float):
            return self.volumes_cc * len(self.doses_gy)
        return float(self.volumes_cc.sum())

    @cached_property
    def minimum_gy(self) -> float:
        """Lowest dose."""
        return float(self._inner_gy.min())

    @cached_property
    def maximum_gy(self) -> float:
        """Highest dose."""
        return float(self._inner_gy.max())

    @cached_property
    def mean_gy(self) -> float:
        """Mean dose by volume."""
        if isinstance(self.volumes_cc, float):
            return float(self.doses_gy.mean(dtype=np.float64))
        return float((self.volumes_cc * self.doses_gy).sum() / self.volume_cc)  # a BLAS product would start threads

    def dose_at_volume_percent(self, percent: SupportsFloat) -> float:
        """Return D_p: the minimum dose to the hottest `percent` of the volume.

        Raises:
            ValueError: Not between 0 and 100.
        """
        share = float(percent)
        if not 0 <= share <= 100:
            raise ValueError(f"expected a share of the volume from 0 to 100 percent, got {share:g}")
        return self._dose_at(self.volume_cc * share / 100)

    def dose_at_volume_cc(self, volume_cc: SupportsFloat) -> float:
        """Return the minimum dose to the hottest `volume_cc`; the minimum, if the structure is no larger.

        Raises:
            ValueError: Negative.
        """
        volume = float(volume_cc)
        if not volume >= 0:
            raise ValueError(f"expected a volume of 0 cc or more, got {volume:g}")
        return self.minimum_gy if volume >= self.volume_cc else self._dose_at(volume)

    def volume_cc_at_dose(self, dose_gy: SupportsFloat) -> float:
        """Return the volume that receives `dose_gy` or more."""
        limit = self.doses_gy.dtype.type(float(dose_gy))  # 66.6 as float32 is less than 66.6: compare like with like
        lowest, highest = self._range
        if limit <= lowest:
            return self.volume_cc
        if limit > highest:
            return 0.0
        index = int(self._bin_of(np.array([limit], dtype=self.doses_gy.dtype))[0])
        doses, volumes = self._samples(index, index)
        return float(self._volume_above[index + 1] + volumes[doses >= limit].sum())

    def volume_percent_at_dose(self, dose_gy: SupportsFloat) -> float:
        """Return V_x: the share of the volume that receives `dose_gy` or more, in percent."""
        return 100 * self.volume_cc_at_dose(dose_gy) / self.volume_cc

    def curve(self, doses_gy: Float[np.ndarray, " point"]) -> Float64[np.ndarray, " point"]:
        """Return the cumulative DVH in percent at these doses."""
        order = np.argsort(self.doses_gy)
        volumes = np.broadcast_to(np.float64(self.volumes_cc), self.doses_gy.shape)[order]
        below = np.concatenate([[0.0], np.cumsum(volumes)])
        limits = doses_gy.astype(self.doses_gy.dtype)
        percent: Float64[np.ndarray, " point"] = 100 * (
            1 - below[np.searchsorted(self.doses_gy[order], limits, side="left")] / below[-1]
        )
        return percent

    def _dose_at(self, volume_cc: float) -> float:
        """Return the dose where the volume of the hotter part reaches `volume_cc`."""
        if isinstance(self.volumes_cc, float):
            return self._dose_at_place(len(self.doses_gy) - 0.5 - volume_cc / self.volumes_cc)
        above, filled = self._volume_above, self._filled
        # The last bin, from the hottest down, whose hotter bins hold no more than the volume; then its neighbors.
        position = int(np.searchsorted(-above[filled + 1], -volume_cc, side="left"))
        low, high = filled[max(position - 1, 0)], filled[min(position + 1, len(filled) - 1)]
        doses, volumes = self._samples(int(low), int(high))
        order = np.argsort(-doses)
        doses, volumes = doses[order], volumes[order]
        middles = above[high + 1] + np.cumsum(volumes) - volumes / 2
        return float(np.interp(volume_cc, middles, doses))

    def _dose_at_place(self, place: float) -> float:
        """Return the dose at a place among the samples in rising order, counted from 0; between two, linearly."""
        last = len(self.doses_gy) - 1
        place = min(max(place, 0.0), float(last))
        ranks = np.array([int(place), min(int(place) + 1, last)])
        below = np.cumsum(self._counts)
        low, high = np.searchsorted(below, ranks, side="right")
        doses, _ = self._samples(int(low), int(high))
        ranks -= below[low] - self._counts[low]
        lower, upper = np.partition(doses, ranks)[ranks]  # bins of low dose may hold most of a body: no sorting
        return float(lower + (place % 1.0) * (upper - lower))

    def _samples(self, low: int, high: int) -> tuple[Float64[np.ndarray, " found"], Float64[np.ndarray, " found"]]:
        """Return dose and volume of the samples in the bins from `low` to `high`."""
        found = np.flatnonzero((self._bins >= low) & (self._bins <= high))
        volumes = self.volumes_cc
        doses = self.doses_gy[found].astype(np.float64)
        return doses, np.full(len(found), volumes) if isinstance(volumes, float) else volumes[found]

    @cached_property
    def _inner_gy(self) -> Float[np.ndarray, " inner"]:
        inner = self.doses_gy if self.mostly_inside is None else self.doses_gy[self.mostly_inside]
        return inner if len(inner) else self.doses_gy

    @cached_property
    def _range(self) -> tuple[np.floating, np.floating]:
        return self.doses_gy.min(), self.doses_gy.max()

    def _bin_of(self, doses_gy: Float[np.ndarray, " value"]) -> UInt16[np.ndarray, " value"]:
        lowest, highest = self._range
        width = float(highest) - float(lowest)
        scale = doses_gy.dtype.type((_BINS - 1) / width if width > 1e-6 else 0)  # one dose: one bin
        return np.minimum((doses_gy - lowest) * scale, _BINS - 1).astype(np.uint16)

    @cached_property
    def _bins(self) -> UInt16[np.ndarray, " sample"]:
        bins = np.empty(len(self.doses_gy), dtype=np.uint16)
        for part in self._parts():
            bins[part] = self._bin_of(self.doses_gy[part])
        return bins

    @cached_property
    def _counts(self) -> Int64[np.ndarray, " bin"]:
        counts = np.zeros(_BINS + 1, dtype=np.int64)
        for part in self._parts():
            counts += np.bincount(self._bins[part], minlength=_BINS + 1)
        return counts

    @cached_property
    def _volume_per_bin(self) -> Float64[np.ndarray, " bin"]:
        if isinstance(self.volumes_cc, float):
            return self._counts * self.volumes_cc
        return np.bincount(self._bins, self.volumes_cc, minlength=_BINS + 1)

    def _parts(self) -> list[slice]:
        """Return runs of samples that stay in the processor's cache from one step to the next."""
        return [slice(start, start + _AT_ONCE) for start in range(0, len(self.doses_gy), _AT_ONCE)]

    @cached_property
    def _volume_above(self) -> Float64[np.ndarray, " edge"]:
        """Volume in each bin and all hotter ones; one more, 0, at the end."""
        return np.append(np.cumsum(self._volume_per_bin[::-1])[::-1], 0.0)

    @cached_property
    def _filled(self) -> Int64[np.ndarray, " filled"]:
        return np.flatnonzero(self._volume_per_bin)

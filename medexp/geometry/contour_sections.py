"""Cuts through a contoured structure anywhere between its planes: shape interpolation on a lattice."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Int32
from scipy import ndimage

from medexp.geometry.contour_planes import Section

_FAR_MM = 1e4  # distance where a plane has no outline on the lattice


@dataclass(frozen=True, eq=False)
class Sections:
    """Shares of the cells of a lattice inside the structure, for any cut.

    Attributes:
        shares: Of each plane (`medexp.geometry.polygon_filling`).
        step_mm: Size of the cells along i and j.
    """

    shares: Float32[np.ndarray, "i j plane"]
    step_mm: tuple[float, float]
    _distances: dict[int, Float32[np.ndarray, "i j"]] = field(default_factory=dict)  # planes asked for so far

    def share_of(self, section: Section) -> Float32[np.ndarray, "i j"]:
        """Return the share of each cell inside the structure, from 0 to 1."""
        if section.first == section.second or section.share == 0:
            return self.shares[:, :, section.first]
        first, second = self._distance(section.first), self._distance(section.second)
        mixed = first + np.float32(section.share) * (second - first)
        if section.share < 0:
            mixed = np.maximum(mixed, first)  # beyond an end plane a shape may shrink, not grow
        return np.clip(np.float32(0.5) - mixed / np.float32(_mean_step(self.step_mm)), 0, 1)

    def _distance(self, plane: int) -> Float32[np.ndarray, "i j"]:
        if plane not in self._distances:
            self._distances[plane] = outline_distance_mm(self.shares[:, :, plane], self.step_mm)
        return self._distances[plane]


def outline_distance_mm(shares: Float32[np.ndarray, "i j"], step_mm: tuple[float, float]) -> Float32[np.ndarray, "i j"]:
    """Return the distance of each cell's center to the outline, negative inside, finer than the cells.

    Half a cell of share is half a cell of distance in the cells that the outline cuts; all others take the distance
    to the nearest of these and add its own.

    Source:
        Gustavson and Strand, "Anti-aliased Euclidean distance transform", Pattern Recognition Letters 32 (2011).
    """
    edge = _edge_cells(shares)
    if not edge.any():
        return np.where(shares > 0.5, -_FAR_MM, _FAR_MM).astype(np.float32)
    nearest: Int32[np.ndarray, "2 i j"]
    away, nearest = ndimage.distance_transform_edt(~edge, sampling=step_mm, return_indices=True)
    own = (0.5 - shares[nearest[0], nearest[1]]) * _mean_step(step_mm)
    signed = np.where(shares > 0.5, -away, away) + own
    return signed.astype(np.float32)


def _edge_cells(shares: Float32[np.ndarray, "i j"]) -> Bool[np.ndarray, "i j"]:
    """Return the cells that the outline cuts; where it runs between two cells, both."""
    edge = (shares > 0) & (shares < 1)
    full, empty = shares >= 1, shares <= 0
    for ahead, behind in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        between = (full[ahead] & empty[behind]) | (empty[ahead] & full[behind])
        edge[ahead] |= between
        edge[behind] |= between
    return edge


def _mean_step(step_mm: tuple[float, float]) -> float:
    return float(np.sqrt(step_mm[0] * step_mm[1]))

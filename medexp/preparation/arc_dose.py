"""A dose as rotating beams leave it, simple enough to be made in a second and rich enough to be worth predicting.

Parallel beams from all sides of the axial plane, each open where the target lies (its outline as the beam sees it, with
a penumbra), attenuated by the depth below an elliptic skin, with build-up. Between the target and the skin this gives
the streaks and the low-dose bath of an arc, and a sharp fall above and below. No physics beyond that is claimed.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy import ndimage

NUM_BEAMS = 36
_ATTENUATION_PER_MM = 0.0046  # of a 6 MV beam in water
_BUILD_UP = (0.55, 6.0)  # what is missing at the skin, and over how many mm it builds up
_PENUMBRA_MM = 3.5
_MARGIN_MM = 4.0  # that the aperture leaves around the target
_BIN_MM = 1.0  # of the aperture across the beam


@dataclass(frozen=True, eq=False)
class Body:
    """An elliptic cross-section per slice, in mm around the grid's middle: x to the left, y to the back, z to the head.

    Attributes:
        x: Of the voxel columns.
        y: Of the rows.
        z: Of the slices.
        half_width: Of the ellipse, per slice.
        half_depth: From front to middle, per slice.
    """

    x: Float32[np.ndarray, " i"]
    y: Float32[np.ndarray, " j"]
    z: Float32[np.ndarray, " k"]
    half_width: Float32[np.ndarray, " k"]
    half_depth: Float32[np.ndarray, " k"]

    @property
    def radius(self) -> Float32[np.ndarray, "i j k"]:
        """The distance from the axis in units of the ellipse: below 1 inside."""
        across = (self.x[:, None] / self.half_width) ** 2
        along = (self.y[:, None] / self.half_depth) ** 2
        return np.sqrt(across[:, None, :] + along[None, :, :])

    def below_skin_mm(self, toward: tuple[float, float]) -> Float32[np.ndarray, "i j k"]:
        """Return how much tissue lies between each voxel and the skin in a direction of the axial plane."""
        x_way, y_way = (np.float32(part) for part in toward)
        inverse_width, inverse_depth = self.half_width**-2, self.half_depth**-2
        square = x_way**2 * inverse_width + y_way**2 * inverse_depth
        mixed = (self.x[:, None] * x_way * inverse_width)[:, None, :] + (self.y[:, None] * y_way * inverse_depth)[None]
        root = np.sqrt(np.maximum(mixed**2 - square * (self.radius**2 - np.float32(1.0)), np.float32(0.0)))
        return np.maximum((root - mixed) / square, np.float32(0.0))


def arc_dose(
    target: Bool[np.ndarray, "i j k"],
    body: Body,
    *,
    weights: Float64[np.ndarray, " beam"],
) -> Float32[np.ndarray, "i j k"]:
    """Return the sum of the beams, 1 on average inside the target.

    Args:
        target: What every beam opens for; not empty.
        body: The skin, on the same grid.
        weights: Of beams at equal angles around the patient, the first from the front, then turning to the left.
    """
    total = np.zeros(target.shape, np.float32)
    reach = _MARGIN_MM + 4.0 * _PENUMBRA_MM
    heights = body.z[target.any(axis=(0, 1))]
    near = np.flatnonzero((body.z > heights.min() - reach) & (body.z < heights.max() + reach))
    slices = slice(int(near[0]), int(near[-1]) + 1)
    inside = Body(body.x, body.y, body.z[slices], body.half_width[slices], body.half_depth[slices])
    for weight, angle in zip(weights, np.linspace(0.0, 2.0 * np.pi, len(weights), endpoint=False), strict=True):
        total[..., slices] += np.float32(weight) * _beam(target[..., slices], inside, float(angle))
    total *= body.radius < 1.0
    return total / total[target].mean()


def _beam(target: Bool[np.ndarray, "i j k"], body: Body, angle: float) -> Float32[np.ndarray, "i j k"]:
    toward = (float(np.sin(angle)), -float(np.cos(angle)))  # at 0 the source is in front
    across = body.x[:, None] * np.float32(toward[1]) - body.y[None, :] * np.float32(toward[0])
    bins = np.floor((across - across.min()) / np.float32(_BIN_MM)).astype(np.int64)
    depth = body.below_skin_mm(toward)
    missing, build_up_mm = _BUILD_UP
    dose = np.exp(-np.float32(_ATTENUATION_PER_MM) * depth)
    dose *= np.float32(1.0) - np.float32(missing) * np.exp(depth / np.float32(-build_up_mm))
    return dose * _aperture(target, bins, body)[bins]


def _aperture(
    target: Bool[np.ndarray, "i j k"], bins: Int64[np.ndarray, "i j"], body: Body
) -> Float32[np.ndarray, "bin k"]:
    """Return how open the beam is, by the position across it and the slice."""
    size_mm = float(body.x[1] - body.x[0])
    slice_mm = float(body.z[1] - body.z[0])
    seen = np.zeros((int(bins.max()) + 1, target.shape[2]), np.float32)
    i, j, k = np.nonzero(target)
    seen[bins[i, j], k] = 1.0
    open_bins = 2 * round((size_mm / 2 + _MARGIN_MM) / _BIN_MM) + 1
    opened = ndimage.maximum_filter(seen, (open_bins, 2 * round(_MARGIN_MM / slice_mm) + 1))
    return ndimage.gaussian_filter(opened, (_PENUMBRA_MM / _BIN_MM, _PENUMBRA_MM / slice_mm), mode="constant")

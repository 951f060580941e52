"""Where the parts of a synthetic patient lie: ellipsoids and tubes in millimeters of a full-size patient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from medexp.errors import ConfigurationError
from medexp.preparation.arc_dose import Body
from medexp.preparation.phantoms import Shape

LEAST_SIDE = 24  # voxels
Point = tuple[float, float, float]
Mask = Bool[np.ndarray, "i j k"]
Profile = Callable[[Float32[np.ndarray, " k"]], Float32[np.ndarray, " k"]]


@dataclass(frozen=True, eq=False)
class Scene:
    """Voxel positions in mm around the middle, x to the left, y to the back, z to the head; and the patient's dice."""

    x: Float32[np.ndarray, "i 1 1"]
    y: Float32[np.ndarray, "1 j 1"]
    z: Float32[np.ndarray, "1 1 k"]
    scale: Point
    spacing_mm: Point
    random: np.random.Generator

    @classmethod
    def of(cls, seed: int | Sequence[int], shape: Shape, spacing_mm: Point, *, nominal_mm: Point) -> "Scene":
        """Return the scene of a grid; where a patient of `nominal_mm` does not fit, a smaller one is drawn.

        Raises:
            ConfigurationError: A side is too small for any patient.
        """
        if min(shape) < LEAST_SIDE or not min(spacing_mm) > 0.0:
            message = f"expected three sides of at least {LEAST_SIDE} voxels of a positive size"
            raise ConfigurationError(f"mock.shape: {message}, got {list(shape)} and {list(spacing_mm)} mm")
        axes = [
            ((np.arange(size) - (size - 1) / 2) * step).astype(np.float32)
            for size, step in zip(shape, spacing_mm, strict=True)
        ]
        fits = [0.46 * size * step / half for size, step, half in zip(shape, spacing_mm, nominal_mm, strict=True)]
        x_scale, y_scale, z_scale = (min(1.0, fit) for fit in fits)
        x, y, z = axes
        scale = (x_scale, y_scale, z_scale)
        return cls(x[:, None, None], y[None, :, None], z[None, None, :], scale, spacing_mm, np.random.default_rng(seed))

    @property
    def shape(self) -> Shape:
        """Voxels along i, j, k."""
        return (self.x.size, self.y.size, self.z.size)

    def around(self, usual: float, share: float = 0.15) -> float:
        """Return a number within `share` of the usual one."""
        return float(usual * self.random.uniform(1.0 - share, 1.0 + share))

    def moved(self, center: Point, by_mm: float) -> Point:
        """Return a place within `by_mm` of another."""
        x, y, z = (float(at + self.random.uniform(-by_mm, by_mm)) for at in center)
        return (x, y, z)

    def ellipsoid(self, center: Point, radii: Point) -> Mask:
        """Return the voxels inside; center and radii in mm of a full-size patient."""
        parts = [
            ((axis / np.float32(scale) - np.float32(at)) / np.float32(radius)) ** 2
            for axis, scale, at, radius in zip((self.x, self.y, self.z), self.scale, center, radii, strict=True)
        ]
        return parts[0] + parts[1] + parts[2] < 1.0

    def tube(
        self,
        center: tuple[float, float],
        radii: tuple[float, float],
        heights: tuple[float, float],
        *,
        bow_mm: tuple[float, float] = (0.0, 0.0),
    ) -> Mask:
        """Return an upright elliptic tube from one height to another, its middle bowed by so much in x and y."""
        z = self.z / np.float32(self.scale[2])
        middle, half = (heights[0] + heights[1]) / 2, (heights[1] - heights[0]) / 2
        bow = 1.0 - ((z - np.float32(middle)) / np.float32(half)) ** 2
        x = (self.x / np.float32(self.scale[0]) - np.float32(center[0]) - np.float32(bow_mm[0]) * bow) / radii[0]
        y = (self.y / np.float32(self.scale[1]) - np.float32(center[1]) - np.float32(bow_mm[1]) * bow) / radii[1]
        return (x**2 + y**2 < 1.0) & (bow > 0.0)

    def nothing(self) -> Mask:
        """Return an empty mask."""
        return np.zeros(self.shape, np.bool_)

    def body(self, half_width: Profile, half_depth: Profile) -> Body:
        """Return the skin from its half axes at a height, both in mm of a full-size patient."""
        z = self.z.ravel()
        heights = z / np.float32(self.scale[2])
        size = np.float32(self.around(0.97, 0.03))
        width = (half_width(heights) * size * self.scale[0]).astype(np.float32)
        depth = (half_depth(heights) * size * self.scale[1]).astype(np.float32)
        return Body(self.x.ravel(), self.y.ravel(), z, width, depth)

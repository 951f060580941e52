"""Shapes and textures that synthetic volumes are made of. All randomness comes from the generator given."""

import numpy as np
from jaxtyping import Float32

Shape = tuple[int, int, int]
Field = Float32[np.ndarray, "i j k"]

_NUM_WAVES = 16


def smooth_noise(shape: Shape, *, cells: int, random: np.random.Generator) -> Field:
    """Return a sum of waves with mean about 0 and deviation about 1, with up to `cells` half-waves per axis."""
    factors = []
    for size in shape:
        position = np.linspace(0.0, np.pi, size)
        half_waves = random.uniform(0.3 * cells, cells, _NUM_WAVES)[:, None]
        factors.append(np.cos(half_waves * position + random.uniform(0.0, 2.0 * np.pi, _NUM_WAVES)[:, None]))
    i, j, k = (factor.astype(np.float32) for factor in factors)
    field = np.zeros(shape, np.float32)
    for wave in range(_NUM_WAVES):  # not a matrix product: its order of addition depends on the machine
        field += (i[wave][:, None] * j[wave])[:, :, None] * k[wave]
    return field * np.float32((8.0 / _NUM_WAVES) ** 0.5)


def ellipsoid_radius(shape: Shape, *, center: tuple[float, float, float], radii: tuple[float, float, float]) -> Field:
    """Return the distance from `center` in units of `radii`: below 1 inside. Center and radii are voxels."""
    squares = [
        ((np.arange(size, dtype=np.float32) - middle) / radius) ** 2
        for size, middle, radius in zip(shape, center, radii, strict=True)
    ]
    return np.sqrt(squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :])

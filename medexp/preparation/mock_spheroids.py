"""Synthetic wells in SegOid's layout: `images/<base>.tif` and `masks/<base>_mask.tif`.

As in whole-well brightfield images: dark bodies with a bright rim on an uneven background, equivalent diameters of 44
to 88 pixels, many of them touching, debris that is no object, and files of every kind that a reader must take: gray and
RGB, 8 and 16 bits, LZW and plain, masks that are BlackIsZero and WhiteIsZero, a pixel size in OME metadata.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from medexp.errors import ConfigurationError
from medexp.io.tiff import write_tiff
from medexp.preparation.mock_folder import MockFolder
from medexp.preparation.phantoms import smooth_noise
from medexp.runs.files import atomic_write

BASES = ("dECM_1_1", "dECM_1_2", "dECM_2_1", "dECM_2_2", "Matri_1_1", "Matri_1_2")
_PIXEL_SIZE_UM = (1.3, 1.3)
_RADII_PX = (22.0, 44.0)
_LEAST_SIDE = 128
_TRIES = 40  # places that are tried for one body


def write_mock(
    root: str | Path,
    *,
    num_patients: int,
    seed: int,
    shape: Sequence[int],
    objects_per_image: int,
) -> bool:
    """Write the wells; equal arguments give equal bytes.

    Args:
        root: Must be empty, missing, or written by mock.
        num_patients: Wells, one image each; every two of a name share a plate.
        seed: Another seed, other wells.
        shape: Height and width in pixels.
        objects_per_image: Bodies, as far as there is room.

    Returns:
        Whether anything was written; equal files that are there stay untouched.

    Raises:
        ConfigurationError: The folder holds something else, or an argument does not fit.
    """
    if num_patients < 1 or len(shape) != 2 or min(shape) < _LEAST_SIDE or objects_per_image < 1:
        message = f"expected at least one well of at least {_LEAST_SIDE} x {_LEAST_SIDE} pixels and one object"
        raise ConfigurationError(
            f"mock.num_patients, mock.shape: {message}, got {num_patients}, {list(shape)} and {objects_per_image}"
        )
    size = (int(shape[0]), int(shape[1]))
    files: dict[str, Callable[[Path], None]] = {}
    for number in range(num_patients):
        well = _Well(number, seed, size, objects_per_image)
        files[f"images/{well.base}.tif"] = well.write_image
        files[f"masks/{well.base}_mask.tif"] = well.write_mask
    settings = {
        "mock": "spheroids",
        "version": 1,
        "num_patients": num_patients,
        "shape": list(size),
        "objects_per_image": objects_per_image,
        "seed": seed,
    }
    return MockFolder(Path(root), settings).fill(files)


@dataclass(frozen=True)
class _Well:
    number: int
    seed: int
    shape: tuple[int, int]
    objects: int

    @property
    def base(self) -> str:
        """The six names of the real set; further wells are on plates of their own."""
        if self.number < len(BASES):
            return BASES[self.number]
        plate, well = divmod(self.number - len(BASES), 2)
        return f"dECM_{plate + 3}_{well + 1}"

    def write_image(self, path: Path) -> None:
        """Write the well: RGB for every third, 16 bits for every fourth, the others 8-bit gray; with its pixel size."""
        image, _ = _drawn(self.seed, self.number, self.shape, self.objects)
        compression = "lzw" if self.number % 2 else None
        if self.number % 4 == 3:
            deep = np.rint(image * np.float32(65535.0)).astype(np.uint16)
            write_tiff(path, deep, pixel_size_um=_PIXEL_SIZE_UM, compression=compression, durable=False)
            return
        gray = np.rint(image * np.float32(255.0)).astype(np.uint8)
        pixels = np.repeat(gray[..., None], 3, axis=2) if self.number % 3 == 2 else gray
        write_tiff(path, pixels, pixel_size_um=_PIXEL_SIZE_UM, compression=compression, durable=False)

    def write_mask(self, path: Path) -> None:
        """Write the mask: WhiteIsZero in one bit for every other well, else 0 and 255."""
        _, mask = _drawn(self.seed, self.number, self.shape, self.objects)
        if self.number % 2 == 0:
            write_tiff(path, mask * np.uint8(255), durable=False)
            return
        import tifffile

        with atomic_write(path, durable=False) as temporary:
            tifffile.imwrite(temporary, mask == 0, photometric="miniswhite", metadata=None, software="medexp")


@functools.lru_cache(maxsize=1)
def _drawn(
    seed: int, number: int, shape: tuple[int, int], objects: int
) -> tuple[Float32[np.ndarray, "height width"], UInt8[np.ndarray, "height width"]]:
    """Return the image, 0 to 1, and the mask of a well."""
    random = np.random.default_rng([seed, number])
    waves = smooth_noise((*shape, 2), cells=3, random=random)[..., 0]
    image = np.float32(0.72) + np.float32(0.03) * waves
    mask = np.zeros(shape, np.uint8)
    for center, radii, turn in _bodies(random, shape, objects):
        _draw_body(image, mask, center, radii, turn, random)
    for _ in range(objects // 4):  # debris
        center = (random.uniform(0, shape[0]), random.uniform(0, shape[1]))
        _darken(image, center, random.uniform(2.0, 5.0), depth=0.25)
    image += random.standard_normal(shape, dtype=np.float32) * np.float32(0.015)
    return np.clip(image, 0.0, 1.0), mask


_Body = tuple[tuple[float, float], tuple[float, float], float]


def _bodies(random: np.random.Generator, shape: tuple[int, int], objects: int) -> list[_Body]:
    """Return centers, radii and directions of bodies that overlap by a tenth of their radii at most."""
    placed: list[_Body] = []
    for _ in range(objects):
        radius = random.uniform(*_RADII_PX)
        stretch = random.uniform(1.0, 1.25)
        for _ in range(_TRIES):
            center = (random.uniform(radius, shape[0] - radius), random.uniform(radius, shape[1] - radius))
            if all(np.hypot(center[0] - c[0], center[1] - c[1]) > 0.95 * (radius + max(r)) for c, r, _ in placed):
                placed.append((center, (radius * stretch**0.5, radius / stretch**0.5), random.uniform(0.0, np.pi)))
                break
    return placed


def _draw_body(
    image: Float32[np.ndarray, "height width"],
    mask: UInt8[np.ndarray, "height width"],
    center: tuple[float, float],
    radii: tuple[float, float],
    turn: float,
    random: np.random.Generator,
) -> None:
    window = _window(center, 1.35 * max(radii), image.shape)
    y, x = (axis.astype(np.float32) for axis in np.ogrid[window])
    y, x = y - np.float32(center[0]), x - np.float32(center[1])
    along, across = y * np.cos(turn) + x * np.sin(turn), x * np.cos(turn) - y * np.sin(turn)
    phases = random.uniform(0.0, 2.0 * np.pi, 2)
    angle = np.arctan2(across, along)
    bumps = 0.03 * np.sin(3.0 * angle + phases[0]) + 0.02 * np.sin(7.0 * angle + phases[1])
    depth = np.hypot(along / radii[0], across / radii[1]) * (1.0 + bumps)
    inside = depth < 1.0
    image[window] = np.where(inside, 0.30 + 0.18 * depth**2 + 0.08 * (image[window] - 0.72), image[window])
    image[window] += np.float32(0.10) * np.exp(-(((depth - 1.08) / 0.05) ** 2)).astype(np.float32)
    mask[window][inside] = 1


def _darken(
    image: Float32[np.ndarray, "height width"], center: tuple[float, float], radius: float, *, depth: float
) -> None:
    window = _window(center, radius, image.shape)
    y, x = np.ogrid[window]
    image[window] -= np.where(np.hypot(y - center[0], x - center[1]) < radius, np.float32(depth), np.float32(0.0))


def _window(center: tuple[float, float], radius: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    top, left = (max(int(middle - radius), 0) for middle in center)
    return slice(top, min(int(center[0] + radius) + 2, shape[0])), slice(
        left, min(int(center[1] + radius) + 2, shape[1])
    )

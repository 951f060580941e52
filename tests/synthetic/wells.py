"""Small images with round objects, their masks, and folders of both as TIFF."""

from pathlib import Path

import numpy as np

from medexp.io.tiff import write_mask_tiff, write_tiff

SHAPE = (96, 128)


def disk(row: float, column: float, radius: float, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return a filled circle."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2).astype(np.uint8)


def disks(*objects: tuple[float, float, float], shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return a mask of circles (row, column, radius)."""
    mask = np.zeros(shape, np.uint8)
    for one in objects:
        mask |= disk(*one, shape)
    return mask


def image_of(mask: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return an image in which the objects are darker than a noisy background."""
    noise = np.random.default_rng(seed).normal(0, 6, mask.shape)
    return np.clip(np.where(mask > 0, 90, 170) + noise, 0, 255).astype(np.uint8)


def write_mask(path: Path, mask: np.ndarray, *, pixel_size_um: float | None = None) -> Path:
    """Write a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = None if pixel_size_um is None else (pixel_size_um, pixel_size_um)
    write_mask_tiff(path, mask, pixel_size_um=size)
    return path


def write_image(path: Path, mask: np.ndarray, *, seed: int = 0) -> Path:
    """Write the image that belongs to a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tiff(path, image_of(mask, seed=seed))
    return path

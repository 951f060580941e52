"""A synthetic hippocampus cohort in the Decathlon's layout.

As in Task04: `images/` and `labels/` with equal names, 1 mm RAS+ crops of differing shapes without a zero background,
an anterior and a posterior part, and an intensity scale that differs per case by up to four orders of magnitude.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8

from medexp.errors import ConfigurationError
from medexp.geometry.grids import Grid
from medexp.io.nifti import write_nifti
from medexp.preparation.mock_folder import MockFolder
from medexp.preparation.phantoms import Shape, ellipsoid_radius, smooth_noise

LABELS = {"anterior": 1, "posterior": 2}
_LEAST_SIDE = 16  # voxels
_GRAY, _HIPPOCAMPUS = 0.45, 0.80


def write_mock(
    root: str | Path,
    *,
    num_patients: int,
    shape: Sequence[int],
    seed: int,
    channels: Sequence[str] | None = None,
    labels: Mapping[str, int] | None = None,
) -> bool:
    """Write the cohort; equal arguments give equal bytes.

    Args:
        root: Must be empty, missing, or written by mock.
        num_patients: One case each.
        shape: The largest case; sides of the others are 80 to 100 % of it.
        seed: Another seed, another cohort.
        channels: One name.
        labels: Values for anterior and posterior; None: 1 and 2.

    Returns:
        Whether anything was written; an equal cohort that is there stays untouched.

    Raises:
        ConfigurationError: The folder holds something else, or an argument does not fit.
    """
    values = dict(LABELS if labels is None else labels)
    if num_patients < 1 or len(shape) != 3 or min(shape) < _LEAST_SIDE:
        message = f"expected at least one patient and three sides of at least {_LEAST_SIDE} voxels"
        raise ConfigurationError(f"mock.num_patients, mock.shape: {message}, got {num_patients} and {list(shape)}")
    if set(values) != set(LABELS) or (channels is not None and len(channels) != 1):
        message = f"expected one channel and the labels {tuple(LABELS)}, got {channels} and {tuple(values)}"
        raise ConfigurationError(f"dataset.channels, dataset.labels: {message}")
    largest = (int(shape[0]), int(shape[1]), int(shape[2]))
    files: dict[str, Callable[[Path], None]] = {}
    for number in range(1, num_patients + 1):
        case = _Case(number, seed, largest, (values["anterior"], values["posterior"]))
        files[f"images/hippocampus_{number:03d}.nii.gz"] = case.write_image
        files[f"labels/hippocampus_{number:03d}.nii.gz"] = case.write_label
    settings = {
        "mock": "hippocampus",
        "version": 1,
        "num_patients": num_patients,
        "shape": list(largest),
        "seed": seed,
        "labels": values,
    }
    return MockFolder(Path(root), settings).fill(files)


@dataclass(frozen=True)
class _Case:
    number: int
    seed: int
    largest: Shape
    values: tuple[int, int]

    def write_image(self, path: Path) -> None:
        """Write the crop: bytes for every third case, floats of an arbitrary scale for the others."""
        image, label = _crop(self.seed, self.number, self.largest)
        write_nifti(path, image, _grid(label.shape), durable=False)

    def write_label(self, path: Path) -> None:
        """Write the label."""
        _, label = _crop(self.seed, self.number, self.largest)
        write_nifti(path, np.array([0, *self.values], np.uint8)[label], _grid(label.shape), durable=False)


def _grid(shape: tuple[int, ...]) -> Grid:
    return Grid.native((shape[0], shape[1], shape[2]), np.eye(4))


@functools.lru_cache(maxsize=1)
def _crop(seed: int, number: int, largest: Shape) -> tuple[Num[np.ndarray, "i j k"], UInt8[np.ndarray, "i j k"]]:
    """Return image and label (1 anterior, 2 posterior) of a case: an elongated bright body along j."""
    random = np.random.default_rng([seed, number])
    i, j, k = (round(side * random.uniform(0.8, 1.0)) for side in largest)
    shape = (i, j, k)
    center = ((i - 1) / 2 + random.uniform(-2, 2), (j - 1) / 2 + random.uniform(-2, 2), (k - 1) / 2)
    radii = (i * random.uniform(0.20, 0.26), j * random.uniform(0.34, 0.40), k * random.uniform(0.20, 0.26))
    depth = ellipsoid_radius(shape, center=center, radii=radii) + 0.08 * smooth_noise(shape, cells=4, random=random)
    border = (j - 1) / 2 + j * random.uniform(-0.05, 0.05)
    label = np.where(np.arange(j)[None, :, None] > border, 1, 2).astype(np.uint8) * (depth < 1.0)
    values = np.where(label > 0, np.float32(_HIPPOCAMPUS), np.float32(_GRAY))
    values = values + np.float32(0.05) * smooth_noise(shape, cells=5, random=random)
    values += random.standard_normal(shape, dtype=np.float32) * np.float32(0.04)
    scaled = np.clip(values, 0.02, 1.2) / np.float32(1.2)
    if number % 3 == 0:
        return np.rint(scaled * 255).astype(np.uint8), label.astype(np.uint8)
    return (scaled * np.float32(10.0 ** random.uniform(2.0, 6.0))).astype(np.float32), label.astype(np.uint8)

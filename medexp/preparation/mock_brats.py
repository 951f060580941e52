"""A synthetic BraTS cohort in the challenge's raw format, with tumors that a network can learn to find.

As in BraTS 2024 GLI: `BraTS-GLI-xxxxx-yyy/` with five files on one 1 mm grid in LAS, skull-stripped (0 outside the
brain), integers and floats mixed, several time points of some patients, labels NETC inside ET inside SNFH and a
resection cavity RC. The second patient's first case has no ET, the last patient (of three or more) an empty label.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Num, UInt8

from medexp.errors import ConfigurationError
from medexp.geometry.grids import Grid
from medexp.io.nifti import write_nifti
from medexp.preparation.mock_folder import MockFolder
from medexp.preparation.phantoms import Shape, ellipsoid_radius, smooth_noise
from medexp.runs.files import write_json

CHANNELS = ("t1c", "t1n", "t2w", "t2f")
LABELS = {"NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}
_LEAST_SIDE = 16  # voxels; below, a tumor has no room for its parts

# Intensity of each tissue by sequence, as a share of the sequence's scale.
_CONTRAST = {
    # gray, white, fluid, NETC, SNFH, ET, RC
    "t1c": (0.45, 0.60, 0.20, 0.30, 0.42, 0.98, 0.15),
    "t1n": (0.45, 0.62, 0.18, 0.32, 0.40, 0.50, 0.14),
    "t2w": (0.55, 0.40, 0.95, 0.75, 0.82, 0.60, 0.98),
    "t2f": (0.55, 0.45, 0.12, 0.60, 0.95, 0.72, 0.20),
}
_SCALE = {"t1c": 1800.0, "t1n": 900.0, "t2w": 2400.0, "t2f": 700.0}


@dataclass(frozen=True)
class _Case:
    """One time point of one synthetic patient."""

    patient: int
    visit: int
    has_tumor: bool
    has_enhancing: bool

    @property
    def name(self) -> str:
        return f"BraTS-GLI-{self.patient:05d}-{100 + self.visit:03d}"


def write_mock(
    root: str | Path,
    *,
    num_patients: int,
    shape: Sequence[int],
    seed: int,
    channels: Sequence[str] | None = None,
    labels: Mapping[str, int] | None = None,
) -> bool:
    """Write the cohort in BraTS folders; equal arguments give equal bytes.

    Args:
        root: Must be empty, missing, or written by mock.
        num_patients: Every third patient, the first included, has two time points unless its label is empty.
        shape: Voxels along i, j, k; the challenge's is 182, 218, 182.
        seed: Another seed, another cohort.
        channels: Of the four BraTS sequences; None: all.
        labels: Values for the four BraTS labels; None: the challenge's.

    Returns:
        Whether anything was written; an equal cohort that is there stays untouched.

    Raises:
        ConfigurationError: The folder holds something else, or an argument does not fit.
    """
    cohort = _Cohort.of(num_patients, shape=shape, seed=seed, channels=channels, labels=labels)
    files = {f"{case.name}/{case.name}-{kind}.nii.gz": (case, kind) for case, kind in cohort.parts()}
    return MockFolder(Path(root), cohort.settings("brats")).fill(
        {name: functools.partial(cohort.write, case, kind) for name, (case, kind) in files.items()}
    )


def write_mock_nnunet(
    root: str | Path,
    *,
    num_patients: int,
    shape: Sequence[int],
    seed: int,
    channels: Sequence[str] | None = None,
    labels: Mapping[str, int] | None = None,
) -> bool:
    """Write the same cohort as an nnU-Net v2 raw folder: `root` itself holds dataset.json, imagesTr and labelsTr.

    Arguments, result and errors are those of `write_mock`.
    """
    cohort = _Cohort.of(num_patients, shape=shape, seed=seed, channels=channels, labels=labels)
    files: dict[str, Callable[[Path], None]] = {"dataset.json": cohort.write_description}
    for case, kind in cohort.parts():
        name = f"labelsTr/{case.name}.nii.gz"
        if kind != "seg":
            name = f"imagesTr/{case.name}_{cohort.channels.index(kind):04d}.nii.gz"
        files[name] = functools.partial(cohort.write, case, kind)
    return MockFolder(Path(root), cohort.settings("nnunet")).fill(files)


@dataclass(frozen=True)
class _Cohort:
    num_patients: int
    shape: Shape
    seed: int
    channels: tuple[str, ...]
    labels: Mapping[str, int]

    @classmethod
    def of(
        cls,
        num_patients: int,
        *,
        shape: Sequence[int],
        seed: int,
        channels: Sequence[str] | None,
        labels: Mapping[str, int] | None,
    ) -> "_Cohort":
        names = tuple(CHANNELS if channels is None else channels)
        values = dict(LABELS if labels is None else labels)
        if num_patients < 1:
            raise ConfigurationError(f"mock.num_patients: expected at least 1, got {num_patients}")
        if len(shape) != 3 or min(shape) < _LEAST_SIDE:
            message = f"mock.shape: expected three sides of at least {_LEAST_SIDE} voxels, got {list(shape)}"
            raise ConfigurationError(message)
        if not names or not set(names) <= set(CHANNELS) or set(values) != set(LABELS):
            message = f"expected channels of {CHANNELS} and the labels {tuple(LABELS)}"
            raise ConfigurationError(f"dataset.channels, dataset.labels: {message}, got {names} and {tuple(values)}")
        i, j, k = (int(size) for size in shape)
        return cls(num_patients, (i, j, k), seed, names, values)

    def settings(self, layout: str) -> dict[str, object]:
        """Return everything that the files depend on; `version` changes with the phantom."""
        return {
            "mock": f"brats in the layout of {layout}",
            "version": 2,
            "num_patients": self.num_patients,
            "shape": list(self.shape),
            "seed": self.seed,
            "channels": list(self.channels),
            "labels": dict(self.labels),
        }

    def parts(self) -> Iterator[tuple[_Case, str]]:
        """Yield every file: its case, and a channel or `seg`."""
        for index in range(self.num_patients):
            empty = self.num_patients >= 3 and index == self.num_patients - 1
            for visit in range(2 if index % 3 == 0 and not empty else 1):
                case = _Case(index + 1, visit, has_tumor=not empty, has_enhancing=index != 1)
                for kind in (*self.channels, "seg"):
                    yield case, kind

    def write(self, case: _Case, kind: str, path: Path) -> None:
        """Write one file of a case."""
        tissue, label = _anatomy(case, self.shape, self.seed)
        if kind == "seg":
            array: Num[np.ndarray, "i j k"] = np.array([0, *(self.labels[name] for name in LABELS)], np.uint8)[label]
        else:
            array = _sequence(case, kind, self.seed, tissue, label)
        write_nifti(path, array, _grid(self.shape), durable=False)

    def write_description(self, path: Path) -> None:
        """Write nnU-Net's dataset.json."""
        record = {
            "channel_names": {str(number): name for number, name in enumerate(self.channels)},
            "labels": {"background": 0, **self.labels},
            "numTraining": sum(kind == "seg" for _, kind in self.parts()),
            "file_ending": ".nii.gz",
        }
        write_json(path, record, durable=False)


def _grid(shape: Shape) -> Grid:
    """Return the challenge's grid: 1 mm, LAS, the origin as far from the border as in MNI space."""
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = [round(shape[0] * 90 / 182), -round(shape[1] * 126 / 218), -round(shape[2] * 72 / 182)]
    return Grid.native(shape, affine)


@functools.lru_cache(maxsize=1)  # the five files of a case are written one after another
def _anatomy(case: _Case, shape: Shape, seed: int) -> tuple[UInt8[np.ndarray, "i j k"], UInt8[np.ndarray, "i j k"]]:
    """Return tissue (0 outside, 1 gray, 2 white, 3 fluid) and label (1 NETC, 2 SNFH, 3 ET, 4 RC).

    A patient's brain is the same at every visit; the tumor changes in size.
    """
    random = np.random.default_rng([seed, case.patient])
    middle = tuple((size - 1) / 2 for size in shape)
    head = ellipsoid_radius(shape, center=_three(middle), radii=_three([size * 0.42 for size in shape]))
    head += 0.02 * smooth_noise(shape, cells=4, random=random)
    folds = np.abs(smooth_noise(shape, cells=14, random=random))
    tissue = np.zeros(shape, np.uint8)
    tissue[head < 1.0] = 1
    tissue[head + 0.16 * folds < 0.88] = 2
    tissue[(head > 0.86) & (head < 1.0) & (folds < 0.25)] = 3
    for side in (-1.0, 1.0):
        horn = (middle[0] + side * 0.07 * shape[0], middle[1], middle[2])
        radii = (0.045 * shape[0], 0.15 * shape[1], 0.10 * shape[2])
        tissue[ellipsoid_radius(shape, center=horn, radii=radii) < 1.0] = 3
    label = _tumor(case, shape, random, inside=tissue > 0) if case.has_tumor else np.zeros(shape, np.uint8)
    return tissue, label


def _tumor(case: _Case, shape: Shape, random: np.random.Generator, *, inside: np.ndarray) -> UInt8[np.ndarray, "i j k"]:
    side = random.choice([-1.0, 1.0])
    center = [(size - 1) / 2 for size in shape]
    center[0] += side * shape[0] * random.uniform(0.15, 0.20)
    center[1] += shape[1] * random.uniform(-0.14, 0.14)
    center[2] += shape[2] * random.uniform(-0.10, 0.10)
    size = min(shape) * random.uniform(0.15, 0.20) * (1.0 + 0.12 * case.visit)
    radii = [size * random.uniform(0.85, 1.15) for _ in range(3)]
    depth = ellipsoid_radius(shape, center=_three(center), radii=_three(radii))
    depth += 0.06 * smooth_noise(shape, cells=10, random=random)
    label = np.zeros(shape, np.uint8)
    label[depth < 1.0] = LABELS["SNFH"]
    label[depth < 0.68] = LABELS["ET"] if case.has_enhancing else LABELS["NETC"]
    label[depth < 0.42] = LABELS["NETC"]
    if case.patient % 2 == 0 and case.has_enhancing:
        _add_satellite(label, center, size * 0.45)
    cavity_center = [middle + 0.60 * radius for middle, radius in zip(center, radii, strict=True)]
    cavity = ellipsoid_radius(shape, center=_three(cavity_center), radii=_three([0.45 * size] * 3))
    label[cavity < 1.0] = LABELS["RC"]
    label[~inside] = 0
    return label


def _add_satellite(label: UInt8[np.ndarray, "i j k"], center: Sequence[float], radius: float) -> None:
    """Paint a second, smaller lesion into the other hemisphere."""
    mirrored = (label.shape[0] - 1 - center[0], center[1], center[2])
    distance = ellipsoid_radius(_shape(label), center=_three(mirrored), radii=_three([radius] * 3))
    label[(distance < 1.0) & (label == 0)] = LABELS["SNFH"]
    label[distance < 0.6] = LABELS["ET"]


def _shape(array: UInt8[np.ndarray, "i j k"]) -> Shape:
    i, j, k = array.shape
    return (i, j, k)


def _sequence(
    case: _Case,
    channel: str,
    seed: int,
    tissue: UInt8[np.ndarray, "i j k"],
    label: UInt8[np.ndarray, "i j k"],
) -> Num[np.ndarray, "i j k"]:
    """Return a sequence's intensities: integers for two sequences, floats for the others, 0 outside the brain."""
    number = CHANNELS.index(channel)
    random = np.random.default_rng([seed, case.patient, case.visit, number])
    contrast = _CONTRAST[channel]
    values = np.array([0.0, *contrast[:3]], np.float32)[tissue]
    values = np.where(label > 0, np.array([0.0, *contrast[3:]], np.float32)[label], values)
    bias: Float32[np.ndarray, "i j k"] = 1.0 + 0.04 * smooth_noise(tissue.shape, cells=4, random=random)
    noise = random.standard_normal(tissue.shape, dtype=np.float32) * np.float32(0.03)
    gain = _SCALE[channel] * random.uniform(0.6, 1.6)
    values = (values * bias + noise) * np.float32(gain)
    values[tissue == 0] = 0.0
    return np.rint(values).astype(np.int16) if number % 2 else values


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = values
    return (float(x), float(y), float(z))

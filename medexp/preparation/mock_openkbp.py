"""A synthetic OpenKBP cohort: `train-pats/pt_1/ct.csv` and so on, in the challenge's sparse files.

As in the published set: 128 x 128 x 128 voxels whose size differs by patient, CT values of HU + 1000 without rows for
air, doses with three decimals exactly where dose is possible, structures without a file for some patients, numbers from
1, 201 and 241 for training, validation and test.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from medexp.errors import ConfigurationError
from medexp.io.dose_case import DoseCase
from medexp.io.openkbp import CT, DOSE, HU_OFFSET, POSSIBLE, SHAPE, SIZES, STRUCTURES, centered_affine, packed_patient
from medexp.preparation.dose_phantom import neck_phantom
from medexp.preparation.mock_folder import MockFolder
from medexp.preparation.openkbp import OFFICIAL
from medexp.runs.files import atomic_write

_SPACINGS_MM = ((3.906, 3.906, 2.5), (3.906, 3.906, 3.0), (4.297, 4.297, 2.5))
_DRAWN = (64, 56, 128)  # the part of the volume that holds a patient
_CT_BEYOND = 4  # slices of CT above and below those where dose is possible
_LEAST_PATIENTS = 3


def write_mock(root: str | Path, *, num_patients: int, seed: int, shape: Sequence[int] | None = None) -> bool:
    """Write the cohort; equal arguments give equal bytes. About a second and 2.5 MB a patient.

    Args:
        root: Must be empty, missing, or written by mock.
        num_patients: A fifth of them, at least one, for validation, as many for the test, the others for training.
        seed: Another seed, another cohort.
        shape: The format's 128, 128, 128; None: the same.

    Returns:
        Whether anything was written; an equal cohort that is there stays untouched.

    Raises:
        ConfigurationError: The folder holds something else, or an argument does not fit.
    """
    if shape is not None and tuple(shape) != SHAPE:
        raise ConfigurationError(
            f"mock.shape: expected null or {list(SHAPE)}, the format's only grid, got {list(shape)}"
        )
    if num_patients < _LEAST_PATIENTS:
        message = f"expected at least {_LEAST_PATIENTS}, one for each side of the split, got {num_patients}"
        raise ConfigurationError(f"mock.num_patients: {message}")
    files: dict[str, Callable[[Path], None]] = {}
    for side, count in _counts(num_patients).items():
        for number in range(OFFICIAL[side][0], OFFICIAL[side][0] + count):
            patient = _Patient(number, seed)
            for name in patient.files:
                files[f"{side}-pats/{patient.name}/{name}.csv"] = functools.partial(patient.write, name)
    settings = {"mock": "openkbp", "version": 1, "num_patients": num_patients, "seed": seed}
    return MockFolder(Path(root), settings).fill(files)


def _counts(num_patients: int) -> dict[str, int]:
    aside = max(1, num_patients // 5)
    return {"train": num_patients - 2 * aside, "validation": aside, "test": aside}


@dataclass(frozen=True)
class _Patient:
    number: int
    seed: int

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"pt_{self.number}"

    @property
    def absent(self) -> tuple[str, ...]:
        """The structures without a file: of every patient but the first of four some."""
        lacking = (("PTV63", 3), ("Esophagus", 2), ("Larynx", 4))
        return tuple(name for name, every in lacking if self.number % every == 0)

    @property
    def files(self) -> tuple[str, ...]:
        """Names without the ending."""
        return (CT, DOSE, POSSIBLE, SIZES, *(name for name in STRUCTURES if name not in self.absent))

    def write(self, name: str, path: Path) -> None:
        """Write one of the files."""
        with atomic_write(path, durable=False) as temporary:
            temporary.write_bytes(_contents(self)[name])


@functools.lru_cache(maxsize=1)  # the files of a patient are written one after another
def _contents(patient: _Patient) -> dict[str, bytes]:
    spacing_mm = _SPACINGS_MM[patient.number % len(_SPACINGS_MM)]
    drawn = neck_phantom([patient.seed, patient.number], _DRAWN, spacing_mm, absent=patient.absent, name=patient.name)
    return packed_patient(_published(drawn))


def _published(case: DoseCase) -> DoseCase:
    """Return the case in the middle of the format's grid, k turned to the feet, with a CT only near the dose."""
    possible = _known(case.possible_dose)
    slices = np.flatnonzero(possible.any(axis=(0, 1)))
    ct = case.ct_hu.copy()
    ct[..., : max(slices[0] - _CT_BEYOND, 0)] = -HU_OFFSET
    ct[..., slices[-1] + _CT_BEYOND + 1 :] = -HU_OFFSET
    return replace(
        case,
        ct_hu=_placed(ct, -HU_OFFSET),
        affine=centered_affine(case.spacing_mm),
        masks={name: _placed(mask, 0) for name, mask in case.masks.items()},
        dose_gy=_placed(np.round(_known(case.dose_gy), 3), 0),
        possible_dose=_placed(possible, 0),
    )


def _known(array: Shaped[np.ndarray, "i j k"] | None) -> Shaped[np.ndarray, "i j k"]:
    if array is None:
        raise TypeError("expected a phantom with a dose and where it is possible")
    return array


def _placed(array: Shaped[np.ndarray, "i j k"], outside: int) -> Shaped[np.ndarray, "i2 j2 k2"]:
    whole = np.full(SHAPE, outside, array.dtype)
    starts = [(full - part) // 2 for full, part in zip(SHAPE, array.shape, strict=True)]
    place = tuple(slice(start, start + size) for start, size in zip(starts, array.shape, strict=True))
    whole[place] = array[..., ::-1]
    return whole

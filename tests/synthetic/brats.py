"""Small BraTS cohorts in the raw format, with the quirks that tests want."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from medexp.preparation import brats
from medexp.preparation.cohort import CohortSettings
from medexp.preparation.mock_brats import CHANNELS, LABELS, write_mock

SHAPE = (24, 28, 24)
PATIENT_PATTERN = r"(?P<patient>.+?)(-\d{3})?$"


def make_brats(root: Path, *, num_patients: int = 3, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Path:
    """Write a cohort; patients 1, 4, ... have two time points, patient 2 no ET, the last of three an empty label."""
    write_mock(root, num_patients=num_patients, shape=shape, seed=seed)
    return root


def settings_for(*roots: Path, **changes) -> CohortSettings:
    """Return the settings of conf/dataset/brats.yaml for small cohorts; two folds."""
    values = {
        "name": "brats",
        "find_cases": brats.find_cases,
        "roots": tuple(roots),
        "test_roots": (),
        "require_test_labels": False,
        "patient_pattern": PATIENT_PATTERN,
        "channels": CHANNELS,
        "labels": LABELS,
        "normalization": "zscore_nonzero",
        "spacing_mm": None,
        "num_folds": 2,
        "split_seed": 12345,
        "splits_file": None,
        "patch_size": None,
    }
    return CohortSettings(**{**values, **changes})


def path_of(root: Path, case: str, kind: str) -> Path:
    """Return the path of one of a case's five files."""
    return root / case / f"{case}-{kind}.nii.gz"


def copy_case(root: Path, case: str, name: str, *, to: Path | None = None) -> Path:
    """Copy a case under another name; return its folder."""
    target = (root if to is None else to) / name
    target.mkdir(parents=True)
    for file in (root / case).iterdir():
        shutil.copyfile(file, target / file.name.replace(case, name))
    return target


def change(path: Path, edit: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> None:
    """Rewrite a volume with the array and affine that `edit` returns."""
    image = nib.load(path)
    array, affine = edit(np.asanyarray(image.dataobj).copy(), image.affine.copy())
    changed = nib.Nifti1Image(array, affine)
    changed.header.set_xyzt_units("mm")
    nib.save(changed, path)

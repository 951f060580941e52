"""What stage=evaluate computes of doses in tests, and files of small doses."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from medexp.io.dose_case import DoseCase
from medexp.io.dose_npz import write_case_npz
from medexp.io.dose_prediction_npz import DosePrediction, write_prediction_npz
from medexp.metrics.dose_scoring import DoseScoring
from tests.synthetic.doses import VMAT, small_case
from tests.synthetic.evaluations import NO_DOSES

SCORING: DoseScoring = replace(
    NO_DOSES,
    structures=VMAT,
    targets={"PTV70": 70.0, "PTV56": 56.0},
    gamma=("3%/3mm", "2%/2mm local"),
    volume_doses_gy=(70.0, 45.0),
    limits="prostate_sib",
)


def write_reference(folder: Path, case: DoseCase, *, structures: tuple[str, ...] = VMAT) -> Path:
    """Write a case as stage=prepare does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case.name}.npz"
    write_case_npz(path, case, structures=structures, distance_clip_mm=50.0)
    return path


def write_prediction(folder: Path, case: DoseCase, dose_gy: np.ndarray) -> Path:
    """Write a predicted dose on the grid of a case."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case.name}.npz"
    write_prediction_npz(path, DosePrediction(dose_gy, case.affine, case.prescription_gy))
    return path


def predicted_dose(case: DoseCase, seed: int) -> np.ndarray:
    """Return the dose of a case with a few percent of noise and a little too much of it."""
    noise = np.random.default_rng(seed).normal(1.01, 0.03, case.shape)
    return (case.dose_gy * noise).astype(np.float32)


def named(case: DoseCase, name: str) -> DoseCase:
    """Return the case under another name."""
    return replace(case, name=name)


def cases(count: int = 2) -> list[DoseCase]:
    """Return small cases, different from each other, called A, B, ..."""
    return [named(small_case(number), chr(ord("A") + number)) for number in range(count)]

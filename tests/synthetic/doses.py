"""Small dose cases whose every number can be told in advance: ellipsoids, and a dose that falls with distance."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from medexp.io.dose_case import FULL, DoseCase

VMAT = ("PTV70", "PTV56", "Prostate", "Rectum", "Bladder", "Femur_L", "Femur_R", "Bowel")
OPENKBP = (
    "PTV70",
    "PTV63",
    "PTV56",
    "Brainstem",
    "SpinalCord",
    "RightParotid",
    "LeftParotid",
    "Esophagus",
    "Larynx",
    "Mandible",
)

# Center and radii as shares of the grid: i to the patient's left, j to the back, k to the head.
_PLACES = {
    "PTV70": ((0.50, 0.50, 0.45), (0.18, 0.18, 0.22)),
    "PTV63": ((0.50, 0.50, 0.50), (0.22, 0.20, 0.28)),
    "PTV56": ((0.50, 0.50, 0.50), (0.24, 0.22, 0.32)),
    "Prostate": ((0.50, 0.50, 0.45), (0.13, 0.13, 0.16)),
    "Rectum": ((0.50, 0.78, 0.50), (0.10, 0.09, 0.40)),
    "Bladder": ((0.50, 0.28, 0.60), (0.16, 0.10, 0.22)),
    "Femur_L": ((0.84, 0.50, 0.40), (0.09, 0.10, 0.30)),
    "Femur_R": ((0.16, 0.50, 0.40), (0.09, 0.10, 0.30)),
    "Bowel": ((0.50, 0.35, 0.88), (0.25, 0.16, 0.09)),
    "Brainstem": ((0.50, 0.68, 0.85), (0.08, 0.08, 0.12)),
    "SpinalCord": ((0.50, 0.78, 0.45), (0.06, 0.06, 0.40)),
    "RightParotid": ((0.20, 0.58, 0.72), (0.08, 0.12, 0.15)),
    "LeftParotid": ((0.80, 0.58, 0.72), (0.08, 0.12, 0.15)),
    "Esophagus": ((0.50, 0.65, 0.15), (0.06, 0.06, 0.14)),
    "Larynx": ((0.50, 0.40, 0.35), (0.09, 0.09, 0.14)),
    "Mandible": ((0.50, 0.22, 0.68), (0.22, 0.10, 0.10)),
}
_FALL_OFF_MM = 25.0


def small_case(
    seed: int = 0,
    shape: tuple[int, int, int] = (24, 20, 16),
    structures: Sequence[str] = VMAT,
    *,
    spacing_mm: tuple[float, float, float] = (4.0, 4.0, 5.0),
    has_dose: bool = True,
) -> DoseCase:
    """Return a patient of ellipsoids: i to the left, j to the back, k to the head (LPS), as a CT is stored.

    The seed moves the structures by up to a voxel and draws the CT's noise. Dose is 70 Gy in PTV70 and falls off
    exponentially outside; coverage is whole voxels.
    """
    random = np.random.default_rng(seed)
    shift = random.uniform(-1.0, 1.0, 3)
    masks = {name: _ellipsoid(name, shape, shift) for name in structures}
    body = _radius(shape, (0.5, 0.5, 0.5), (0.49, 0.47, 2.0), np.zeros(3)) < 1.0
    ct = np.where(body, 30.0, -1000.0) + random.normal(0.0, 8.0, shape) * body
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = [40.0, 35.0, -300.0]
    return DoseCase(
        name=f"small_{seed}",
        ct_hu=np.rint(ct).astype(np.int16),
        affine=affine,
        masks=masks,
        prescription_gy=70.0,
        coverage={name: mask.astype(np.uint8) * np.uint8(FULL) for name, mask in masks.items()},
        dose_gy=_dose(masks[structures[0]], body, spacing_mm) if has_dose else None,
        possible_dose=body,
        metadata={"fractions": 28},
    )


def _ellipsoid(name: str, shape: tuple[int, int, int], shift: np.ndarray) -> Bool[np.ndarray, "i j k"]:
    center, radii = _PLACES[name]
    return _radius(shape, center, radii, shift) < 1.0


def _radius(
    shape: tuple[int, int, int], center: Sequence[float], radii: Sequence[float], shift: np.ndarray
) -> Float32[np.ndarray, "i j k"]:
    axes = [
        ((np.arange(size, dtype=np.float32) - np.float32(middle * (size - 1) + move)) / np.float32(radius * size)) ** 2
        for size, middle, radius, move in zip(shape, center, radii, shift, strict=True)
    ]
    return np.sqrt(axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :])


def _dose(
    target: Bool[np.ndarray, "i j k"], body: Bool[np.ndarray, "i j k"], spacing_mm: Sequence[float]
) -> Float32[np.ndarray, "i j k"]:
    from scipy import ndimage

    outside_mm = ndimage.distance_transform_edt(~target, sampling=spacing_mm)
    return (70.0 * np.exp(-outside_mm / _FALL_OFF_MM) * body).astype(np.float32)

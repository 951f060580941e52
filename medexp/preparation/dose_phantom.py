"""Synthetic radiotherapy patients: a pelvis for VMAT and a neck for OpenKBP, with CT, structures and a planned dose.

Every patient differs in size and place of the organs, and dose follows from the anatomy alone but for a few percent:
what a network can learn is there, and the distance to the target does not tell all of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16

from medexp.geometry.distances import signed_distance_mm
from medexp.io.dose_case import DoseCase
from medexp.preparation.arc_dose import NUM_BEAMS, Body, arc_dose
from medexp.preparation.dose_anatomy import neck_bones, neck_organs, pelvic_bones, pelvic_organs
from medexp.preparation.dose_scene import Mask, Point, Scene
from medexp.preparation.phantoms import Shape, smooth_noise

PELVIS_TARGETS_GY: Final[Mapping[str, float]] = {"PTV56": 56.0, "PTV70": 70.0}
NECK_TARGETS_GY: Final[Mapping[str, float]] = {"PTV56": 56.0, "PTV63": 63.0, "PTV70": 70.0}
_AIR, _FAT, _MUSCLE, _BONE, _GAS = -1000.0, -95.0, 48.0, 450.0, -820.0
_ORGAN_HU: Final[Mapping[str, float]] = {
    "Bladder": 8.0,
    "Rectum": 28.0,
    "Prostate": 40.0,
    "Bowel": 22.0,
    "Brainstem": 34.0,
    "SpinalCord": 30.0,
    "LeftParotid": -5.0,
    "RightParotid": -5.0,
}
_PELVIS_MM, _NECK_MM = (175.0, 115.0, 95.0), (112.0, 98.0, 155.0)  # half sizes of a full-size patient
_LARGEST_SHARE = 1.06  # of the prescription: below the 107 % that a plan may reach
_EDGE_MM = 1.6  # over which a plan turns from the beams' dose to the prescribed one, outside of a target
_COVER_MM = 3.0  # how far outside that happens
_REACH_MM = 25.0


@dataclass(frozen=True, eq=False)
class _Patient:
    """What the two kinds of patients have in common once their parts are placed; dose by rising prescription."""

    scene: Scene
    body: Body
    organs: Mapping[str, Bool[np.ndarray, "i j k"]]
    bones: Bool[np.ndarray, "i j k"]
    gas: Bool[np.ndarray, "i j k"]
    targets_gy: Mapping[str, float]
    spared: Sequence[str]
    fat_mm: float

    def case(self, name: str, possible: Bool[np.ndarray, "i j k"]) -> DoseCase:
        """Return the record that every source of patients gives."""
        x, y, z = self.scene.spacing_mm
        affine = np.diag([-x, -y, z, 1.0])  # i to the left, j to the back: LPS
        affine[:3, 3] = [-float(self.body.x[0]), -float(self.body.y[0]), float(self.body.z[0])]
        return DoseCase(
            name=name,
            ct_hu=self._ct(),
            affine=affine,
            masks={organ: mask for organ, mask in self.organs.items() if mask.any()},
            prescription_gy=max(self.targets_gy.values()),
            dose_gy=self._dose() * possible,
            possible_dose=possible,
            metadata={"source": "synthetic"},
        )

    def _ct(self) -> Int16[np.ndarray, "i j k"]:
        random, shape = self.scene.random, self.scene.shape
        radius = self.body.radius
        fat_from = 1.0 - self.fat_mm / np.minimum(self.body.half_width, self.body.half_depth)
        values = np.where(radius < fat_from, np.float32(_MUSCLE), np.float32(_FAT))
        for organ, mask in self.organs.items():
            if organ in _ORGAN_HU:
                values[mask] = _ORGAN_HU[organ]
        values[self.bones] = _BONE * random.uniform(0.8, 1.2)
        values += np.float32(9.0) * smooth_noise(shape, cells=9, random=random)
        values[self.gas] = _GAS
        values += random.standard_normal(shape, dtype=np.float32) * np.float32(12.0)
        values[radius >= 1.0] = _AIR
        return np.rint(np.maximum(values, np.float32(_AIR))).astype(np.int16)

    def _dose(self) -> Float32[np.ndarray, "i j k"]:
        """Return the beams' dose outside the targets, turned to the prescribed one near and in them."""
        dose, given = np.zeros(self.scene.shape, np.float32), 0.0
        volumes = {target: self._at_least(level) for target, level in self.targets_gy.items()}
        weights = self._weights()
        for target, level in self.targets_gy.items():
            # Each further level opens the beams for what is left to give.
            dose += arc_dose(volumes[target], self.body, weights=weights) * np.float32(level - given)
            given = level
        dose *= self._sparing(self._at_least(0.0))
        ripple = smooth_noise(self.scene.shape, cells=12, random=self.scene.random) * np.float32(0.012)
        for target, level in self.targets_gy.items():
            outside_mm = signed_distance_mm(volumes[target], self.scene.spacing_mm, clip_mm=_REACH_MM)
            near = 1.0 / (1.0 + np.exp((outside_mm - np.float32(_COVER_MM)) / np.float32(_EDGE_MM)))
            wanted = np.float32(level) * (np.float32(1.015) + np.clip(ripple, -0.03, 0.03))
            dose += near.astype(np.float32) * (wanted - dose)
        return np.minimum(dose, np.float32(_LARGEST_SHARE * given))

    def _at_least(self, level: float) -> Mask:
        """Return what is prescribed a dose or more."""
        mask = self.scene.nothing()
        for target, dose in self.targets_gy.items():
            if dose >= level:
                mask = mask | self.organs[target]
        return mask

    def _weights(self) -> Float64[np.ndarray, " beam"]:
        """Return how much each beam gives: more from the sides than through front and back, a little by chance."""
        angle = np.linspace(0.0, 2.0 * np.pi, NUM_BEAMS, endpoint=False)
        return (1.0 - 0.35 * np.cos(2.0 * angle)) * self.scene.random.uniform(0.9, 1.1, NUM_BEAMS)

    def _sparing(self, targets: Mask) -> Float32[np.ndarray, "i j k"]:
        """Return the factor by which a plan lowers the dose to organs at risk beside the targets."""
        factor = np.ones(self.scene.shape, np.float32)
        for organ in self.spared:
            if organ not in self.organs:
                continue
            depth_mm = -signed_distance_mm(self.organs[organ] & ~targets, self.scene.spacing_mm, clip_mm=_REACH_MM)
            factor *= 1.0 - np.float32(0.25) * np.clip((depth_mm + 4.0) / 8.0, 0.0, 1.0)
        return factor


def phantom(
    seed: int | Sequence[int],
    shape: Shape = (96, 96, 64),
    spacing_mm: Point = (3.0, 3.0, 3.0),
    *,
    name: str = "pelvis",
) -> DoseCase:
    """Return a prostate patient with a plan of 70 Gy to PTV70 and 56 Gy to PTV56, on an axial grid (LPS).

    A grid that is too small for a pelvis holds a smaller one.

    Raises:
        ConfigurationError: A side is too short.
    """
    scene = Scene.of(seed, shape, spacing_mm, nominal_mm=_PELVIS_MM)
    body = scene.body(lambda z: np.full_like(z, _PELVIS_MM[0]), lambda z: np.full_like(z, _PELVIS_MM[1]))
    organs = pelvic_organs(scene)
    hollow = organs["Rectum"] | organs["Bowel"]
    gas = hollow & (smooth_noise(scene.shape, cells=10, random=scene.random) > 1.5)
    patient = _Patient(
        scene, body, organs, pelvic_bones(scene, organs), gas, PELVIS_TARGETS_GY, ("Rectum", "Bladder"), fat_mm=20.0
    )
    return patient.case(name, body.radius < 1.0)


def neck_phantom(
    seed: int | Sequence[int],
    shape: Shape = (64, 56, 128),
    spacing_mm: Point = (3.9, 3.9, 2.5),
    *,
    absent: Sequence[str] = (),
    name: str = "neck",
) -> DoseCase:
    """Return a head-and-neck patient with OpenKBP's structures and a plan of 70, 63 and 56 Gy, on an axial grid (LPS).

    `possible_dose` ends 30 mm above and below the targets, as in the published patients.

    Args:
        seed: Another seed, another patient.
        shape: Voxels along i, j, k.
        spacing_mm: Their size.
        absent: Structures that this patient has not; of the targets at most PTV63.
        name: Of the case.

    Raises:
        ConfigurationError: A side is too short.
    """
    scene = Scene.of(seed, shape, spacing_mm, nominal_mm=_NECK_MM)
    body = scene.body(_neck_width, _neck_depth)
    organs = neck_organs(scene, body, absent=absent)
    targets_gy = {target: level for target, level in NECK_TARGETS_GY.items() if target in organs}
    airway = scene.tube((0.0, -6.0), (8.0, 7.0), (-150.0, 45.0)) & ~organs["PTV70"]
    spared = ("SpinalCord", "Brainstem", "LeftParotid", "RightParotid")
    patient = _Patient(scene, body, organs, neck_bones(scene, organs), airway, targets_gy, spared, fat_mm=6.0)
    heights = scene.z[..., np.any([organs[target].any(axis=(0, 1)) for target in targets_gy], axis=0)]
    near = (scene.z > heights.min() - 30.0) & (scene.z < heights.max() + 30.0)
    return patient.case(name, (body.radius < 1.0) & near)


def _neck_width(z: Float32[np.ndarray, " k"]) -> Float32[np.ndarray, " k"]:
    """Return half the width of head, neck and shoulders at a height."""
    return _blended(z, head=76.0, neck=62.0, shoulders=108.0)


def _neck_depth(z: Float32[np.ndarray, " k"]) -> Float32[np.ndarray, " k"]:
    return _blended(z, head=92.0, neck=66.0, shoulders=90.0)


def _blended(z: Float32[np.ndarray, " k"], *, head: float, neck: float, shoulders: float) -> Float32[np.ndarray, " k"]:
    above = 1.0 / (1.0 + np.exp(-(z - 5.0) / 8.0))
    below = 1.0 / (1.0 + np.exp((z + 95.0) / 9.0))
    return (neck + (head - neck) * above + (shoulders - neck) * below).astype(np.float32)

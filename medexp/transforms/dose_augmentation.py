"""Random changes of training patches of planned patients: only such as physics and anatomy allow.

A linear accelerator, the couch and gravity tell front from back and head from feet, and Gy are absolute. So there is
no argument for other flips, for quarter turns or for changes of the dose: they cannot be configured. What is drawn is
apart from how it is applied, as in `medexp.transforms.augmentation`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from medexp.errors import ConfigurationError
from medexp.transforms.spatial import rotation_matrix
from medexp.types import Amount, Index, Share

LEFT_RIGHT = 0  # axis of an RAS+ volume


@dataclass(frozen=True)
class DoseDraw:
    """What happens to one patch.

    Attributes:
        is_mirrored: Left becomes right, and the structures of each pair exchange their channels.
        shift_voxels: How far the patch moves before it is read.
        angle_deg: By which what is shown turns about k, from i towards j; None: not at all.
        noise: Its deviation on the normalized CT; None: none.
        noise_seed: Of the noise.
    """

    is_mirrored: bool = False
    shift_voxels: tuple[int, int, int] = (0, 0, 0)
    angle_deg: float | None = None
    noise: float | None = None
    noise_seed: int = 0

    @property
    def flips(self) -> tuple[int, ...]:
        """The axes along which a patch is reversed."""
        return (LEFT_RIGHT,) if self.is_mirrored else ()

    def in_plane(self, spacing_mm: Sequence[float]) -> Float64[np.ndarray, "2 2"]:
        """Return where the patch reads in the plane of i and j, relative to its center, in voxels.

        Turning is done in millimeters: pixels need not be square.
        """
        across = np.diag([float(size) for size in spacing_mm[:2]])
        turned = np.linalg.inv(across) @ rotation_matrix([self.angle_deg or 0.0]) @ across
        return turned @ np.diag([-1.0 if self.is_mirrored else 1.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class DoseAugmentation:
    """A recipe of random changes. A probability of 0 switches a change off and leaves the other draws as they are.

    Attributes:
        flip_probability: Of left and right being exchanged.
        translation_probability: Of the patch being moved, over voxels that are there.
        translation_voxels: How far at most, along each axis.
        rotation_probability: Of a small turn about the long axis of the patient.
        rotation_deg: By how much at most, either way.
        noise_probability: Of normal noise on the CT.
        noise_deviation: Its standard deviation, in units of the normalized CT: 0.02 are 80 HU.
    """

    flip_probability: Share
    translation_probability: Share
    translation_voxels: Index
    rotation_probability: Share
    rotation_deg: Amount
    noise_probability: Share
    noise_deviation: Amount

    def __post_init__(self) -> None:
        """Refuse an impossible recipe.

        Raises:
            ConfigurationError: Names the key.
        """
        for name in (field for field in self.__dataclass_fields__ if field.endswith("_probability")):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigurationError(f"augmentation.{name}: expected 0 to 1, got {getattr(self, name)}")
        limits = {"translation_voxels": math.inf, "rotation_deg": 45.0, "noise_deviation": math.inf}
        for name, most in limits.items():
            if not 0.0 <= getattr(self, name) <= most:
                expected = "0 or more" if most == math.inf else f"0 to {most:g}"
                raise ConfigurationError(f"augmentation.{name}: expected {expected}, got {getattr(self, name)}")

    def draw(self, generator: np.random.Generator) -> DoseDraw:
        """Return what happens to one patch: a pure function of the generator's state."""
        flipped, moved, turned, noisy = generator.random(4)
        reach = self.translation_voxels
        i, j, k = (int(step) for step in np.floor(generator.random(3) * (2 * reach + 1)) - reach)
        angle_deg = self.rotation_deg * (2.0 * generator.random() - 1.0)
        seed = int(generator.integers(2**62))
        return DoseDraw(
            is_mirrored=bool(flipped < self.flip_probability),
            shift_voxels=(i, j, k) if moved < self.translation_probability else (0, 0, 0),
            angle_deg=angle_deg if turned < self.rotation_probability else None,
            noise=self.noise_deviation if noisy < self.noise_probability else None,
            noise_seed=seed,
        )

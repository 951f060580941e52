"""One patient of dose prediction in memory: CT, structures and dose on one voxel grid, whatever the files were."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Shaped, UInt8

from medexp.errors import GridMismatchError
from medexp.geometry.affine import spacing_mm

FULL = 255  # of `coverage`: the whole voxel lies inside
HALF = 128  # from here a voxel belongs to the structure


@dataclass(frozen=True, eq=False)
class DoseCase:
    """CT, structures and dose on one grid, in the axis directions of the source: i column, j row, k slice.

    Attributes:
        name: Of the case; safe as a file name.
        ct_hu: Hounsfield units.
        affine: Voxel centers -> world millimeters in RAS+.
        masks: The structures that are present, by their canonical names.
        coverage: Share of each voxel inside the structure's contours, in 255ths; empty where only masks are known.
        dose_gy: Absorbed dose, all beams; None: not planned yet.
        possible_dose: Where dose may be, for OpenKBP; None: not known.
        constraints: The protocol's vector (`medexp.metrics.clinical`); None: not known.
        prescription_gy: To the target of the highest dose.
        metadata: Plain JSON values without patient identity: UIDs, fractions, how the dose was resampled.
        warnings: What a person should look at; the case is usable all the same.
        mlc: Leaf positions per beam, `beam<K>_mlc_a` and `beam<K>_mlc_b`, control points x leaves, mm.
    """

    name: str
    ct_hu: Int16[np.ndarray, "i j k"]
    affine: Float64[np.ndarray, "4 4"]
    masks: Mapping[str, Bool[np.ndarray, "i j k"]]
    prescription_gy: float
    coverage: Mapping[str, UInt8[np.ndarray, "i j k"]] = field(default_factory=dict)
    dose_gy: Float32[np.ndarray, "i j k"] | None = None
    possible_dose: Bool[np.ndarray, "i j k"] | None = None
    constraints: Float32[np.ndarray, " 13"] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    mlc: Mapping[str, Float32[np.ndarray, "point leaf"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse arrays on different grids.

        Raises:
            GridMismatchError: Names the array and both shapes.
        """
        arrays: dict[str, Shaped[np.ndarray, "..."] | None] = {
            "dose": self.dose_gy,
            "possible_dose": self.possible_dose,
        }
        arrays |= {f"mask {name}": mask for name, mask in self.masks.items()}
        arrays |= {f"coverage {name}": share for name, share in self.coverage.items()}
        for name, array in arrays.items():
            if array is not None and array.shape != self.shape:
                message = f"{self.name}: expected {name} on the CT's grid {self.shape}, got {array.shape}"
                raise GridMismatchError(message)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along i, j, k."""
        i, j, k = self.ct_hu.shape
        return (i, j, k)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along i, j, k."""
        return spacing_mm(self.affine)

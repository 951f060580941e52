"""One patient's doses cut in three planes for pictures: right on the left, front or head upwards, sizes in mm."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Shaped, UInt8

from medexp.errors import GridMismatchError
from medexp.geometry.affine import Axes, Flips, closest_axes, native_from_canonical
from medexp.io.dose_case import FULL, HALF, DoseCase
from medexp.plots.overlays import display_slice

_AIR_HU = -400
_MARGIN_MM = 8.0
_HALF = HALF / FULL  # from here a voxel belongs to a structure
_LEAST_SHARE = 0.05  # of the prescription: less dose than that needs no place in the picture


@dataclass(frozen=True)
class Cut:
    """A plane: the axis (RAS+) that it is perpendicular to, those of its columns and rows, letters at three edges."""

    name: str
    axis: int
    columns: int
    rows: int
    letters: tuple[str, str, str]


CUTS: Final = (
    Cut("axial", 2, 0, 1, ("R", "L", "A")),
    Cut("coronal", 1, 0, 2, ("R", "L", "S")),
    Cut("sagittal", 0, 1, 2, ("A", "P", "S")),
)


@dataclass(frozen=True, eq=False)
class DoseView:
    """CT, doses and structures in RAS+, and the point that the planes and profiles run through.

    Attributes:
        name: Of the case.
        ct_hu: In Hounsfield units.
        reference_gy: The dose that is taken for true.
        prediction_gy: The dose that is compared with it.
        structures: Masks, or where they are known the shares of voxels in 255ths: outlines from them are finer.
        targets: The prescribed dose of each target that the case has, in Gy, the highest first.
        prescription_gy: To the target of the highest dose.
        spacing_mm: Voxel size along the patient's x, y, z.
        position: The voxel that everything runs through.
        center: What lies there, in words.
        box: What is shown: the body, and where there is dose.
        world_from_voxel: Of the RAS+ array.
    """

    name: str
    ct_hu: Int16[np.ndarray, "i j k"]
    reference_gy: Float32[np.ndarray, "i j k"]
    prediction_gy: Float32[np.ndarray, "i j k"]
    structures: Mapping[str, Bool[np.ndarray, "i j k"] | UInt8[np.ndarray, "i j k"]]
    targets: Mapping[str, float]
    prescription_gy: float
    spacing_mm: tuple[float, float, float]
    position: tuple[int, int, int]
    center: str
    box: tuple[slice, slice, slice]
    world_from_voxel: Float64[np.ndarray, "4 4"]

    @classmethod
    def of(
        cls, case: DoseCase, prediction_gy: Float32[np.ndarray, "..."], *, targets_gy: Mapping[str, float]
    ) -> "DoseView":
        """Return the view through the middle of the target of the highest dose, or through the hottest voxel.

        Args:
            case: With a dose.
            prediction_gy: On its grid.
            targets_gy: Prescribed doses of the dataset's targets; those that the case has not are left out.

        Raises:
            GridMismatchError: The prediction stands on another grid, or the case has no dose to compare it with.
        """
        if case.dose_gy is None or prediction_gy.shape != case.shape:
            wanted = "a case with a dose" if case.dose_gy is None else f"a prediction on the grid {case.shape}"
            raise GridMismatchError(f"{case.name}: expected {wanted}, got shape {prediction_gy.shape}")
        axes, flips = closest_axes(case.affine)
        ct, reference, prediction = (_turned(one, axes, flips) for one in (case.ct_hu, case.dose_gy, prediction_gy))
        masks = {name: _turned(mask, axes, flips) for name, mask in case.masks.items() if mask.any()}
        present = sorted((name for name in targets_gy if name in masks), key=lambda name: -float(targets_gy[name]))
        spacing = tuple(case.spacing_mm[axis] for axis in axes)
        position = _middle(masks[present[0]]) if present else _hottest(reference)
        i, j, k = case.shape
        return cls(
            name=case.name,
            ct_hu=ct,
            reference_gy=reference,
            prediction_gy=prediction,
            structures={
                name: _turned(case.coverage[name], axes, flips) if name in case.coverage else mask
                for name, mask in masks.items()
            },
            targets={name: float(targets_gy[name]) for name in present},
            prescription_gy=case.prescription_gy,
            spacing_mm=(spacing[0], spacing[1], spacing[2]),
            position=position,
            center=f"middle of {present[0]}" if present else "hottest voxel of the reference",
            box=_box(ct, reference, case.prescription_gy, spacing),
            world_from_voxel=case.affine @ native_from_canonical((i, j, k), axes, flips),
        )

    def turned(self, volume: Shaped[np.ndarray, "..."], case: DoseCase) -> Shaped[np.ndarray, "..."]:
        """Return a volume of the case's own grid in the axes of this view."""
        return _turned(volume, *closest_axes(case.affine))

    def slice_of(self, volume: Shaped[np.ndarray, "i j k"], cut: Cut) -> Shaped[np.ndarray, "row column"]:
        """Return the plane of a volume, turned for display."""
        where = [*self.box]
        where[cut.axis] = slice(self.position[cut.axis], self.position[cut.axis] + 1)
        return display_slice(volume[tuple(where)], cut.axis, 0)

    def share_of(self, structure: str, cut: Cut) -> Float32[np.ndarray, "row column"]:
        """Return how much of every pixel of a plane lies inside a structure, 0 to 1."""
        return _share(self.slice_of(self.structures[structure], cut))

    def inside_along(self, structure: str, axis: int) -> Bool[np.ndarray, " voxel"]:
        """Return where the line along an axis runs through a structure."""
        return _share(self.along(self.structures[structure], axis)) >= _HALF

    def size_mm(self, cut: Cut) -> tuple[float, float]:
        """Return width and height of a plane."""
        width, height = ((self.box[axis].stop - self.box[axis].start) for axis in (cut.columns, cut.rows))
        return width * self.spacing_mm[cut.columns], height * self.spacing_mm[cut.rows]

    def world_mm(self, axis: int) -> Float64[np.ndarray, " voxel"]:
        """Return where the voxel centers on the line along an axis through the position lie in the world."""
        voxels = np.tile(np.array([*self.position, 1.0]), (self.ct_hu.shape[axis], 1))
        voxels[:, axis] = np.arange(len(voxels))
        return (voxels @ self.world_from_voxel.T)[:, axis]

    def along(self, volume: Shaped[np.ndarray, "i j k"], axis: int) -> Shaped[np.ndarray, " voxel"]:
        """Return the values on the line along an axis through the position."""
        where: list[int | slice] = [*self.position]
        where[axis] = slice(None)
        return volume[tuple(where)]

    def title(self, cut: Cut) -> str:
        """Return a plane's name and where it lies."""
        place = float(self.world_mm(cut.axis)[self.position[cut.axis]])
        return f"{cut.name}, {'xyz'[cut.axis]} = {place:.0f} mm".replace("-", "−")


def _turned(volume: Shaped[np.ndarray, "..."], axes: Axes, flips: Flips) -> Shaped[np.ndarray, "..."]:
    return volume.transpose(axes)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def _share(structure: Shaped[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    whole = 1 if structure.dtype == np.bool_ else FULL
    return structure.astype(np.float32) / np.float32(whole)


def _middle(mask: Bool[np.ndarray, "i j k"]) -> tuple[int, int, int]:
    """Return the voxel of a mask that is nearest to the mean of all, so that it lies inside even of a ring."""
    inside = np.argwhere(mask)
    nearest = int(((inside - inside.mean(axis=0)) ** 2).sum(axis=1).argmin())
    i, j, k = (int(index) for index in inside[nearest])
    return i, j, k


def _hottest(dose_gy: Float32[np.ndarray, "i j k"]) -> tuple[int, int, int]:
    i, j, k = (int(index) for index in np.unravel_index(int(dose_gy.argmax()), dose_gy.shape))
    return i, j, k


def _box(
    ct_hu: Int16[np.ndarray, "i j k"],
    dose_gy: Float32[np.ndarray, "i j k"],
    prescription_gy: float,
    spacing_mm: tuple[float, ...],
) -> tuple[slice, slice, slice]:
    shown = (ct_hu > _AIR_HU) | (dose_gy >= _LEAST_SHARE * prescription_gy)
    sides = []
    for axis, size in enumerate(shown.shape):
        along = np.flatnonzero(shown.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = round(_MARGIN_MM / spacing_mm[axis])
        first, last = (int(along[0]), int(along[-1])) if along.size else (0, size - 1)
        sides.append(slice(max(0, first - margin), min(size, last + 1 + margin)))
    return sides[0], sides[1], sides[2]

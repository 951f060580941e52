"""Where an axial stack of DICOM images lies: LPS+ in the file, RAS+ in medexp. The one place where the signs change."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Shaped

from medexp.io.dicom import DicomError, number, numbers, text

if TYPE_CHECKING:
    from pydicom import Dataset

RAS_FROM_LPS = np.array([-1.0, -1.0, 1.0])
_DIRECTION_TOLERANCE = 1e-4  # 0.006 degrees: 0.03 mm over 300 mm
_TILT_DEG = 0.01
_POSITION_MM = 0.1  # positions are often rounded to this
_POSITION_SHARE = 0.1  # of the distance between slices, for thin ones
_GAP_SHARE = 0.2  # of the distance between slices: rounded positions make both neighbors seem off
_IN_PLANE_MM = 0.01


@dataclass(frozen=True, eq=False)
class Plane:
    """An axial image: where its first pixel lies (LPS), whether columns and rows run along or against x and y, mm."""

    position: Float64[np.ndarray, "3"]
    signs: tuple[float, float]
    spacing_mm: tuple[float, float]

    def same_grid(self, other: "Plane") -> bool:
        """Whether both cover the same x and y with the same pixels."""
        return (
            self.signs == other.signs
            and bool(np.allclose(self.spacing_mm, other.spacing_mm, rtol=1e-5, atol=0.0))
            and bool(np.abs(self.position[:2] - other.position[:2]).max() <= _IN_PLANE_MM)
        )

    def affine(self, first_mm: float, slice_mm: float) -> Float64[np.ndarray, "4 4"]:
        """Return the affine of a stack of such images that begins at z = `first_mm`, in RAS+."""
        x_sign, y_sign = self.signs
        affine = np.diag([x_sign * self.spacing_mm[0], y_sign * self.spacing_mm[1], slice_mm, 1.0])
        affine[:3, 3] = (self.position[0], self.position[1], first_mm)
        affine[:3] *= RAS_FROM_LPS[:, None]
        return affine


def plane_of(dataset: "Dataset") -> Plane:
    """Return where an image lies.

    Raises:
        DicomError: The header does not say, or the image is not axial.
    """
    position = numbers(dataset, "ImagePositionPatient", count=3)
    cosines = numbers(dataset, "ImageOrientationPatient", count=6)
    row_mm, column_mm = numbers(dataset, "PixelSpacing", count=2)
    if min(row_mm, column_mm) <= 0.0:
        raise DicomError(f"expected a positive PixelSpacing, got {row_mm:g} and {column_mm:g} mm")
    signs = float(np.sign(cosines[0])), float(np.sign(cosines[4]))
    straight = np.array([signs[0], 0.0, 0.0, 0.0, signs[1], 0.0])
    if np.abs(cosines - straight).max() > _DIRECTION_TOLERANCE or 0.0 in signs:
        found = ", ".join(f"{value:g}" for value in cosines)
        message = f"expected axial images along the patient's axes, got ImageOrientationPatient ({found})"
        raise DicomError(f"{message}; reconstruct or resample the series without tilt")
    if text(dataset, "GantryDetectorTilt") and abs(tilt := number(dataset, "GantryDetectorTilt")) > _TILT_DEG:
        raise DicomError(f"expected a gantry without tilt, got {tilt:g} degrees; reconstruct the series without tilt")
    return Plane(position, signs, (float(column_mm), float(row_mm)))


def slice_distance_mm(positions: Float64[np.ndarray, "n"]) -> float:
    """Return the distance between slices whose rising positions are given.

    Raises:
        DicomError: There are fewer than two, two at one place, a gap or no single distance; the message names where.
    """
    if positions.size < 2:
        raise DicomError(f"expected at least two slices, got {positions.size}")
    gaps = np.diff(positions)
    usual = float(np.median(gaps))
    if gaps.min() < 1e-3:
        twice = positions[int(gaps.argmin())]
        raise DicomError(f"expected one image per slice, got two at z = {twice:g} mm; leave one series in the folder")
    odd = np.flatnonzero(np.abs(gaps - usual) > _GAP_SHARE * usual)
    if odd.size:
        raise DicomError(_gap(positions, int(odd[0]), usual))
    distance = float(positions[-1] - positions[0]) / (positions.size - 1)
    apart = np.abs(positions - positions[0] - distance * np.arange(positions.size))
    if apart.max() > min(_POSITION_MM, _POSITION_SHARE * usual):
        found = f"one at z = {positions[apart.argmax()]:g} mm, {apart.max():.3g} mm from its place"
        raise DicomError(f"expected slices every {distance:g} mm, got {found}; resample the series")
    return distance


def _gap(positions: Float64[np.ndarray, "n"], place: int, usual: float) -> str:
    below, above = positions[place], positions[place + 1]
    message = f"expected slices every {usual:g} mm, got {above - below:g} mm between z = {below:g} and {above:g} mm"
    missing = round((above - below) / usual) - 1
    return (
        f"{message}; {missing} missing, export the whole series" if missing > 0 else f"{message}; resample the series"
    )


def lps_stack(
    array: Shaped[np.ndarray, "i j k"], affine: Float64[np.ndarray, "4 4"]
) -> tuple[Shaped[np.ndarray, "i j k"], Float64[np.ndarray, "3"], Float64[np.ndarray, "3"]]:
    """Return an array turned so that its axes grow to the left, the back and the head, its first voxel and spacing.

    Raises:
        DicomError: The axes do not run along x, y and z.
    """
    steps = affine[:3, :3] * RAS_FROM_LPS[:, None]
    spacing = np.abs(np.diag(steps))
    if spacing.min() <= 0.0 or np.abs(steps - np.diag(np.diag(steps))).max() > _DIRECTION_TOLERANCE * spacing.min():
        raise DicomError("expected a grid along the patient's axes, got an oblique one; resample it")
    against = np.diag(steps) < 0.0
    first = np.where(against, np.array(array.shape) - 1.0, 0.0)
    position = (affine[:3, :3] @ first + affine[:3, 3]) * RAS_FROM_LPS
    return array[tuple(slice(None, None, -1 if turned else 1) for turned in against)], position, spacing

"""How far a predicted dose is from a reference, voxel by voxel, and what is wrong with a dose at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from medexp.errors import CaseError
from medexp.metrics.grids import require_same_grid

LEVELS_PERCENT = (10, 50, 90)  # of the reference's maximum
EXCESSIVE = 1.2  # of the prescription


@dataclass(frozen=True)
class Oddities:
    """Voxels of a prediction that no delivered dose would have; they are counted and scored as they are."""

    num_negative: int
    minimum_gy: float
    num_excessive: int
    maximum_gy: float

    def warnings(self, prescription_gy: float) -> list[str]:
        """Return a sentence for each kind that occurs."""
        found = []
        if self.num_negative:
            found.append(f"{self.num_negative} voxels have a negative dose, down to {self.minimum_gy:.2f} Gy")
        if self.num_excessive:
            limit = f"{100 * EXCESSIVE:.0f} % of {prescription_gy:g} Gy"
            found.append(f"{self.num_excessive} voxels have more than {limit}, up to {self.maximum_gy:.2f} Gy")
        return found


@dataclass(frozen=True)
class DoseErrors:
    """Errors where dose may be, on the whole grid, where the reference is high, and in every structure.

    Attributes:
        mae_gy: Mean absolute error over the voxels where dose may be, or over all if nothing is known of that: air
            without dose makes no prediction look better. Training validates with the same number.
        rmse_gy: Root of the mean squared error, over the same voxels.
        max_error_gy: The largest error of any voxel.
        reference_mean_gy: Over the whole grid, as the three that follow.
        prediction_mean_gy: The same.
        reference_max_gy: The same.
        prediction_max_gy: The same.
        mae_grid_gy: Mean absolute error over the whole grid.
        mae_at_gy: Where the reference reaches so many percent of its maximum; None where it has no dose at all.
        mae_of_gy: In the structures.
        oddities: What is strange about the prediction.
    """

    mae_gy: float
    rmse_gy: float
    max_error_gy: float
    reference_mean_gy: float
    prediction_mean_gy: float
    reference_max_gy: float
    prediction_max_gy: float
    mae_grid_gy: float
    mae_at_gy: Mapping[int, float | None]
    mae_of_gy: Mapping[str, float]
    oddities: Oddities

    def row(self) -> dict[str, Any]:
        """Return the errors by name, as they head the columns of a per-case table."""
        return {
            "mae_gy": self.mae_gy,
            "rmse_gy": self.rmse_gy,
            "max_error_gy": self.max_error_gy,
            "prediction_mean_gy": self.prediction_mean_gy,
            "reference_mean_gy": self.reference_mean_gy,
            "prediction_max_gy": self.prediction_max_gy,
            "reference_max_gy": self.reference_max_gy,
            "mae_gy/whole grid": self.mae_grid_gy,
            **{f"mae_gy/at {level} percent": value for level, value in self.mae_at_gy.items()},
            **{f"mae_gy/{structure}": value for structure, value in self.mae_of_gy.items()},
            "num_negative_voxels": self.oddities.num_negative,
            "num_excessive_voxels": self.oddities.num_excessive,
        }


def require_reference(dose_gy: Float32[np.ndarray, "i j k"]) -> None:
    """Refuse a reference that is no dose.

    Raises:
        CaseError: It has no voxel, values that are not finite, or negative ones.
    """
    require_finite(dose_gy, "the reference dose")
    negative = int(np.count_nonzero(dose_gy < 0))
    if negative:
        message = f"the reference dose: expected no negative values, got {negative} down to {dose_gy.min():g} Gy"
        raise CaseError(f"{message}; correct the file that the dose comes from")


def require_finite(dose_gy: Float32[np.ndarray, "..."], what: str) -> None:
    """Refuse a dose of no voxels, or with values that are NaN or infinite: no mean of them means anything.

    Raises:
        CaseError: Says how many there are.
    """
    if dose_gy.size == 0:
        raise CaseError(f"{what}: expected at least one voxel, got shape {dose_gy.shape}; correct the file")
    num_nan, num_infinite = int(np.isnan(dose_gy).sum()), int(np.isinf(dose_gy).sum())
    if num_nan or num_infinite:
        message = f"{what}: expected finite values, got {num_nan} NaN and {num_infinite} infinite voxels"
        raise CaseError(f"{message}; correct what wrote the file")


def oddities_of(prediction_gy: Float32[np.ndarray, "..."], prescription_gy: float) -> Oddities:
    """Count negative voxels and those above 120 % of the prescription."""
    return Oddities(
        num_negative=int(np.count_nonzero(prediction_gy < 0)),
        minimum_gy=float(prediction_gy.min()),
        num_excessive=int(np.count_nonzero(prediction_gy > EXCESSIVE * prescription_gy)),
        maximum_gy=float(prediction_gy.max()),
    )


def dose_errors(
    reference_gy: Float32[np.ndarray, "i j k"],
    prediction_gy: Float32[np.ndarray, "..."],
    *,
    masks: Mapping[str, Bool[np.ndarray, "i j k"]],
    prescription_gy: float,
    possible_dose: Bool[np.ndarray, "i j k"] | None = None,
) -> DoseErrors:
    """Compare a prediction with its reference.

    Args:
        reference_gy: Delivered dose.
        prediction_gy: Predicted dose on the same grid; it is scored as it is.
        masks: Structures; one without a voxel is left out.
        prescription_gy: To the target of the highest dose.
        possible_dose: Where dose may be; None, or nowhere: every voxel counts.

    Raises:
        CaseError: A dose is not finite, or the reference is negative somewhere.
        GridMismatchError: The doses have different shapes.
    """
    require_same_grid(prediction_gy, reference_gy)
    require_reference(reference_gy)
    require_finite(prediction_gy, "the predicted dose")
    error = np.abs(prediction_gy - reference_gy)
    counted = error[possible_dose] if possible_dose is not None and possible_dose.any() else error
    highest = float(reference_gy.max())
    at_levels = {
        level: _mean(error[reference_gy >= highest * level / 100]) if highest > 0 else None for level in LEVELS_PERCENT
    }
    return DoseErrors(
        mae_gy=_mean(counted),
        rmse_gy=float(np.sqrt(np.mean(np.square(counted, dtype=np.float64)))),
        max_error_gy=float(error.max()),
        reference_mean_gy=_mean(reference_gy),
        prediction_mean_gy=_mean(prediction_gy),
        reference_max_gy=highest,
        prediction_max_gy=float(prediction_gy.max()),
        mae_grid_gy=_mean(error),
        mae_at_gy=at_levels,
        mae_of_gy={name: _mean(error[mask]) for name, mask in masks.items() if mask.any()},
        oddities=oddities_of(prediction_gy, prescription_gy),
    )


def _mean(values: Float32[np.ndarray, "..."]) -> float:
    return float(values.mean(dtype=np.float64))

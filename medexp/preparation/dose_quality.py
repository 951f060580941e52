"""What is checked of a case of dose prediction before it may train anything, and how bad it is if it fails.

Source:
    The checks and their limits are those of the origin system (its validation flags). A case whose dose cannot be
    trusted voxel by voxel cannot be used; what may have a clinical reason is a warning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from medexp.io.dose_case import DoseCase
from medexp.preparation.structure_names import HIGHEST_TARGET as TARGET
from medexp.preparation.structure_names import is_target

LEAST_D95_SHARE = 64.0 / 70.0  # of the prescription
HIGHEST_SHARE = 1.5
IMPOSSIBLE_SHARE = 3.0  # from here on it is not Gy, whatever the file says
MEAN_SHARES = (0.85, 1.15)
MOST_TRUNCATED = MOST_UNCOVERED = MOST_WITHOUT_DOSE = 0.05
MOST_UNCOVERED_TARGET = 0.01  # what lies beyond the RTDOSE has no dose, and moves a target's D98
_RING_MM = (5.0, 20.0)  # around the target, where a dose that is in its place has fallen off
_CT_RANGE_HU = (-1100, 4000)
_LARGEST_AIR_HU, _LEAST_BONE_HU = -500, 100  # a patient's CT holds values below the one and above the other


@dataclass(frozen=True)
class Flag:
    """One check of a case.

    `value` is what was measured. `is_critical` says that a case which fails must not be used.
    """

    name: str
    passed: bool
    is_critical: bool
    value: float | None
    message: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values; the message only where it says something."""
        record = {"name": self.name, "passed": self.passed, "critical": self.is_critical, "value": self.value}
        return record if self.passed else {**record, "message": self.message}


@dataclass(frozen=True)
class Losses:
    """What a case lost on the way to its grid, as shares by structure: outside of the grid, outside of the RTDOSE."""

    truncated: Mapping[str, float]
    uncovered: Mapping[str, float]


def check_case(
    case: DoseCase, distances_mm: Mapping[str, Float32[np.ndarray, "i j k"]], losses: Losses
) -> tuple[Flag, ...]:
    """Return every check that the case allows, in a fixed order.

    Args:
        case: On its final grid.
        distances_mm: Signed distances to its structures, negative inside.
        losses: See there.
    """
    flags = [_ct_range(case.ct_hu), *_truncation(losses), _has_target(case)]
    if case.dose_gy is not None:
        flags += _of_dose(case.dose_gy, case.prescription_gy)
        flags += _coverage(losses)
        if TARGET in case.masks and case.masks[TARGET].any():
            mask = case.masks[TARGET]
            flags += _of_target(case.dose_gy, mask, case.prescription_gy)
            flags.append(_registration(case.dose_gy, mask, distances_mm[TARGET]))
    return tuple(flags)


def _flag(name: str, passed: object, value: float | None, message: str, *, is_critical: bool = False) -> Flag:
    return Flag(name, bool(passed), is_critical, None if value is None or not np.isfinite(value) else value, message)


def _ct_range(ct_hu: Shaped[np.ndarray, "i j k"]) -> Flag:
    low, high = int(ct_hu.min()), int(ct_hu.max())
    passed = _CT_RANGE_HU[0] <= low <= _LARGEST_AIR_HU and _LEAST_BONE_HU <= high <= _CT_RANGE_HU[1]
    message = f"expected a CT from air to bone within {_CT_RANGE_HU[0]} to {_CT_RANGE_HU[1]} HU, got {low} to {high}"
    return _flag("ct_range", passed, float(high), message)


def _truncation(losses: Losses) -> list[Flag]:
    hint = "lie outside; enlarge dataset.grid"
    return [
        _flag(
            f"truncation/{name}",
            share <= MOST_TRUNCATED,
            share,
            f"expected all of {name} on the grid, but {100 * share:.1f} % of it {hint}",
            is_critical=True,
        )
        for name, share in losses.truncated.items()
    ]


def _coverage(losses: Losses) -> list[Flag]:
    hint = "lie outside of the dose grid; calculate the dose on a larger grid"
    return [
        _flag(
            f"dose_covers/{name}",
            share <= (MOST_UNCOVERED_TARGET if is_target(name) else MOST_UNCOVERED),
            share,
            f"expected the RTDOSE to cover {name}, but {100 * share:.1f} % of it {hint}",
            is_critical=is_target(name),
        )
        for name, share in losses.uncovered.items()
    ]


def _has_target(case: DoseCase) -> Flag:
    message = f"expected a structure {TARGET}, found {', '.join(case.masks) or 'none'}; contour it or add an alias"
    return _flag("ptv70_present", TARGET in case.masks and case.masks[TARGET].any(), None, message)


def _of_dose(dose_gy: Float32[np.ndarray, "i j k"], prescription_gy: float) -> list[Flag]:
    num_bad = float(dose_gy.size - np.count_nonzero(np.isfinite(dose_gy)))
    low, high = float(dose_gy.min()), float(dose_gy.max())
    limit, is_impossible = HIGHEST_SHARE * prescription_gy, high >= IMPOSSIBLE_SHARE * prescription_gy
    highest = f"expected less than {limit:.1f} Gy, got {high:.1f} Gy{'; is it in cGy?' if is_impossible else ''}"
    negative = f"expected no negative dose, got down to {low:.3f} Gy"
    infinite = f"expected a finite dose, got {num_bad:,.0f} voxels that are NaN or infinite"
    return [
        _flag("dose_finite", not num_bad, num_bad, infinite, is_critical=True),
        _flag("dose_not_negative", not low < 0.0, low, negative, is_critical=True),
        _flag("dose_maximum", not high >= limit, high, highest, is_critical=is_impossible),
    ]


def _of_target(
    dose_gy: Float32[np.ndarray, "i j k"], mask: Bool[np.ndarray, "i j k"], prescription_gy: float
) -> list[Flag]:
    inside = dose_gy[mask]
    if not np.isfinite(inside).all():
        return []  # said already
    mean, d95 = float(inside.mean(dtype=np.float64)), float(np.percentile(inside, 5.0))
    without = float(np.mean(inside <= 0.0))
    low, high = (share * prescription_gy for share in MEAN_SHARES)
    least = LEAST_D95_SHARE * prescription_gy
    means = f"expected a mean dose of {low:.1f} to {high:.1f} Gy in {TARGET}, got {mean:.1f} Gy"
    covered = f"expected a D95 of at least {least:.1f} Gy in {TARGET}, got {d95:.1f} Gy: are dose and contours aligned?"
    empty = f"expected dose all over {TARGET}, but {100 * without:.1f} % of it have none"
    return [
        _flag("ptv70_mean_dose", low <= mean <= high, mean, means),
        _flag("ptv70_d95", d95 >= least, d95, covered),
        _flag("zero_dose_in_ptv70", without <= MOST_WITHOUT_DOSE, without, empty),
    ]


def _registration(
    dose_gy: Float32[np.ndarray, "i j k"],
    mask: Bool[np.ndarray, "i j k"],
    distance_mm: Float32[np.ndarray, "i j k"],
) -> Flag:
    """Compare the dose in the target with that around it: a dose that lies elsewhere does not fall off there."""
    ring = (distance_mm >= _RING_MM[0]) & (distance_mm <= _RING_MM[1])
    inside = float(dose_gy[mask].mean(dtype=np.float64))
    around = float(dose_gy[ring].mean(dtype=np.float64)) if ring.any() else np.nan
    hint = "is it in its place?"
    message = f"expected more dose in {TARGET} than around it, got {inside:.1f} and {around:.1f} Gy: {hint}"
    return _flag("registration", not inside <= around, inside - around, message)

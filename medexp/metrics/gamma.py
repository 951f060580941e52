"""The gamma index of two doses: how far apart they are in dose and in distance at once, in units of what is allowed.

gamma(r) is the least of sqrt((|r - r'| / distance)^2 + ((evaluated(r') - reference(r)) / dose)^2) over the points r'
of the evaluated dose (Low et al. 1998, https://doi.org/10.1118/1.598248); up to 1 a voxel passes. As in
`pymedphys.gamma`, the reference implementation, it is defined at the voxels of the reference, the evaluated dose is
interpolated linearly, and the search looks at points on spheres, a tenth of the distance apart. Points off the grid
are not looked at.
"""

from dataclasses import dataclass, fields
from math import isfinite
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float32

from medexp.errors import CaseError, ConfigurationError, GridMismatchError, UnknownOptionError
from medexp.metrics.gamma_points import search_points
from medexp.metrics.grids import Spacing, require_same_grid, spacing_on
from medexp.types import Amount, Count, Positive

Dose: TypeAlias = Float[np.ndarray, "i j k"]
Method: TypeAlias = Literal["exact", "pymedphys"]

_BARELY_FAILS = 1.0001  # a gamma that rounding cannot take for a pass
_PYMEDPHYS_BYTES = 2**29  # that it may fill with points at a time; more is not faster


@dataclass(frozen=True, kw_only=True)
class GammaCriteria:
    """What two doses are allowed to differ by.

    Attributes:
        dose_percent: Dose criterion, of the normalization, or of the reference's dose at the voxel if `local`.
        distance_mm: Distance criterion.
        cutoff_percent: Voxels whose reference is below so much of the normalization are not evaluated.
        local: See `dose_percent`.
        max_gamma: Where the search ends; a larger gamma counts as this.
        steps_per_distance: Steps of the search per distance criterion.
        normalization_gy: None: the maximum of the reference.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    dose_percent: Positive
    distance_mm: Positive
    cutoff_percent: Amount
    local: bool
    max_gamma: float
    steps_per_distance: Count = 10
    normalization_gy: Positive | None = None

    def __post_init__(self) -> None:
        lowest = {"cutoff_percent": 0.0, "max_gamma": 1.0, "steps_per_distance": 1}
        for key in (field.name for field in fields(self) if field.name != "local"):
            value = getattr(self, key)
            if value is None and key == "normalization_gy":
                continue
            if not isfinite(value) or value < lowest.get(key, 0.0) or (key not in lowest and value == 0):
                wanted = f"a number from {lowest[key]:g} on" if key in lowest else "a number above 0"
                raise ConfigurationError(f"{key}: expected {wanted}, got {value}; 3 %/3 mm up to gamma 2 is common")

    @property
    def label(self) -> str:
        """The criteria as they are written in papers, such as "3%/3mm global"."""
        return f"{self.dose_percent:g}%/{self.distance_mm:g}mm {'local' if self.local else 'global'}"


@dataclass(frozen=True)
class GammaSummary:
    """Gamma over the evaluated voxels.

    Attributes:
        pass_rate_percent: Share with gamma up to 1; None: no voxel was evaluated.
        mean: None: no voxel was evaluated, or only passing was asked for.
        num_voxels: How many were evaluated.
    """

    pass_rate_percent: float | None
    mean: float | None
    num_voxels: int


def gamma_map(
    reference_gy: Dose,
    evaluated_gy: Float[np.ndarray, "..."],
    spacing_mm: Spacing,
    criteria: GammaCriteria,
    *,
    mask: Bool[np.ndarray, "..."] | None = None,
    subsample: Count = 1,
    method: Method = "exact",
) -> Float32[np.ndarray, "i j k"]:
    """Return gamma at the voxels of the reference; `nan` below the cutoff, off the mask and where none was asked for.

    With a local criterion no gamma exists where the reference is 0.

    Args:
        reference_gy: The dose that is taken for true.
        evaluated_gy: The dose that is judged, on the same grid; all of it is searched, whatever the mask.
        spacing_mm: Voxel size along i, j, k.
        criteria: What is allowed.
        mask: Evaluate these voxels only.
        subsample: Evaluate every n-th voxel along each axis.
        method: "exact" is medexp's own search; "pymedphys" the reference implementation, many times slower.

    Raises:
        GridMismatchError: The arrays have different shapes, or an axis has a single voxel.
        CaseError: A dose is negative or not finite, or the spacing is not positive.
        UnknownOptionError: There is no such method.
    """
    spacing = _checked(reference_gy, evaluated_gy, mask, spacing_mm)
    if method not in ("exact", "pymedphys"):
        raise UnknownOptionError(f"method: expected exact or pymedphys, got {method!r}; exact gives the same numbers")
    wanted, norm_gy = _wanted(reference_gy, criteria, mask, subsample)
    if not wanted.any():
        return np.full(reference_gy.shape, np.nan, dtype=np.float32)
    if method == "pymedphys":
        return _pymedphys_gamma(reference_gy, evaluated_gy, wanted, norm_gy, spacing, criteria)
    return _exact_gamma(reference_gy, evaluated_gy, wanted, norm_gy, spacing, criteria, only_passing=False)


def summarize_gamma(gamma: Float[np.ndarray, "..."]) -> GammaSummary:
    """Return pass rate and mean over the voxels that have a gamma; None, never 0, if none has."""
    values = gamma[~np.isnan(gamma)]
    if values.size == 0:
        return GammaSummary(None, None, 0)
    passing = 100 * float(np.count_nonzero(values <= 1)) / values.size
    return GammaSummary(passing, float(values.mean(dtype=np.float64)), values.size)


def gamma_pass_rate(
    reference_gy: Dose,
    evaluated_gy: Float[np.ndarray, "..."],
    spacing_mm: Spacing,
    criteria: GammaCriteria,
    *,
    mask: Bool[np.ndarray, "..."] | None = None,
    subsample: Count = 1,
) -> GammaSummary:
    """Return the pass rate that `gamma_map` would give, without the mean: each search ends once the voxel passes.

    Raises:
        GridMismatchError: The arrays have different shapes, or an axis has a single voxel.
        CaseError: A dose is negative or not finite, or the spacing is not positive.
    """
    spacing = _checked(reference_gy, evaluated_gy, mask, spacing_mm)
    wanted, norm_gy = _wanted(reference_gy, criteria, mask, subsample)
    if not wanted.any():
        return GammaSummary(None, None, 0)
    gamma = _exact_gamma(reference_gy, evaluated_gy, wanted, norm_gy, spacing, criteria, only_passing=True)
    summary = summarize_gamma(gamma)
    return GammaSummary(summary.pass_rate_percent, None, summary.num_voxels)


def _checked(
    reference_gy: Dose,
    evaluated_gy: Float[np.ndarray, "..."],
    mask: Bool[np.ndarray, "..."] | None,
    spacing_mm: Spacing,
) -> tuple[float, ...]:
    require_same_grid(evaluated_gy, reference_gy)
    if mask is not None and mask.shape != reference_gy.shape:
        message = f"expected the mask on the doses' grid {reference_gy.shape}, got {mask.shape}; resample it"
        raise GridMismatchError(message)
    if min(reference_gy.shape) < 2:
        message = f"expected at least 2 voxels along each axis to interpolate between, got shape {reference_gy.shape}"
        raise GridMismatchError(message)
    for name, dose in (("reference", reference_gy), ("evaluated", evaluated_gy)):
        lowest, highest = float(dose.min()), float(dose.max())  # either is nan if one value is
        if not 0 <= lowest <= highest < np.inf:
            message = (
                f"expected finite doses from 0 Gy on, got {lowest} to {highest} in the {name} dose; clip or repair it"
            )
            raise CaseError(message)
    return spacing_on(reference_gy, spacing_mm)


def _wanted(
    reference_gy: Dose, criteria: GammaCriteria, mask: Bool[np.ndarray, "i j k"] | None, subsample: Count
) -> tuple[Bool[np.ndarray, "i j k"], float]:
    """Return the voxels to evaluate, and the normalization in Gy."""
    if subsample < 1:
        raise ConfigurationError(f"subsample: expected a whole number from 1 on, got {subsample}; 1 takes every voxel")
    norm_gy = float(reference_gy.max()) if criteria.normalization_gy is None else criteria.normalization_gy
    wanted = np.zeros(reference_gy.shape, dtype=bool)
    if norm_gy == 0:  # no dose at all, and nothing that a percent would be of
        return wanted, norm_gy
    some = (slice(None, None, subsample),) * 3
    wanted[some] = reference_gy[some] >= criteria.cutoff_percent / 100 * norm_gy
    if mask is not None:
        wanted &= mask
    if criteria.local:
        wanted &= reference_gy > 0
    return wanted, norm_gy


def _exact_gamma(
    reference_gy: Dose,
    evaluated_gy: Dose,
    wanted: Bool[np.ndarray, "i j k"],
    norm_gy: float,
    spacing_mm: tuple[float, ...],
    criteria: GammaCriteria,
    *,
    only_passing: bool,
) -> Float32[np.ndarray, "i j k"]:
    from medexp.metrics.gamma_search import Bounds, search  # numba

    points = search_points(
        spacing_mm,
        distance_mm=criteria.distance_mm,
        steps_per_distance=criteria.steps_per_distance,
        reach=1.0 if only_passing else criteria.max_gamma,
    )
    share = criteria.dose_percent / 100
    bounds = Bounds(
        dose_share=share if criteria.local else 0.0,
        dose_gy=share * norm_gy,
        limit=_BARELY_FAILS if only_passing else float(criteria.max_gamma) ** 2,
        enough=1.0 if only_passing else 0.0,
    )
    dtype = np.result_type(reference_gy, evaluated_gy, np.float32)
    reference, evaluated = (np.ascontiguousarray(dose, dtype=dtype) for dose in (reference_gy, evaluated_gy))
    return search(reference, evaluated, wanted, points, bounds)


def _pymedphys_gamma(
    reference_gy: Dose,
    evaluated_gy: Dose,
    wanted: Bool[np.ndarray, "i j k"],
    norm_gy: float,
    spacing_mm: tuple[float, ...],
    criteria: GammaCriteria,
) -> Float32[np.ndarray, "i j k"]:
    import pymedphys

    axes = tuple(np.arange(size) * step for size, step in zip(reference_gy.shape, spacing_mm, strict=True))
    gamma = pymedphys.gamma(
        axes,
        np.where(wanted, reference_gy, -1),  # below every cutoff: not evaluated
        axes,
        evaluated_gy,
        criteria.dose_percent,
        criteria.distance_mm,
        lower_percent_dose_cutoff=criteria.cutoff_percent,
        interp_fraction=criteria.steps_per_distance,
        max_gamma=criteria.max_gamma,
        local_gamma=criteria.local,
        global_normalisation=norm_gy,
        ram_available=_PYMEDPHYS_BYTES,
    )
    just_fails = np.nextafter(np.float32(1), np.float32(2))
    return np.where(gamma > 1, np.maximum(gamma.astype(np.float32), just_fails), gamma.astype(np.float32))

"""From a table of cases to a few numbers, with every case accounted for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from medexp.errors import CohortError, ConfigurationError, UnknownOptionError

# What an undefined value (nothing to measure: Dice of two empty masks) is worth: "exclude" leaves it out, a number
# takes its place.
Policy: TypeAlias = str | float | int
Policies: TypeAlias = Policy | Mapping[str, Policy]


@dataclass(frozen=True)
class ColumnSummary:
    """Statistics of one column of a per-case table.

    Attributes:
        mean: Mean of the used values; infinite if one is.
        sd: Sample standard deviation (n - 1); `nan` below two values or if one is infinite.
        median: Median.
        min: Smallest value.
        max: Largest value.
        ci_low: Lower end of the percentile-bootstrap interval of the mean; `nan` below two values.
        ci_high: Upper end of the same.
        n_used: Cases that the statistics stand on.
        n_undefined: Cases without a defined value, whatever the policy made of them.
        n_infinite: Used values that are infinite (a distance to nothing).
        empty_reference: The policy for undefined values.
    """

    mean: float
    sd: float
    median: float
    min: float
    max: float
    ci_low: float
    ci_high: float
    n_used: int
    n_undefined: int
    n_infinite: int
    empty_reference: Policy

    def row(self) -> dict[str, Any]:
        """Return the statistics by name."""
        return asdict(self)


def summarize_cases(
    rows: Sequence[Mapping[str, Any]],
    empty_reference: Policies,
    seed: int,
    columns: Iterable[str] | None = None,
    infinite_as: Mapping[str, float | int] | None = None,
    num_resamples: int = 2000,
    confidence: float = 0.95,
) -> dict[str, ColumnSummary]:
    """Summarize every numeric column of a per-case table.

    `nan` and `None` are undefined values. Infinite values are values: they are used as they are, or as
    `infinite_as` says.

    Args:
        rows: One mapping per case, all with the same columns. Columns of text are passed over.
        empty_reference: What an undefined value is worth: "exclude", or a number such as 1.0 or 0.0. One policy for
            all columns, or one per column or score (the part before "/" of a column).
        seed: Seed of the bootstrap; every column draws the same way, so it does not matter which others there are.
        columns: Columns to summarize; all numeric ones if not given.
        infinite_as: Number that stands for an infinite value, per column or score; a penalty distance for example.
        num_resamples: Bootstrap samples.
        confidence: Coverage of the interval.

    Returns:
        One summary per column, in the order of the table.

    Raises:
        UnknownOptionError: A wanted column is not in the table.
        CohortError: There are no cases, or their columns differ, or a column mixes text and numbers.
        ConfigurationError: A column has undefined values and no policy.
    """
    present = _columns_of(rows)
    wanted = present if columns is None else list(columns)
    if not set(wanted) <= set(present):
        raise UnknownOptionError(
            f"expected columns of the table ({', '.join(present)}), got also {sorted(set(wanted) - set(present))}; "
            "correct the names"
        )
    summaries = {}
    for name in wanted:
        values = _values(rows, name)
        if values is None:
            continue
        values = np.where(np.isinf(values), _setting(infinite_as or {}, name, values), values)
        policy = _policy(empty_reference, name, has_undefined=bool(np.isnan(values).any()))
        summaries[name] = _summarize(values, policy, seed, num_resamples, confidence)
    return summaries


def bootstrap_interval(
    values: Float[np.ndarray, " case"], seed: int, num_resamples: int = 2000, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the percentile-bootstrap interval of the mean; `nan` below two values.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(values), size=(num_resamples, len(values)))
    means = values[drawn].mean(axis=1)
    tail = 100.0 * (1.0 - confidence) / 2.0
    tails = [tail, 100.0 - tail]
    if np.isfinite(means).all():
        low, high = np.percentile(means, tails)
    else:  # no interpolation towards infinity
        low, high = np.percentile(means, tails, method="inverted_cdf")
    return float(low), float(high)


def _summarize(
    values: Float[np.ndarray, " case"], policy: Policy, seed: int, num_resamples: int, confidence: float
) -> ColumnSummary:
    is_undefined = np.isnan(values)
    used = values[~is_undefined] if policy == "exclude" else np.where(is_undefined, float(policy), values)
    is_finite = bool(np.isfinite(used).all())
    low, high = bootstrap_interval(used, seed, num_resamples, confidence)
    return ColumnSummary(
        mean=float(used.mean()) if len(used) else float("nan"),
        sd=float(used.std(ddof=1)) if len(used) > 1 and is_finite else float("nan"),
        median=float(np.median(used)) if len(used) else float("nan"),
        min=float(used.min(initial=np.inf)) if len(used) else float("nan"),
        max=float(used.max(initial=-np.inf)) if len(used) else float("nan"),
        ci_low=low,
        ci_high=high,
        n_used=len(used),
        n_undefined=int(is_undefined.sum()),
        n_infinite=int(np.isinf(used).sum()),
        empty_reference=policy,
    )


def _columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        raise CohortError("expected at least one case to summarize, got none; check that the evaluation found cases")
    names = list(rows[0])
    for index, row in enumerate(rows):
        if set(row) != set(names):
            raise CohortError(
                f"expected the columns of the first case in every row, got others in row {index}: "
                f"{sorted(set(row) ^ set(names))}; score all cases with the same labels and regions"
            )
    return names


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> Float[np.ndarray, " case"] | None:
    """Return a column as numbers, or nothing for a column of text."""
    cells = [row[name] for row in rows]
    is_text = [isinstance(cell, str) for cell in cells]
    if all(is_text):
        return None
    if any(is_text):
        raise CohortError(
            f"expected numbers or text in column {name}, got both, text first in row {is_text.index(True)}; "
            "correct the table"
        )
    return np.array([np.nan if cell is None else float(cell) for cell in cells], dtype=np.float64)


def _setting(settings: Mapping[str, Any], name: str, default: Any) -> Any:
    return settings.get(name, settings.get(name.split("/")[0], default))


def _policy(policies: Policies, name: str, *, has_undefined: bool) -> Policy:
    policy = _setting(policies, name, None) if isinstance(policies, Mapping) else policies
    if policy is None and has_undefined:
        raise ConfigurationError(
            f'expected a policy for the undefined values of {name}, got none; say "exclude" or a number in '
            "empty_reference"
        )
    if isinstance(policy, str) and policy != "exclude":
        raise ConfigurationError(f'expected "exclude" or a number as policy of {name}, got {policy!r}; correct it')
    return "exclude" if policy is None else policy

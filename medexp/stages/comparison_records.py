"""What a comparison consists of: scores of groups, differences of pairs, and the cases that are missing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medexp.metrics.paired import PairedDifference, Spread
from medexp.stages.compared_groups import Groups, Member


@dataclass(frozen=True)
class Statistics:
    """How intervals are made."""

    confidence: float
    num_resamples: int
    seed: int


@dataclass(frozen=True)
class Metric:
    """A column of the per-case tables, which way it is better, and what an infinite value counts for."""

    column: str
    is_higher_better: bool
    infinite_as: float | None = None


@dataclass(frozen=True)
class Missing:
    """A case that a group's number does not stand on, or not wholly, and why."""

    metric: str
    group: str
    case: str
    reason: str


@dataclass(frozen=True)
class RunScore:
    """One evaluation's mean over its cases."""

    member: Member
    mean: float
    n_cases: int


@dataclass(frozen=True)
class GroupScore:
    """One group in one metric.

    Attributes:
        group: Its name.
        over_runs: Over the means of its evaluations: folds and seeds.
        mean: Mean over cases; a case's value is its mean over seeds.
        ci_low: Lower end of the bootstrap interval over patients.
        ci_high: Upper end of the same.
        cases: Every case's value.
        runs: Its evaluations.
        rank: 1 is best, by the mean over the cases that all groups have.
        mean_rank: Mean over these cases of the group's rank in the case.
        wins: Groups from which it differs for the better after correction.
    """

    group: str
    over_runs: Spread
    mean: float
    ci_low: float
    ci_high: float
    cases: Mapping[str, float]
    runs: Sequence[RunScore]
    rank: int = 0
    mean_rank: float = math.nan
    wins: int = 0


@dataclass(frozen=True)
class PairScore:
    """Two groups in one metric: the first minus the second, over the cases that both have.

    `p_holm` is corrected for all tests of the comparison; `better` names a group if it is below 1 - confidence.
    """

    metric: str
    first: str
    second: str
    difference: PairedDifference
    p_holm: float = math.nan
    better: str | None = None


@dataclass(frozen=True)
class MetricComparison:
    """All groups in one metric, best first, and every pair of them."""

    metric: Metric
    groups: Sequence[GroupScore]
    pairs: Sequence[PairScore]
    n_common: int


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison found."""

    groups: Groups
    metrics: Sequence[MetricComparison]
    missing: Sequence[Missing]
    patients: Mapping[str, str]
    statistics: Statistics
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def num_tests(self) -> int:
        """Return for how many tests p-values were corrected."""
        return sum(len(one.pairs) for one in self.metrics)

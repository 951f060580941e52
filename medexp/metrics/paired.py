"""Paired comparison of methods on the same cases: differences, intervals, tests, effect sizes, ranks.

Cases of one patient are not independent of each other. Intervals resample patients with all their cases; tests and
effect sizes see one value per patient, the mean over the patient's cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy import stats

_BLOCK = 1 << 21  # drawn indices at a time
_NAN = float("nan")


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation and Student's t interval of a few repetitions; `nan` where n is too small."""

    mean: float
    sd: float
    n: int
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class PairedDifference:
    """How two methods differ on the same cases: first minus second, in the metric's own unit.

    Attributes:
        mean: Mean over cases.
        ci_low: Lower end of the bootstrap interval of the mean; `nan` below two patients.
        ci_high: Upper end of the same.
        median: Median over cases.
        p_value: Of the two-sided Wilcoxon signed-rank test over patients; 1 if nothing differs.
        rank_biserial: Matched-pairs rank-biserial correlation over patients, -1 to 1; 0 if nothing differs.
        cohen_dz: Mean over standard deviation of the patients' differences; `nan` below two patients.
        n_cases: Cases that both methods have.
        n_patients: Patients that these belong to.
        n_ties: Patients without any difference; the test leaves them out.
    """

    mean: float
    ci_low: float
    ci_high: float
    median: float
    p_value: float
    rank_biserial: float
    cohen_dz: float
    n_cases: int
    n_patients: int
    n_ties: int


def spread(values: Sequence[float], confidence: float = 0.95) -> Spread:
    """Return mean, sd (n - 1) and t interval of repetitions, such as the folds and seeds of one method.

    Folds share training cases, so the interval is narrower than one over independent trainings would be.
    """
    found = np.asarray(values, np.float64)
    if found.size < 2:
        return Spread(float(found.sum()) if found.size else _NAN, _NAN, found.size, _NAN, _NAN)
    sd = float(found.std(ddof=1))
    half = float(stats.t.ppf(0.5 + confidence / 2.0, found.size - 1)) * sd / np.sqrt(found.size)
    mean = float(found.mean())
    return Spread(mean, sd, found.size, mean - half, mean + half)


def paired_difference(
    differences: Float64[np.ndarray, " case"],
    patients: Sequence[str],
    *,
    seed: int,
    num_resamples: int,
    confidence: float = 0.95,
) -> PairedDifference:
    """Describe and test per-case differences.

    Args:
        differences: Finite, one per case.
        patients: Whose case each is.
        seed: Of the bootstrap.
        num_resamples: Bootstrap samples.
        confidence: Coverage of the interval.

    Source:
        Wilcoxon, Biometrics Bulletin 1 (1945); Kerby, Comprehensive Psychology 3 (2014), for the rank-biserial
        correlation; Lakens, Frontiers in Psychology 4 (2013), for d_z.
    """
    by_patient = patient_means(differences, patients)
    low, high = clustered_interval(differences, patients, seed=seed, num_resamples=num_resamples, confidence=confidence)
    return PairedDifference(
        mean=float(differences.mean()),
        ci_low=low,
        ci_high=high,
        median=float(np.median(differences)),
        p_value=signed_rank_p(by_patient),
        rank_biserial=rank_biserial(by_patient),
        cohen_dz=cohen_dz(by_patient),
        n_cases=differences.size,
        n_patients=by_patient.size,
        n_ties=int((by_patient == 0.0).sum()),
    )


def patient_means(values: Float64[np.ndarray, " case"], patients: Sequence[str]) -> Float64[np.ndarray, " patient"]:
    """Return each patient's mean, in the order in which patients first appear."""
    members, sums, counts = _clusters(values, patients)
    return sums / counts if members else np.zeros(0)


def _clusters(
    values: Float64[np.ndarray, " case"], patients: Sequence[str]
) -> tuple[list[str], Float64[np.ndarray, " patient"], Float64[np.ndarray, " patient"]]:
    names = list(dict.fromkeys(patients))
    place = {name: index for index, name in enumerate(names)}
    index = np.array([place[name] for name in patients], np.int64)
    sums = np.bincount(index, weights=values, minlength=len(names)).astype(np.float64)
    return names, sums, np.bincount(index, minlength=len(names)).astype(np.float64)


def clustered_interval(
    values: Float64[np.ndarray, " case"],
    patients: Sequence[str],
    *,
    seed: int,
    num_resamples: int,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile-bootstrap interval of the mean over cases; patients are drawn with all their cases.

    `nan` below two patients.

    Source:
        Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8, resampling whole clusters.
    """
    names, sums, counts = _clusters(values, patients)
    if len(names) < 2:
        return _NAN, _NAN
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // len(names))
    means = []
    for start in range(0, num_resamples, rows):
        drawn: Int64[np.ndarray, "sample patient"] = rng.integers(
            len(names), size=(min(rows, num_resamples - start), len(names))
        )
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    tail = 100.0 * (1.0 - confidence) / 2.0
    low, high = np.percentile(np.concatenate(means), [tail, 100.0 - tail])
    return float(low), float(high)


def signed_rank_p(differences: Float64[np.ndarray, " patient"]) -> float:
    """Return the two-sided p-value of the Wilcoxon signed-rank test; exact for few values without ties.

    Zeros are left out, as Wilcoxon did; without any other value the p-value is 1.
    """
    moved = differences[differences != 0.0]
    return float(stats.wilcoxon(moved).pvalue) if moved.size else 1.0


def rank_biserial(differences: Float64[np.ndarray, " patient"]) -> float:
    """Return the share of rank sums in favor minus that against: 1 if every difference is positive."""
    moved = differences[differences != 0.0]
    if not moved.size:
        return 0.0
    ranks = stats.rankdata(np.abs(moved))
    return float((ranks * np.sign(moved)).sum() / ranks.sum())


def cohen_dz(differences: Float64[np.ndarray, " patient"]) -> float:
    """Return mean over sample standard deviation; infinite if all are the same, 0 if all are 0."""
    if differences.size < 2:
        return _NAN
    mean, sd = float(differences.mean()), float(differences.std(ddof=1))
    if sd == 0.0 or np.ptp(differences) == 0.0:  # a constant may leave a deviation of rounding
        return float(np.copysign(np.inf, mean)) if mean else 0.0
    return mean / sd


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for how many there are, so that the chance of any false finding stays bounded.

    Source:
        Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(order))
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * float(p_values[index])))
        corrected[index] = largest
    return [float(value) for value in corrected]


def mean_ranks(values: Float64[np.ndarray, "case method"], *, higher_is_better: bool) -> Float64[np.ndarray, " method"]:
    """Return each method's mean rank over cases: 1 is best, equal values share the mean of their ranks."""
    signed = -values if higher_is_better else values
    return np.asarray(stats.rankdata(signed, axis=1).mean(axis=0), np.float64)

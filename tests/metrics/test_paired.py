"""Paired statistics: hand-worked numbers, scipy, analytic cases, and how often nothing is called something."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medexp.metrics.paired import (
    clustered_interval,
    cohen_dz,
    holm,
    mean_ranks,
    paired_difference,
    patient_means,
    rank_biserial,
    signed_rank_p,
    spread,
)


def described(differences, patients=None, **changes):
    values = np.asarray(differences, np.float64)
    names = patients if patients is not None else [str(number) for number in range(len(values))]
    return paired_difference(values, names, **{"seed": 0, "num_resamples": 2000, **changes})


def test_a_hand_worked_example():
    # |d| ranks: 0.1 -> 1, 0.2 -> 2, 0.3 -> 3, 0.4 -> 4; against: rank 2; W+ = 8, W- = 2, out of 16 sign patterns
    # those at least as extreme have a smaller sum of 0, 1 or 2: {}, {1}, {2}, twice.
    found = described([0.1, -0.2, 0.3, 0.4])
    assert found.p_value == pytest.approx(2 * 3 / 16)
    assert found.rank_biserial == pytest.approx((8 - 2) / 10)
    assert found.mean == pytest.approx(0.15)
    assert found.median == pytest.approx(0.2)
    # deviations from 0.15: -0.05, -0.35, 0.15, 0.25; squares sum to 0.21
    assert found.cohen_dz == pytest.approx(0.15 / math.sqrt(0.21 / 3))
    assert (found.n_cases, found.n_patients, found.n_ties) == (4, 4, 0)


def test_the_p_value_is_that_of_scipy():
    rng = np.random.default_rng(1)
    for size in (7, 20, 120):
        first, second = rng.normal(0.1, 1.0, size), rng.normal(0.0, 1.0, size)
        assert described(first - second).p_value == pytest.approx(stats.wilcoxon(first, second).pvalue, rel=1e-12)


def test_zeros_are_left_out_and_counted():
    assert described([0.0, 0.1, -0.2, 0.3, 0.4, 0.0]).p_value == described([0.1, -0.2, 0.3, 0.4]).p_value
    assert described([0.0, 0.1, -0.2, 0.3, 0.4, 0.0]).n_ties == 2


def test_no_difference_at_all_is_no_evidence_and_no_effect():
    found = described([0.0, 0.0, 0.0])
    assert (found.p_value, found.rank_biserial, found.cohen_dz, found.mean) == (1.0, 0.0, 0.0, 0.0)
    assert (found.ci_low, found.ci_high) == (0.0, 0.0)


def test_one_direction_throughout_is_a_full_effect():
    assert rank_biserial(np.array([0.1, 0.2, 5.0])) == 1.0
    assert rank_biserial(-np.array([0.1, 0.2, 5.0])) == -1.0
    assert cohen_dz(np.array([0.1, 0.1, 0.1])) == math.inf


@given(st.lists(st.integers(-99, 99).map(lambda hundredths: hundredths / 100), min_size=2, max_size=20))
def test_exchanging_the_methods_changes_signs_only(values):
    differences = np.asarray(values)
    assert signed_rank_p(-differences) == pytest.approx(signed_rank_p(differences))
    assert rank_biserial(-differences) == pytest.approx(-rank_biserial(differences))
    assert cohen_dz(-differences) == pytest.approx(-cohen_dz(differences))


def test_a_patients_cases_count_once_in_the_test():
    found = described([0.2, 0.4, -0.1, 0.5], ["a", "a", "b", "c"])
    assert patient_means(np.array([0.2, 0.4, -0.1, 0.5]), ["a", "a", "b", "c"]) == pytest.approx([0.3, -0.1, 0.5])
    assert found.p_value == pytest.approx(stats.wilcoxon([0.3, -0.1, 0.5]).pvalue)
    assert (found.n_cases, found.n_patients) == (4, 3)
    assert found.mean == pytest.approx(0.25)


def test_copies_of_a_case_do_not_narrow_the_interval():
    rng = np.random.default_rng(2)
    values = rng.normal(size=30)
    patients = [str(number) for number in range(30)]
    once = clustered_interval(values, patients, seed=0, num_resamples=4000)
    tenfold = clustered_interval(np.repeat(values, 10), np.repeat(patients, 10).tolist(), seed=0, num_resamples=4000)
    naive = clustered_interval(
        np.repeat(values, 10), [str(number) for number in range(300)], seed=0, num_resamples=4000
    )
    assert tenfold == pytest.approx(once)
    assert naive[1] - naive[0] < 0.5 * (once[1] - once[0])


def test_two_patients_have_the_exact_bootstrap_distribution():
    # Means of two draws from {0, 1}: 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    assert clustered_interval(np.array([0.0, 1.0]), ["a", "b"], seed=0, num_resamples=10_000) == (0.0, 1.0)
    middle = clustered_interval(np.array([0.0, 1.0]), ["a", "b"], seed=0, num_resamples=10_000, confidence=0.4)
    assert middle == (0.5, 0.5)


def test_the_interval_of_many_is_the_normal_one():
    # The bootstrap distribution of a mean has the variance sum((x - mean)^2) / n^2, and is nearly normal.
    values = np.random.default_rng(3).normal(2.0, 3.0, 400)
    low, high = clustered_interval(values, [str(number) for number in range(400)], seed=0, num_resamples=40_000)
    half = stats.norm.ppf(0.975) * values.std() / math.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02 * 2 * half)


def test_patients_of_different_size_weigh_by_their_cases():
    low, high = clustered_interval(np.array([1.0, 1.0, 1.0, 0.0]), ["a"] * 3 + ["b"], seed=0, num_resamples=4000)
    assert (low, high) == (0.0, 1.0)
    found = clustered_interval(
        np.array([1.0, 1.0, 1.0, 0.0]), ["a"] * 3 + ["b"], seed=0, num_resamples=4000, confidence=0.4
    )
    assert found == (0.75, 0.75)  # both drawn once: four cases, three of them 1


def test_the_seed_decides_the_interval():
    values, names = np.random.default_rng(4).normal(size=9), list("abcdefghi")
    first = clustered_interval(values, names, seed=0, num_resamples=500)
    assert first == clustered_interval(values, names, seed=0, num_resamples=500)
    assert first != clustered_interval(values, names, seed=1, num_resamples=500)


def test_one_patient_has_no_interval():
    found = described([0.1, 0.2], ["a", "a"])
    assert math.isnan(found.ci_low)
    assert math.isnan(found.cohen_dz)
    assert found.p_value == 1.0


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, and never below an earlier one.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_stepping_down_rejects(p_values):
    corrected = holm(p_values)
    still = True
    for place, index in enumerate(np.argsort(p_values, kind="stable")):
        still = still and p_values[index] * (len(p_values) - place) <= 0.05
        assert (corrected[index] <= 0.05) == still
    assert all(new >= old for new, old in zip(corrected, p_values, strict=True))


def test_spread_is_the_t_interval():
    found = spread([0.8, 0.9, 0.7])
    low, high = stats.t.interval(0.95, 2, loc=0.8, scale=stats.sem([0.8, 0.9, 0.7]))
    assert (found.mean, found.sd, found.n) == (pytest.approx(0.8), pytest.approx(0.1), 3)
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high))


def test_one_repetition_has_no_spread():
    found = spread([0.8])
    assert (found.mean, found.n) == (0.8, 1)
    assert math.isnan(found.sd)
    assert math.isnan(found.ci_low)


def test_ranks_by_hand():
    values = np.array([[0.9, 0.8, 0.7], [0.5, 0.5, 0.9]])
    assert mean_ranks(values, higher_is_better=True) == pytest.approx([1.75, 2.25, 2.0])
    assert mean_ranks(values, higher_is_better=False) == pytest.approx([2.25, 1.75, 2.0])


@pytest.mark.slow
@pytest.mark.parametrize("cases_per_patient", [1, 4])
def test_nothing_is_called_something_as_often_as_promised(cases_per_patient):
    """Methods that differ by chance: 5 % of p-values below 0.05, 5 % of intervals without 0, also in clusters."""
    rng = np.random.default_rng(5)
    patients = [str(number) for number in range(30) for _ in range(cases_per_patient)]
    found, missed, num_trials = 0, 0, 1500
    for _ in range(num_trials):
        patient = np.repeat(rng.normal(0.0, 1.0, 30), cases_per_patient)
        one = described(patient + rng.normal(0.0, 0.3, patient.size), patients, num_resamples=400)
        found += one.p_value < 0.05
        missed += not one.ci_low <= 0.0 <= one.ci_high
    assert 0.035 < found / num_trials < 0.065  # 5 % and 2.7 standard errors of 1,500 trials
    assert 0.035 < missed / num_trials < 0.09  # a percentile interval of 30 is known to be a little narrow


@pytest.mark.slow
def test_holm_bounds_the_chance_of_any_false_finding():
    """Four equal methods, six pairs: uncorrected one comparison in five would find something."""
    rng = np.random.default_rng(6)
    plain, corrected, num_trials = 0, 0, 600
    for _ in range(num_trials):
        scores = rng.normal(size=(25, 4))
        pairs = [(first, second) for first in range(4) for second in range(first + 1, 4)]
        p_values = [signed_rank_p(scores[:, first] - scores[:, second]) for first, second in pairs]
        plain += min(p_values) < 0.05
        corrected += min(holm(p_values)) < 0.05
    assert plain / num_trials > 0.12
    assert corrected / num_trials < 0.05 + 0.027

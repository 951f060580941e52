import math

import numpy as np
import pytest

from medexp.errors import CohortError, ConfigurationError, UnknownOptionError
from medexp.metrics.summary import bootstrap_interval, summarize_cases

NAN, INF = float("nan"), float("inf")
ROWS = [
    {"case": "a", "dice/ET": 0.5, "hd95_mm/ET": 2.0},
    {"case": "b", "dice/ET": NAN, "hd95_mm/ET": NAN},
    {"case": "c", "dice/ET": 0.9, "hd95_mm/ET": INF},
    {"case": "d", "dice/ET": 0.7, "hd95_mm/ET": 6.0},
]


def test_hand_worked_statistics_without_the_undefined_case():
    dice = summarize_cases(ROWS, "exclude", seed=0)["dice/ET"]
    assert dice.mean == pytest.approx(0.7)
    assert dice.sd == pytest.approx(0.2)  # n - 1
    assert (dice.median, dice.min, dice.max) == (0.7, 0.5, 0.9)
    assert (dice.n_used, dice.n_undefined, dice.n_infinite) == (3, 1, 0)
    assert dice.empty_reference == "exclude"
    assert 0.5 <= dice.ci_low < dice.mean < dice.ci_high <= 0.9


@pytest.mark.parametrize(("policy", "mean"), [(1.0, 3.1 / 4), (0, 2.1 / 4)])
def test_an_undefined_case_may_be_worth_a_number_and_is_counted_all_the_same(policy, mean):
    dice = summarize_cases(ROWS, policy, seed=0, columns=["dice/ET"])["dice/ET"]
    assert dice.mean == pytest.approx(mean)
    assert (dice.n_used, dice.n_undefined, dice.empty_reference) == (4, 1, policy)


def test_policies_by_score_or_column():
    policies = {"dice": 1.0, "hd95_mm/ET": 0.0}
    summary = summarize_cases(ROWS, policies, seed=0)
    assert summary["dice/ET"].max == 1.0
    assert summary["hd95_mm/ET"].min == 0.0


def test_an_infinite_distance_is_not_dropped():
    distance = summarize_cases(ROWS, "exclude", seed=0)["hd95_mm/ET"]
    assert (distance.mean, distance.max, distance.ci_high) == (INF, INF, INF)
    assert (distance.median, distance.n_used, distance.n_infinite) == (6.0, 3, 1)
    assert math.isnan(distance.sd)


def test_an_infinite_distance_may_be_given_a_penalty():
    distance = summarize_cases(ROWS, "exclude", seed=0, infinite_as={"hd95_mm": 374.0})["hd95_mm/ET"]
    assert distance.mean == pytest.approx((2 + 6 + 374) / 3)
    assert distance.n_infinite == 0


def test_text_is_passed_over_and_columns_keep_their_order():
    assert list(summarize_cases(ROWS, "exclude", seed=0)) == ["dice/ET", "hd95_mm/ET"]


def test_none_is_undefined():
    rows = [{"dice": 0.5}, {"dice": None}]
    assert summarize_cases(rows, "exclude", seed=0)["dice"].n_undefined == 1


def test_a_column_without_any_value_says_so():
    dice = summarize_cases([{"dice": NAN}, {"dice": NAN}], "exclude", seed=0)["dice"]
    assert (dice.n_used, dice.n_undefined) == (0, 2)
    assert all(math.isnan(value) for value in (dice.mean, dice.sd, dice.median, dice.min, dice.max, dice.ci_low))


def test_one_case_has_no_spread():
    dice = summarize_cases([{"dice": 0.4}], "exclude", seed=0)["dice"]
    assert (dice.mean, dice.median) == (0.4, 0.4)
    assert math.isnan(dice.sd)
    assert math.isnan(dice.ci_low)


def test_the_interval_follows_the_seed_and_not_the_other_columns():
    both = summarize_cases(ROWS, "exclude", seed=3)
    alone = summarize_cases(ROWS, "exclude", seed=3, columns=["dice/ET"])
    assert both["dice/ET"] == alone["dice/ET"]
    values = np.random.default_rng(0).random(30)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_the_interval_of_many_values_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(10, 2, 400)
    low, high = bootstrap_interval(values, seed=0, num_resamples=5000)
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_a_narrower_confidence_is_a_narrower_interval():
    values = np.random.default_rng(0).random(40)
    wide, narrow = bootstrap_interval(values, 0, confidence=0.95), bootstrap_interval(values, 0, confidence=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_bad_tables_are_refused():
    with pytest.raises(CohortError, match="at least one case"):
        summarize_cases([], "exclude", seed=0)
    with pytest.raises(CohortError, match=r"row 1: \['iou'\]"):
        summarize_cases([{"dice": 1.0}, {"dice": 1.0, "iou": 1.0}], "exclude", seed=0)
    with pytest.raises(CohortError, match="text first in row 1"):
        summarize_cases([{"dice": 1.0}, {"dice": "high"}], "exclude", seed=0)
    with pytest.raises(UnknownOptionError, match="iou"):
        summarize_cases([{"dice": 1.0}], "exclude", seed=0, columns=["iou"])
    with pytest.raises(ConfigurationError, match="policy for the undefined values of dice"):
        summarize_cases([{"dice": NAN}], {"iou": 1.0}, seed=0)
    with pytest.raises(ConfigurationError, match="'ignore'"):
        summarize_cases([{"dice": NAN}], {"dice": "ignore"}, seed=0)

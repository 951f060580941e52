from collections import Counter

import pytest

from medexp.errors import ConfigurationError
from medexp.preparation.dose_splits import SplitSettings, hold_out_patients, official_role, split_cases
from medexp.preparation.raw_cases import RawCase

SHARES = (0.8, 0.1, 0.1)


def records(*patients, **notes):
    return [{"case": f"c{number}", "patient": patient, **notes} for number, patient in enumerate(patients)]


def settings(split, *, shares=SHARES, num_folds=None, seed=42, file=None):
    return SplitSettings(split, shares, num_folds, seed, file)


@pytest.mark.parametrize(
    ("num_patients", "expected"),
    [(3, (1, 1, 1)), (7, (5, 1, 1)), (15, (11, 2, 2)), (74, (60, 7, 7))],
)
def test_a_holdout_gives_every_side_its_share_and_at_least_one(num_patients, expected):
    sides = hold_out_patients([f"p{number}" for number in range(num_patients)], shares=SHARES, seed=1)
    counts = Counter(sides.values())
    assert (counts["train"], counts["val"], counts["test"]) == expected


def test_a_holdout_depends_on_names_and_seed_only():
    patients = [f"p{number}" for number in range(20)]
    assert hold_out_patients(patients, shares=SHARES, seed=1) == hold_out_patients(
        patients[::-1], shares=SHARES, seed=1
    )
    assert hold_out_patients(patients, shares=SHARES, seed=1) != hold_out_patients(patients, shares=SHARES, seed=2)


def test_both_plans_of_a_patient_stay_together():
    cases = records(*"aabbccddee")
    [fold], tested = split_cases(cases, settings("holdout"))
    side_of = {**{case: side for side in ("train", "val") for case in fold[side]}, **dict.fromkeys(tested, "test")}
    assert len(side_of) == 10
    assert all(side_of[f"c{2 * number}"] == side_of[f"c{2 * number + 1}"] for number in range(5))


def test_a_share_of_nothing_leaves_a_side_empty():
    sides = hold_out_patients("abcdefghij", shares=(0.8, 0.2, 0.0), seed=1)
    assert Counter(sides.values()) == {"train": 8, "val": 2}


@pytest.mark.parametrize(
    ("patients", "shares", "message"),
    [
        ("ab", SHARES, "expected patients for every side, got 2, of whom 1 validate and 1 test"),
        ("abcdef", (0.8, 0.1), "shares of training, validation and test"),
        ("abcdef", (0.8, 0.1, 0.2), "that sum to 1"),
        ("abcdef", (1.1, -0.2, 0.1), "that sum to 1"),
    ],
)
def test_shares_that_cannot_be(patients, shares, message):
    with pytest.raises(ConfigurationError, match=f"dataset.holdout_shares: .*{message}"):
        hold_out_patients(patients, shares=shares, seed=1)


def test_the_official_split_takes_what_is_published():
    cases = [*records("a", "b", official="train"), {"case": "v", "patient": "v", "official": "validation"}]
    assert split_cases(cases, settings("official")) == ([{"train": ["c0", "c1"], "val": ["v"]}], set())


def test_an_official_split_without_validation_is_refused():
    with pytest.raises(ConfigurationError, match="dataset.split=official: .* found 2 and 0; .*dataset.split=folds"):
        split_cases(records("a", "b", official="train"), settings("official"))


@pytest.mark.parametrize(
    ("side", "split", "role"),
    [("test", "official", "test"), ("validation", "official", "train"), ("test", "folds", "train")],
)
def test_published_test_patients_are_set_aside_with_the_official_split_only(side, split, role):
    case = RawCase("pt_1", "pt_1", "train", {}, None, "pt_1", notes={"official": side})
    assert official_role(case, split).role == role


def test_a_patient_without_a_published_side_is_a_problem():
    case = official_role(RawCase("pt_900", "pt_900", "train", {}, None, "pt_900"), "official")
    assert case.problems == (
        "pt_900: expected a side of the published split, found none; use dataset.split=folds or holdout",
    )


def test_folds_by_patient():
    folds, tested = split_cases(records(*"aabbcc"), settings("folds", num_folds=3))
    assert not tested
    assert sorted(case for fold in folds for case in fold["val"]) == [f"c{number}" for number in range(6)]
    assert all(int(fold["val"][0][1]) % 2 == 0 and len(fold["val"]) == 2 for fold in folds)


def test_folds_need_a_number():
    with pytest.raises(ConfigurationError, match="dataset.num_folds: expected a number"):
        split_cases(records("a", "b"), settings("folds"))


@pytest.mark.parametrize("split", ["holdout", "official"])
def test_folds_that_no_other_split_has_are_refused(split):
    with pytest.raises(
        ConfigurationError, match=rf"dataset.num_folds: expected null with dataset.split={split}, got 5"
    ):
        split_cases(records(*"aabbcc"), settings(split, num_folds=5))

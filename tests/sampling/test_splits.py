"""Folds: by patient, the same everywhere, and checked."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexp.errors import ConfigurationError, LeakageError, ManifestError
from medexp.sampling.splits import check_splits, make_splits, read_splits, require_different_voxels

PATIENTS = {f"p{patient}-{visit}": f"p{patient}" for patient in range(7) for visit in range(1 + patient % 3)}
EXPECTED = [["p0", "p2", "p6"], ["p3", "p5"], ["p1", "p4"]]  # from sha256 of "12345\0p<n>", worked out apart
VOXELS = {case: [case] for case in PATIENTS}

cohorts = st.dictionaries(
    st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=3), min_size=2, max_size=40
).filter(lambda cohort: len(set(cohort.values())) >= 2)


@given(cohort=cohorts, seed=st.integers(0, 2**32), data=st.data())
def test_folds_are_disjoint_by_patient_and_validate_every_case_once(cohort, seed, data):
    num_folds = data.draw(st.integers(2, len(set(cohort.values()))))
    splits = make_splits(cohort, num_folds=num_folds, seed=seed)
    assert len(splits) == num_folds
    for fold in splits:
        assert fold["train"]
        assert fold["val"]
        assert not {cohort[case] for case in fold["train"]} & {cohort[case] for case in fold["val"]}
        assert sorted(fold["train"] + fold["val"]) == sorted(cohort)
    assert sorted(case for fold in splits for case in fold["val"]) == sorted(cohort)


@given(cohort=cohorts, seed=st.integers(0, 1000))
def test_folds_do_not_depend_on_the_order_of_cases(cohort, seed):
    cases = list(cohort.items())
    random.Random(seed).shuffle(cases)
    assert make_splits(dict(cases), num_folds=2, seed=1) == make_splits(cohort, num_folds=2, seed=1)


def test_folds_are_these_on_every_machine():
    splits = make_splits(PATIENTS, num_folds=3, seed=12345)
    assert [sorted({PATIENTS[case] for case in fold["val"]}) for fold in splits] == EXPECTED


def test_another_seed_gives_other_folds():
    assert make_splits(PATIENTS, num_folds=3, seed=1) != make_splits(PATIENTS, num_folds=3, seed=2)


def test_fold_sizes_differ_by_at_most_one_patients_cases():
    for seed in range(5):
        sizes = [len(fold["val"]) for fold in make_splits(PATIENTS, num_folds=3, seed=seed)]
        assert max(sizes) - min(sizes) <= 3


def test_two_patients_make_two_folds():
    splits = make_splits({"a": "a", "b": "b"}, num_folds=2, seed=0)
    assert sorted(fold["val"] for fold in splits) == [["a"], ["b"]]


@pytest.mark.parametrize("num_folds", [0, 1, 8])
def test_a_number_of_folds_that_does_not_fit_names_the_key(num_folds):
    with pytest.raises(ConfigurationError, match=r"dataset\.num_folds: expected at least 2 and at most 7"):
        make_splits(PATIENTS, num_folds=num_folds, seed=0)


def check(splits, voxels=VOXELS):
    check_splits(splits, patient_of=PATIENTS, voxels_of=voxels, source="splits_final.json")


def test_good_folds_pass():
    check(make_splits(PATIENTS, num_folds=3, seed=0))


def test_one_patient_on_both_sides_is_leakage_that_lists_the_pair():
    splits = make_splits(PATIENTS, num_folds=3, seed=0)
    splits[0]["train"] = [case for case in PATIENTS if case != "p2-0"]
    splits[0]["val"] = ["p2-0"]
    with pytest.raises(LeakageError, match=r"p2-1 and p2-0 are of patient p2"):
        check(splits)


def test_the_same_voxels_on_both_sides_is_leakage_that_lists_the_pair():
    voxels = {**VOXELS, "p1-0": ["same", "x"], "p3-0": ["y", "same"]}
    splits = [{"train": [case for case in PATIENTS if PATIENTS[case] != "p1"], "val": ["p1-0", "p1-1"]}]
    with pytest.raises(LeakageError, match=r"p3-0 and p1-0 hold the same voxels"):
        check(splits, voxels)


def test_an_unknown_case_is_refused():
    splits = make_splits(PATIENTS, num_folds=2, seed=0)
    splits[1]["train"].append("stranger")
    with pytest.raises(ManifestError, match=r"fold 1 names 1 cases.*stranger"):
        check(splits)


def test_a_case_twice_in_a_fold_is_refused():
    splits = make_splits(PATIENTS, num_folds=2, seed=0)
    splits[0]["train"].append(splits[0]["train"][0])
    with pytest.raises(ManifestError, match="twice"):
        check(splits)


def test_a_case_in_no_fold_is_refused():
    splits = make_splits(PATIENTS, num_folds=2, seed=0)
    for fold in splits:
        for side in ("train", "val"):
            fold[side] = [case for case in fold[side] if PATIENTS[case] != "p0"]
    with pytest.raises(ManifestError, match=r"p0-0"):
        check(splits)


def test_the_same_voxels_under_two_patients_are_refused():
    with pytest.raises(LeakageError, match="p0-0 and p1-0"):
        require_different_voxels(
            list(PATIENTS), patient_of=PATIENTS, voxels_of={**VOXELS, "p0-0": ["same"], "p1-0": ["same"]}
        )


def test_the_same_voxels_at_two_visits_of_a_patient_pass():
    voxels = {**VOXELS, "p1-0": ["same"], "p1-1": ["same"]}
    require_different_voxels(list(PATIENTS), patient_of=PATIENTS, voxels_of=voxels)


def test_a_file_of_folds_is_read(tmp_path):
    splits = make_splits(PATIENTS, num_folds=3, seed=0)
    (tmp_path / "splits_final.json").write_text(json.dumps(splits))
    assert read_splits(tmp_path / "splits_final.json") == splits


@pytest.mark.parametrize(
    "content",
    ["{}", "[]", '[{"train": ["a"]}]', '[{"train": [], "val": ["a"]}]', '[{"train": [1], "val": ["a"]}]', "x"],
)
def test_a_file_of_another_shape_is_refused(tmp_path, content):
    (tmp_path / "splits.json").write_text(content)
    with pytest.raises(ManifestError, match=r"splits\.json"):
        read_splits(tmp_path / "splits.json")

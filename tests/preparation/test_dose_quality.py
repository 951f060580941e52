"""Every check passes on a good case and fails on one that is wrong in just this."""

from dataclasses import replace

import numpy as np
import pytest

from medexp.geometry.distances import signed_distance_mm
from medexp.preparation.dose_quality import Losses, check_case
from tests.synthetic.doses import small_case

GOOD = Losses({"PTV70": 0.0, "Rectum": 0.05}, {"PTV70": 0.01, "Rectum": 0.05})
CRITICAL = {"dose_finite", "dose_not_negative", "truncation/PTV70", "truncation/Rectum", "dose_covers/PTV70"}


def good_case():
    case = small_case()
    ct = case.ct_hu.copy()
    ct[case.masks["Femur_L"]] = 400
    return replace(case, ct_hu=ct)


def flags_of(case, losses=GOOD):
    distances = {name: signed_distance_mm(mask, case.spacing_mm, clip_mm=50.0) for name, mask in case.masks.items()}
    return {flag.name: flag for flag in check_case(case, distances, losses)}


def failing(case, losses=GOOD):
    return {name for name, flag in flags_of(case, losses).items() if not flag.passed}


def with_dose(change):
    case = good_case()
    dose = case.dose_gy.copy()
    return replace(case, dose_gy=np.asarray(change(dose, case.masks["PTV70"]), np.float32))


def set_in(value, share=1.0):
    def change(dose, mask):
        where = np.flatnonzero(mask)
        dose.reshape(-1)[where[: round(len(where) * share)]] = value
        return dose

    return change


def test_a_good_case_fails_nothing():
    assert failing(good_case()) == set()


def test_which_checks_are_critical():
    assert {name for name, flag in flags_of(good_case()).items() if flag.is_critical} == CRITICAL


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda dose, mask: dose * 1.14, set(), id="a little hot"),
        pytest.param(lambda dose, mask: dose * 1.16, {"ptv70_mean_dose"}, id="too hot"),
        pytest.param(lambda dose, mask: dose * 0.92, set(), id="just covered"),
        pytest.param(lambda dose, mask: dose * 0.91, {"ptv70_d95"}, id="D95 below 64 Gy"),
        pytest.param(lambda dose, mask: dose * 0.84, {"ptv70_d95", "ptv70_mean_dose"}, id="cold"),
        pytest.param(lambda dose, mask: dose * 1.51, {"ptv70_mean_dose", "dose_maximum"}, id="1.5 prescriptions"),
        pytest.param(set_in(0.0, 0.04), set(), id="little without dose"),
        pytest.param(set_in(0.0, 0.06), {"ptv70_d95", "zero_dose_in_ptv70"}, id="much without dose"),
        pytest.param(
            lambda dose, mask: 66.0 - dose / 10.0, {"registration", "ptv70_mean_dose", "ptv70_d95"}, id="hole"
        ),
    ],
)
def test_doses(change, expected):
    assert failing(with_dose(change)) == expected


@pytest.mark.parametrize(("factor", "is_critical"), [(1.51, False), (3.01, True), (100.0, True)])
def test_a_dose_beyond_all_plans_is_taken_for_another_unit(factor, is_critical):
    found = flags_of(with_dose(lambda dose, mask: dose * factor))["dose_maximum"]
    assert (found.passed, found.is_critical) == (False, is_critical)
    assert ("is it in cGy?" in found.message) == is_critical


def test_nan_and_negative_dose_are_critical():
    nan, negative = with_dose(set_in(np.nan, 0.01)), with_dose(lambda dose, mask: dose - 0.001)
    assert failing(nan) == {"dose_finite"}
    assert "dose_not_negative" in failing(negative)
    assert flags_of(nan)["dose_finite"].value == round(good_case().masks["PTV70"].sum() * 0.01)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (Losses({"Bladder": 0.051}, {}), {"truncation/Bladder"}),
        (Losses({}, {"PTV56": 0.02, "Rectum": 0.02}), {"dose_covers/PTV56"}),
        (Losses({}, {"Femur_L": 0.5}), {"dose_covers/Femur_L"}),
    ],
)
def test_losses(losses, expected):
    assert failing(good_case(), losses) == expected


def test_only_of_targets_a_missing_dose_is_critical():
    found = flags_of(good_case(), Losses({}, {"PTV56": 0.06, "Femur_L": 0.5}))
    assert found["dose_covers/PTV56"].is_critical
    assert not found["dose_covers/Femur_L"].is_critical


@pytest.mark.parametrize("value", [-2000, 5000])
def test_a_ct_beyond_its_range(value):
    case = good_case()
    ct = case.ct_hu.copy()
    ct[0, 0, 0] = value
    assert failing(replace(case, ct_hu=ct)) == {"ct_range"}


def test_a_ct_without_air_looks_like_one_without_rescaling():
    case = good_case()
    assert failing(replace(case, ct_hu=(case.ct_hu + 1024).clip(0).astype(np.int16))) == {"ct_range"}


def test_without_the_target_only_its_absence_is_said():
    case = good_case()
    masks = {name: mask for name, mask in case.masks.items() if name != "PTV70"}
    assert failing(replace(case, masks=masks, coverage={})) == {"ptv70_present"}


def test_a_case_that_is_not_planned_has_no_flags_of_dose():
    names = set(flags_of(replace(good_case(), dose_gy=None)))
    assert names == {"ct_range", "truncation/PTV70", "truncation/Rectum", "ptv70_present"}


def test_the_numbers_are_those_of_the_dose():
    case = good_case()
    inside = case.dose_gy[case.masks["PTV70"]].astype(float)
    found = flags_of(case)
    assert found["ptv70_mean_dose"].value == pytest.approx(inside.mean())
    assert found["ptv70_d95"].value == pytest.approx(np.quantile(inside, 0.05))

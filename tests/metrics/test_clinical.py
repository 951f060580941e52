"""The limits of a protocol: every number of its table, what passes on the bound, and what is never called passed."""

import numpy as np
import pytest

from medexp.errors import UnknownOptionError
from medexp.metrics.clinical import (
    CONSTRAINT_NAMES,
    PROTOCOLS,
    Limit,
    Outcome,
    check_limits,
    constraint_vector,
    protocol_of,
    regions_of,
)
from medexp.metrics.dvh import Dvh, dvh_of_mask

PROTOCOL = PROTOCOLS["prostate_sib"]
# One line per structure, as the clinic writes it.
WRITTEN = {
    "PTV70": ["v70gy_percent >= 95", "dmax_gy <= 74.9"],
    "PTV56": ["v56gy_percent >= 95", "dmax_gy <= 59.92"],
    "PTV50.4": ["v50.4gy_percent >= 95", "dmax_gy <= 53.93"],
    "Rectum": ["v70gy_percent <= 15", "v60gy_percent <= 25", "v50gy_percent <= 50", "dmax_gy <= 75"],
    "Bladder": ["v70gy_percent <= 25", "v60gy_percent <= 35", "v50gy_percent <= 50", "dmax_gy <= 75"],
    "Femur_L": ["dmax_gy <= 50", "v50gy_percent <= 5"],
    "Femur_R": ["dmax_gy <= 50", "v50gy_percent <= 5"],
    "Bowel": ["dmax_gy <= 52", "v45gy_cc <= 195"],
}


def dvh(*doses_gy: float, voxel_mm: float = 10.0):
    """Return the DVH of voxels of 1 cc."""
    dose = np.array(doses_gy, np.float32).reshape(-1, 1, 1)
    return dvh_of_mask(dose, np.ones(dose.shape, bool), (voxel_mm, voxel_mm, voxel_mm))


def everything_kept():
    """Return DVHs of a plan without any violation."""
    cold = dvh(*[20.0] * 10)
    return {
        **dict.fromkeys(("Rectum", "Bladder", "Femur_L", "Femur_R", "Bowel"), cold),
        "PTV70": dvh(*[70.0] * 19, 69.0),
        "PTV56": dvh(*[57.0] * 20),
        "PTV56 - PTV70": dvh(*[57.0] * 20),
        "PTV50.4": dvh(*[51.0] * 20),
        "PTV50.4 - PTV70 - PTV56": dvh(*[51.0] * 20),
    }


def outcome(checked, structure: str, name: str):
    return next(one for one in checked.limits if (one.structure, one.limit.name) == (structure, name))


def test_the_table_is_the_protocols():
    found = {
        structure: [f"{one.name} {'>=' if one.is_minimum else '<='} {one.bound:g}" for one in limits]
        for structure, limits in PROTOCOL.limits.items()
    }
    assert found == WRITTEN


def test_a_plan_that_keeps_every_limit_passes():
    checked = check_limits(everything_kept(), PROTOCOL)
    assert checked.overall_pass is True
    assert checked.compliance_rate == 1.0
    assert {one.outcome for one in checked.limits} == {Outcome.PASSED}
    assert len(checked.limits) == sum(map(len, WRITTEN.values()))


def test_a_value_on_the_bound_is_kept_with_no_margin():
    checked = check_limits({**everything_kept(), "Bladder": dvh(*[75.0] + [20.0] * 3)}, PROTOCOL)
    maximum, volume = (outcome(checked, "Bladder", name) for name in ("dmax_gy", "v70gy_percent"))
    assert (maximum.value, maximum.margin, maximum.outcome) == (75.0, 0.0, "passed")
    assert (volume.value, volume.margin, volume.outcome) == (25.0, 0.0, "passed")


def test_rounding_makes_no_violation_on_the_bound():
    doses = np.full(1000, 10.0, np.float32)
    doses[:150] = 70.0
    rectum, target = Dvh(doses, 0.008, 1000), Dvh(np.full(10, 74.9, np.float32), 0.008, 10)
    assert rectum.volume_percent_at_dose(70.0) > 15.0  # by the sum of its volumes
    assert target.maximum_gy > 74.9  # in single precision
    checked = check_limits({**everything_kept(), "Rectum": rectum, "PTV70": target}, PROTOCOL)
    on_bound = outcome(checked, "Rectum", "v70gy_percent"), outcome(checked, "PTV70", "dmax_gy")
    assert [(one.margin, one.outcome) for one in on_bound] == [(0.0, Outcome.PASSED)] * 2
    above = check_limits({**everything_kept(), "PTV70": Dvh(np.full(10, 74.901, np.float32), 0.008, 10)}, PROTOCOL)
    assert outcome(above, "PTV70", "dmax_gy").outcome is Outcome.VIOLATED


def test_margins_are_in_the_limits_unit_and_negative_where_violated():
    worse = {"Rectum": dvh(*[71.0] * 2 + [20.0] * 8), "PTV70": dvh(*[70.0] * 9, 60.0), "Bowel": dvh(*[46.0] * 200)}
    checked = check_limits({**everything_kept(), **worse}, PROTOCOL)
    assert outcome(checked, "Rectum", "v70gy_percent").margin == pytest.approx(-5.0)
    assert outcome(checked, "Rectum", "v60gy_percent").margin == pytest.approx(5.0)
    assert outcome(checked, "PTV70", "v70gy_percent").margin == pytest.approx(-5.0)
    assert outcome(checked, "Bowel", "v45gy_cc").margin == pytest.approx(-5.0)
    assert checked.overall_pass is False
    assert checked.to_json()["violations"] == ["PTV70 v70gy_percent", "Rectum v70gy_percent", "Bowel v45gy_cc"]
    assert checked.compliance_rate == pytest.approx(17 / 20)


def test_a_missing_organ_is_missing_and_nothing_passes_without_it():
    checked = check_limits({name: one for name, one in everything_kept().items() if name != "Rectum"}, PROTOCOL)
    assert outcome(checked, "Rectum", "dmax_gy").outcome is Outcome.MISSING
    assert outcome(checked, "Rectum", "dmax_gy").margin is None
    assert checked.overall_pass is None
    assert checked.compliance_rate == 1.0
    assert checked.to_json()["summary"] == {"passed": 16, "violated": 0, "missing": 4, "total": 20}


def test_a_structure_without_a_voxel_is_missing_as_well():
    checked = check_limits({**everything_kept(), "Bowel": None}, PROTOCOL)
    assert outcome(checked, "Bowel", "v45gy_cc").outcome is Outcome.MISSING


def test_a_plan_may_have_no_second_and_third_target():
    kept = {name: one for name, one in everything_kept().items() if not name.startswith(("PTV56", "PTV50.4"))}
    checked = check_limits(kept, PROTOCOL)
    assert checked.overall_pass is True
    assert checked.to_json()["missing"] == [
        "PTV56 v56gy_percent", "PTV56 dmax_gy", "PTV50.4 v50.4gy_percent", "PTV50.4 dmax_gy",
    ]  # fmt: skip


def test_nothing_known_is_nothing_passed():
    checked = check_limits({}, PROTOCOL)
    assert checked.overall_pass is None
    assert checked.compliance_rate is None


def masks():
    """Return three targets in a row, each inside the next; voxel 2 belongs to PTV70 by less than half."""
    inner, middle, outer = (np.zeros((6, 1, 1), np.uint8) for _ in range(3))
    inner[:3, 0, 0] = [255, 255, 40]
    middle[:4], outer[:5] = 255, 255
    return {"PTV70": inner, "PTV56": middle, "PTV50.4": outer}


def test_the_maximum_of_a_lower_target_leaves_out_the_higher_ones():
    regions = regions_of(masks(), PROTOCOL)
    assert set(regions) == {"PTV56 - PTV70", "PTV50.4 - PTV70 - PTV56"}
    assert regions["PTV56 - PTV70"].ravel().tolist() == [0, 0, 0, 255, 0, 0]
    assert regions["PTV50.4 - PTV70 - PTV56"].ravel().tolist() == [0, 0, 0, 0, 255, 0]


def test_a_dose_that_fits_each_target_violates_no_maximum():
    dose = np.array([70, 70, 65, 56, 50.4, 10], np.float32).reshape(6, 1, 1)
    shares = {**masks(), **regions_of(masks(), PROTOCOL)}
    found = {name: dvh_of_mask(dose, share, (10.0, 10.0, 10.0)) for name, share in shares.items()}
    checked = check_limits(found, PROTOCOL)
    assert outcome(checked, "PTV56", "dmax_gy").value == pytest.approx(56.0)
    assert not [one for one in checked.of(Outcome.VIOLATED) if one.limit.name == "dmax_gy"]


def test_without_the_higher_target_nothing_is_left_out():
    shares = {name: (share > 0) for name, share in masks().items() if name != "PTV70"}
    regions = regions_of(shares, PROTOCOL)
    assert regions["PTV56 - PTV70"].dtype == bool
    assert np.array_equal(regions["PTV56 - PTV70"], shares["PTV56"])


def test_a_target_inside_a_higher_one_has_no_maximum_of_its_own():
    shares = {"PTV70": masks()["PTV56"], "PTV56": masks()["PTV70"]}
    regions = {name: dvh_of_mask(np.ones((6, 1, 1), np.float32), one, (1.0, 1.0, 1.0))
               for name, one in regions_of(shares, PROTOCOL).items()}  # fmt: skip
    assert regions == {"PTV56 - PTV70": None}
    assert outcome(check_limits(regions, PROTOCOL), "PTV56", "dmax_gy").outcome is Outcome.MISSING


def test_organs_are_what_is_to_be_spared():
    assert PROTOCOL.organs == ("Rectum", "Bladder", "Femur_L", "Femur_R", "Bowel")


def test_an_unknown_protocol_is_refused_by_name():
    with pytest.raises(UnknownOptionError, match=r"prostate_sib.*got 'breast'"):
        protocol_of("breast")


def test_limits_name_their_columns():
    assert [Limit("v_cc", 1.0, 45.0).name, Limit("v_percent", 1.0, 50.4).name] == ["v45gy_cc", "v50.4gy_percent"]


def test_the_constraint_vector_is_the_protocols():
    expected = [1.0, 0.8, 0.72, 0.5, 0.35, 0.2, 75 / 70, 0.5, 0.35, 0.25, 0.1, 195 / 500, 45 / 70]
    vector = constraint_vector(["PTV70", "PTV56", "PTV50.4"])
    assert vector.dtype == np.float32
    assert vector.tolist() == pytest.approx(expected)
    assert len(CONSTRAINT_NAMES) == len(set(CONSTRAINT_NAMES)) == 13


def test_only_the_targets_a_patient_has_change_the_vector():
    with_all, with_one = constraint_vector(["PTV70", "PTV56", "PTV50.4"]), constraint_vector(["PTV70", "Rectum"])
    assert with_one[:3].tolist() == [1.0, 0.0, 0.0]
    assert np.array_equal(with_one[3:], with_all[3:])

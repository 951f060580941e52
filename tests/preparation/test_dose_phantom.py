from itertools import pairwise

import numpy as np
import pytest

from medexp.errors import ConfigurationError
from medexp.geometry.affine import orientation
from medexp.geometry.distances import signed_distance_mm
from medexp.preparation.dose_phantom import neck_phantom, phantom

SEEDS = (0, 1, 2)
OPENKBP = {
    "PTV70",
    "PTV63",
    "PTV56",
    "Brainstem",
    "SpinalCord",
    "RightParotid",
    "LeftParotid",
    "Esophagus",
    "Larynx",
    "Mandible",
}


@pytest.fixture(scope="module")
def pelves():
    return [phantom(seed, (64, 56, 40), (4.5, 4.5, 4.5)) for seed in SEEDS]


@pytest.fixture(scope="module")
def necks():
    return [neck_phantom(seed, (48, 44, 80), (5.0, 5.0, 4.0)) for seed in SEEDS]


def middle(case, name):
    """The center of a structure in RAS+ mm."""
    return (case.affine @ [*np.argwhere(case.masks[name]).mean(axis=0), 1.0])[:3]


def test_a_pelvis_has_its_eight_structures_in_an_axial_ct(pelves):
    for case in pelves:
        assert set(case.masks) == {
            "PTV70",
            "PTV56",
            "Prostate",
            "Rectum",
            "Bladder",
            "Femur_L",
            "Femur_R",
            "Bowel",
        }
        assert orientation(case.affine) == "LPS"


def test_organs_of_a_pelvis_lie_where_they_belong(pelves):
    for case in pelves:
        prostate = middle(case, "Prostate")
        assert middle(case, "Femur_L")[0] < prostate[0] < middle(case, "Femur_R")[0]  # x to the right
        assert middle(case, "Rectum")[1] < prostate[1] < middle(case, "Bladder")[1]  # y to the front
        assert prostate[2] < middle(case, "Bladder")[2] < middle(case, "Bowel")[2]  # z to the head
        assert not (case.masks["Prostate"] & ~case.masks["PTV70"]).any()
        assert not (case.masks["PTV70"] & ~case.masks["PTV56"]).any()


def test_organs_of_a_neck_lie_where_they_belong(necks):
    for case in necks:
        assert set(case.masks) == OPENKBP
        assert middle(case, "LeftParotid")[0] < middle(case, "RightParotid")[0]
        assert middle(case, "SpinalCord")[1] < middle(case, "Larynx")[1]
        assert middle(case, "Esophagus")[2] < middle(case, "Larynx")[2] < middle(case, "Brainstem")[2]
        targets = [case.masks[name] for name in ("PTV70", "PTV63", "PTV56")]
        assert np.sum(targets, axis=0).max() == 1


def test_targets_get_their_prescription(pelves, necks):
    for case in (*pelves, *necks):
        high = case.dose_gy[case.masks["PTV70"]]
        assert np.percentile(high, 5) >= 66.0
        assert case.dose_gy.max() < 1.07 * 70.0
        assert 69.0 < high.mean() < 72.0
        low = case.dose_gy[case.masks["PTV56"] & ~case.masks["PTV70"]]
        assert np.percentile(low, 5) >= 0.95 * 56.0


def test_dose_is_only_in_the_body_and_where_it_is_possible(pelves, necks):
    for case in (*pelves, *necks):
        assert not case.dose_gy[~case.possible_dose].any()
        assert not (case.possible_dose & (case.ct_hu <= -1000)).any()
        assert case.dose_gy.min() >= 0.0


def test_tissues_have_their_hounsfield_units(pelves):
    for case in pelves:
        assert np.median(case.ct_hu[case.masks["Bladder"]]) == pytest.approx(8, abs=12)
        assert case.ct_hu[case.masks["Femur_L"]].mean() > 250
        assert np.median(case.ct_hu[case.masks["Prostate"]]) == pytest.approx(40, abs=12)
        assert case.ct_hu[0, 0, 0] == -1000


def test_patients_differ_and_equal_seeds_do_not(pelves):
    again = phantom(SEEDS[0], (64, 56, 40), (4.5, 4.5, 4.5))
    assert np.array_equal(again.ct_hu, pelves[0].ct_hu)
    assert np.array_equal(again.dose_gy, pelves[0].dose_gy)
    for one, another in pairwise(pelves):
        assert not np.array_equal(one.masks["Prostate"], another.masks["Prostate"])
        assert np.abs(one.dose_gy - another.dose_gy).max() > 20.0


def test_distance_to_the_target_does_not_tell_all_of_the_dose(pelves):
    """The mean dose by distance, fitted on the very same patient, leaves several Gy."""
    for case in pelves:
        distance = signed_distance_mm(case.masks["PTV70"], case.spacing_mm, clip_mm=60.0)
        near = case.possible_dose & (distance > 0) & (distance < 60.0)
        bins = np.floor(distance[near] / 4.0).astype(int)
        dose = case.dose_gy[near]
        means = np.bincount(bins, dose) / np.maximum(np.bincount(bins), 1)
        left = np.abs(dose - means[bins]).mean()
        assert left > 3.0


def test_dose_falls_with_distance(pelves):
    for case in pelves:
        distance = signed_distance_mm(case.masks["PTV56"], case.spacing_mm, clip_mm=80.0)
        levels = [
            case.dose_gy[case.possible_dose & (distance >= start) & (distance < start + 10.0)].mean()
            for start in (0.0, 10.0, 20.0, 30.0, 40.0)
        ]
        assert all(one > another for one, another in pairwise(levels))
        assert levels[0] > 2.0 * levels[2]


def test_absent_structures_are_absent():
    case = neck_phantom(0, (40, 36, 64), (6.0, 6.0, 5.0), absent=("PTV63", "Larynx", "SpinalCord"))
    assert set(case.masks) == OPENKBP - {"PTV63", "Larynx", "SpinalCord"}
    assert case.dose_gy[case.masks["PTV70"]].mean() > 69.0


def test_a_small_grid_holds_a_small_patient():
    case = phantom(0, (32, 32, 24), (3.0, 3.0, 3.0))
    assert len(case.masks) == 8
    assert (case.ct_hu[[0, -1]] == -1000).all()  # the body fits


def test_a_grid_without_room_is_refused():
    with pytest.raises(ConfigurationError, match=r"mock\.shape"):
        phantom(0, (16, 64, 64))

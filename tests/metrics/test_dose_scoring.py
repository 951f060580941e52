"""Everything that is computed of a predicted dose comes from the functions that are tested on their own."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from medexp.errors import CaseError, ConfigurationError, GridMismatchError
from medexp.metrics.directions import is_higher_better
from medexp.metrics.dose_scores import PREDICTION, REFERENCE, WHOLE
from medexp.metrics.dose_scoring import score_dose
from medexp.metrics.dvh import NUM_SAMPLES, dvh_of_mask
from medexp.metrics.gamma import gamma_map
from tests.synthetic.doses import OPENKBP, small_case
from tests.synthetic.scoring_doses import SCORING, predicted_dose

CASE = small_case(0)
DOSE = predicted_dose(CASE, 0)


@pytest.fixture(scope="module")
def scores():
    return score_dose(CASE, DOSE, SCORING)


def test_criteria_are_read_as_they_are_written():
    scoring = replace(SCORING, gamma=["3%/3mm", "2 %/2 mm local", "1.5%/2mm global"])
    found = {name: (one.dose_percent, one.distance_mm, one.local) for name, one in scoring.criteria.items()}
    assert found == {
        "global_3mm3pct": (3.0, 3.0, False),
        "local_2mm2pct": (2.0, 2.0, True),
        "global_2mm1.5pct": (1.5, 2.0, False),
    }


@pytest.mark.parametrize("text", ["3/3", "3mm/3%", "3%/3mm lokal", ""])
def test_a_criterion_that_cannot_be_read_is_refused_by_its_key(text):
    with pytest.raises(ConfigurationError, match=r"evaluate\.doses\.gamma: expected criteria such as 3%/3mm"):
        replace(SCORING, gamma=[text])


def test_a_criterion_that_stands_there_twice_is_refused():
    with pytest.raises(ConfigurationError, match="each criterion once"):
        replace(SCORING, gamma=["3%/3mm", "3.0%/3mm global"])


@pytest.mark.parametrize(
    ("case", "num_samples"),
    [(CASE, NUM_SAMPLES), (replace(CASE, coverage={}), None)],
    ids=["coverage known", "masks only"],
)
def test_points_of_dvhs_stand_on_both_sides(case, num_samples):
    found = {(point.structure, point.metric): point for point in score_dose(case, DOSE, SCORING).dvh}
    shares = case.coverage or case.masks
    for structure in case.masks:
        point = found[structure, "d95_gy"]
        expected = [
            dvh_of_mask(dose, shares[structure], case.spacing_mm, num_samples=num_samples).dose_at_volume_percent(95.0)
            for dose in (case.dose_gy, DOSE)
        ]
        assert [point.reference, point.prediction] == pytest.approx(expected)
        assert point.difference == pytest.approx(expected[1] - expected[0])
    covered = dvh_of_mask(case.dose_gy, shares["PTV70"], case.spacing_mm, num_samples=num_samples)
    assert found["PTV70", "v95rx_percent"].reference == covered.volume_percent_at_dose(0.95 * 70.0)
    assert num_samples or found["PTV70", "v95rx_percent"].reference == 100.0  # every voxel of the target is painted so
    assert ("Rectum", "v95rx_percent") not in found
    assert found["Bowel", "v45gy_cc"].reference >= 0


def test_gamma_of_a_target_is_the_whole_gamma_near_it(scores):
    criteria = SCORING.criteria["global_3mm3pct"]
    gamma = gamma_map(CASE.dose_gy, DOSE, CASE.spacing_mm, criteria)
    near = ndimage.distance_transform_edt(~CASE.masks["PTV70"], sampling=CASE.spacing_mm) <= SCORING.ptv_margin_mm
    judged = gamma[near & np.isfinite(gamma)]
    found = scores.gamma["global_3mm3pct"]["PTV70"]
    assert found.num_voxels == judged.size
    assert found.pass_rate_percent == pytest.approx(100 * np.mean(judged <= 1))
    assert found.num_voxels < scores.gamma["global_3mm3pct"][WHOLE].num_voxels


def test_a_margin_of_zero_is_the_target_itself():
    found = score_dose(CASE, DOSE, replace(SCORING, ptv_margin_mm=0.0)).gamma["global_3mm3pct"]["PTV70"]
    assert found.num_voxels == CASE.masks["PTV70"].sum()


def test_the_protocol_is_checked_on_both_sides(scores):
    assert set(scores.limits) == {REFERENCE, PREDICTION}
    maximum = {side: {one.structure: one.value for one in checked.limits if one.limit.name == "dmax_gy"}
               for side, checked in scores.limits.items()}  # fmt: skip
    rectum = dvh_of_mask(DOSE, CASE.coverage["Rectum"], CASE.spacing_mm, num_samples=NUM_SAMPLES)
    assert maximum[PREDICTION]["Rectum"] == pytest.approx(rectum.maximum_gy)
    assert maximum[REFERENCE]["PTV50.4"] is None


def test_a_dose_against_itself_is_perfect():
    scores = score_dose(CASE, CASE.dose_gy, SCORING)
    assert scores.errors.mae_gy == 0.0
    assert {regions[WHOLE].pass_rate_percent for regions in scores.gamma.values()} == {100.0}
    assert {point.difference for point in scores.dvh} == {0.0}
    assert scores.limits[REFERENCE] == scores.limits[PREDICTION]


def test_columns_name_score_and_structure(scores):
    row = scores.row()
    assert row["d95_error_gy/PTV70"] == pytest.approx(abs(row["d95_gy/PTV70"] - row["reference_d95_gy/PTV70"]))
    assert {"gamma_pass_rate_global_3mm3pct", "gamma_pass_rate_local_2mm2pct/PTV56", "mae_gy", "mae_gy/Rectum"} <= set(
        row
    )
    assert row["limits_passed"] + row["limits_violated"] + row["limits_missing"] == 20
    assert not [name for name in row if name.partition("/")[0].endswith("_cc")]


def test_errors_and_pass_rates_have_a_direction(scores):
    lower = [name for name in scores.row() if "_error_" in name or name.startswith(("mae_gy", "gamma_mean"))]
    higher = [name for name in scores.row() if name.startswith("gamma_pass_rate")]
    assert len(lower) > 50
    assert len(higher) == 6
    assert not any(is_higher_better(name) for name in lower)
    assert all(is_higher_better(name) for name in higher)


def test_curves_begin_at_the_whole_volume_and_end_at_nothing(scores):
    curves = scores.curves["PTV70"]
    for curve in (curves.reference, curves.prediction):
        assert (curve[0], curve[-1]) == (100.0, 0.0)
        assert np.all(np.diff(curve) <= 0)
    assert curves.reference.shape == curves.prediction.shape


def test_openkbp_is_scored_where_its_organs_and_possible_dose_are_known(scores):
    assert scores.openkbp is None  # a prostate
    case = small_case(0, structures=OPENKBP)
    dose = predicted_dose(case, 1)
    scoring = replace(SCORING, structures=OPENKBP, limits=None)
    found = score_dose(case, dose, scoring).openkbp
    assert found.dose_error_gy == pytest.approx(np.abs(case.dose_gy - dose).sum() / case.possible_dose.sum(), rel=1e-5)
    assert score_dose(replace(case, possible_dose=None), dose, scoring).openkbp is None
    assert score_dose(case, dose, replace(scoring, openkbp=False)).openkbp is None


def test_small_structures_and_strange_voxels_are_told():
    tiny = np.zeros(CASE.shape, bool)
    tiny[:2, :2, :2] = True
    case = replace(CASE, masks={**CASE.masks, "Bowel": tiny}, coverage={}, warnings=("look here",))
    dose = DOSE.copy()
    dose[0, 0, 0] = -1.0
    scores = score_dose(case, dose, SCORING)
    assert "Bowel" in scores.unreliable
    assert "PTV56" not in scores.unreliable
    assert scores.warnings[0] == "look here"
    assert "1 voxels have a negative dose" in scores.warnings[1]


def test_gamma_without_a_judged_voxel_is_undefined_and_never_zero():
    dark = replace(CASE, dose_gy=np.zeros(CASE.shape, np.float32))
    row = score_dose(dark, np.zeros(CASE.shape, np.float32), replace(SCORING, gamma=["3%/3mm"])).row()
    assert row["gamma_pass_rate_global_3mm3pct"] is None or math.isnan(row["gamma_pass_rate_global_3mm3pct"])


def test_a_case_without_a_dose_is_refused():
    with pytest.raises(CaseError, match="reference with a dose"):
        score_dose(replace(CASE, dose_gy=None), DOSE, SCORING)


def test_another_grid_is_refused():
    with pytest.raises(GridMismatchError):
        score_dose(CASE, DOSE[1:], SCORING)


def test_neither_dose_is_changed():
    before = CASE.dose_gy.copy(), DOSE.copy()
    score_dose(CASE, DOSE, SCORING)
    assert np.array_equal(before[0], CASE.dose_gy)
    assert np.array_equal(before[1], DOSE)

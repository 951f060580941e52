"""Errors of a predicted dose: hand-worked numbers, a plain implementation, and what is refused."""

import math

import numpy as np
import pytest

from medexp.errors import CaseError, GridMismatchError
from medexp.metrics.dose_errors import dose_errors, oddities_of, require_reference
from tests.synthetic.doses import small_case

REFERENCE = np.array([0.0, 10.0, 36.0, 72.0], np.float32).reshape(4, 1, 1)
PREDICTION = np.array([1.0, 7.0, 36.0, 64.0], np.float32).reshape(4, 1, 1)
MASKS = {
    "PTV70": np.array([0, 0, 1, 1], bool).reshape(4, 1, 1),
    "Rectum": np.array([1, 1, 0, 0], bool).reshape(4, 1, 1),
    "Bowel": np.zeros((4, 1, 1), bool),
}


def scored(reference=REFERENCE, prediction=PREDICTION, masks=MASKS):
    return dose_errors(reference, prediction, masks=masks, prescription_gy=70.0)


def test_errors_by_hand():
    found = scored()
    assert found.mae_gy == 3.0
    assert found.rmse_gy == pytest.approx(math.sqrt((1 + 9 + 64) / 4))
    assert found.max_error_gy == 8.0
    assert (found.reference_mean_gy, found.prediction_mean_gy) == (29.5, 27.0)
    assert (found.reference_max_gy, found.prediction_max_gy) == (72.0, 64.0)


def test_air_where_no_dose_may_be_does_not_dilute_the_mean():
    possible = np.array([0, 1, 1, 1], bool).reshape(4, 1, 1)
    found = dose_errors(REFERENCE, PREDICTION, masks=MASKS, prescription_gy=70.0, possible_dose=possible)
    assert found.mae_gy == pytest.approx(11 / 3)
    assert found.rmse_gy == pytest.approx(math.sqrt(73 / 3))
    assert found.mae_grid_gy == 3.0


def test_every_voxel_counts_where_dose_is_said_to_be_possible_nowhere():
    nowhere = np.zeros(REFERENCE.shape, bool)
    found = dose_errors(REFERENCE, PREDICTION, masks=MASKS, prescription_gy=70.0, possible_dose=nowhere)
    assert found.mae_gy == scored().mae_gy == 3.0


def test_errors_at_levels_look_where_the_reference_is_high():
    assert scored().mae_at_gy == {10: pytest.approx(11 / 3), 50: 4.0, 90: 8.0}


def test_errors_of_structures_leave_out_empty_ones():
    assert scored().mae_of_gy == {"PTV70": 4.0, "Rectum": 2.0}


def test_a_dose_against_itself_has_no_error():
    found = scored(prediction=REFERENCE)
    assert (found.mae_gy, found.rmse_gy, found.max_error_gy) == (0.0, 0.0, 0.0)
    assert set(found.mae_of_gy.values()) == {0.0}


def test_a_volume_agrees_with_a_plain_implementation():
    case = small_case()
    prediction = case.dose_gy + np.random.default_rng(0).normal(0, 2, case.shape).astype(np.float32)
    found = dose_errors(case.dose_gy, prediction, masks=case.masks, prescription_gy=70.0)
    pairs = list(zip(case.dose_gy.ravel().tolist(), prediction.ravel().tolist(), strict=True))
    assert found.mae_gy == pytest.approx(sum(abs(a - b) for a, b in pairs) / len(pairs), rel=1e-6)
    assert found.rmse_gy == pytest.approx(math.sqrt(sum((a - b) ** 2 for a, b in pairs) / len(pairs)), rel=1e-6)
    high = [abs(a - b) for a, b in pairs if a >= 0.5 * max(a for a, _ in pairs)]
    assert found.mae_at_gy[50] == pytest.approx(sum(high) / len(high), rel=1e-6)


def test_both_signs_of_an_error_count_alike():
    assert scored(REFERENCE, REFERENCE + 2).mae_gy == scored(REFERENCE + 2, REFERENCE).mae_gy == 2.0


def test_levels_of_a_reference_without_dose_are_undefined():
    assert scored(reference=np.zeros_like(REFERENCE)).mae_at_gy == {10: None, 50: None, 90: None}


def test_negative_and_excessive_voxels_are_counted_and_scored_as_they_are():
    prediction = np.array([-1.0, -3.0, 84.0, 85.0], np.float32).reshape(4, 1, 1)
    found = scored(prediction=prediction)
    assert (found.oddities.num_negative, found.oddities.num_excessive) == (2, 1)
    assert found.mae_gy == (1 + 13 + 48 + 13) / 4
    assert found.oddities.warnings(70.0) == [
        "2 voxels have a negative dose, down to -3.00 Gy",
        "1 voxels have more than 120 % of 70 Gy, up to 85.00 Gy",
    ]
    assert oddities_of(PREDICTION, 70.0).warnings(70.0) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_on_both_sides(value):
    broken = REFERENCE.copy()
    broken[1] = value
    kind = "1 NaN" if np.isnan(value) else "1 infinite"
    with pytest.raises(CaseError, match=f"predicted dose: expected finite values, got .*{kind}"):
        scored(prediction=broken)
    with pytest.raises(CaseError, match="reference dose: expected finite values"):
        scored(reference=broken)


def test_a_negative_reference_is_refused():
    with pytest.raises(CaseError, match="1 down to -1 Gy"):
        require_reference(np.array([1.0, -1.0], np.float32).reshape(2, 1, 1))


def test_a_dose_of_no_voxels_is_refused():
    with pytest.raises(CaseError, match="at least one voxel"):
        require_reference(np.zeros((0, 2, 2), np.float32))


def test_different_grids_are_refused():
    with pytest.raises(GridMismatchError):
        scored(prediction=PREDICTION[1:])


def test_the_row_has_a_column_per_structure_and_level():
    row = scored().row()
    assert row["mae_gy/PTV70"] == 4.0
    assert row["mae_gy/at 90 percent"] == 8.0
    assert "mae_gy/Bowel" not in row

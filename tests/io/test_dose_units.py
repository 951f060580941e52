import numpy as np
import pytest

from medexp.errors import CaseError
from medexp.io.dose_units import (
    HOUNSFIELD,
    NORMALIZED,
    UNIT_RANGE,
    guessed_ct_unit,
    guessed_dose_unit,
    normalized_ct,
)


def test_normalized_ct_runs_from_a_quarter_to_five_quarters():
    ct = np.array([-1024, -1000, 0, 40, 3000, 3071], np.int16).reshape(6, 1, 1)
    assert normalized_ct(ct).ravel().tolist() == pytest.approx([0.25, 0.25, 0.5, 0.51, 1.25, 1.25])


@pytest.mark.parametrize(
    ("unit", "air", "water"), [(HOUNSFIELD, -1000.0, 0.0), (NORMALIZED, 0.25, 0.5), (UNIT_RANGE, 0.0, 0.25)]
)
def test_air_and_water_have_their_hounsfield_units(unit, air, water):
    assert unit.to_hu(np.array([air, water], np.float32).reshape(2, 1, 1)).ravel().tolist() == [-1000, 0]


def test_every_hounsfield_unit_inside_the_clip_survives():
    ct = np.arange(-1000, 3001, dtype=np.int16).reshape(-1, 1, 1)
    assert np.array_equal(NORMALIZED.to_hu(normalized_ct(ct)), ct)


def test_hounsfield_units_beyond_16_bits_are_clipped():
    assert HOUNSFIELD.to_hu(np.array([1e5, -1e5], np.float32).reshape(2, 1, 1)).ravel().tolist() == [32767, -32768]


@pytest.mark.parametrize(
    ("least", "largest", "is_integer", "unit"),
    [
        (-1000.0, 3000.0, False, HOUNSFIELD),
        (-1024.0, 1500.0, True, HOUNSFIELD),
        (0.0, 1.0, True, HOUNSFIELD),
        (0.25, 1.25, False, NORMALIZED),
        (0.25, 0.7, False, NORMALIZED),
        (0.0, 1.0, False, UNIT_RANGE),
        (0.0, 0.6, False, UNIT_RANGE),
    ],
)
def test_a_cts_unit_is_told_from_its_extremes(least, largest, is_integer, unit):
    found, warning = guessed_ct_unit(least, largest, is_integer=is_integer)
    assert found == unit
    assert "assumed" in warning


@pytest.mark.parametrize(("least", "largest"), [(-1.0, 1.0), (0.0, 1.25), (-3.0, 3.0), (-1000.0, 1e6), (0.3, 5.0)])
def test_a_ct_that_could_be_anything_is_refused(least, largest):
    with pytest.raises(CaseError, match="JSON metadata"):
        guessed_ct_unit(least, largest, is_integer=False)


@pytest.mark.parametrize(("largest", "gy"), [(1.07, 70.0), (0.0, 70.0), (74.9, 1.0), (20.0, 1.0)])
def test_a_doses_unit_is_told_from_its_maximum(largest, gy):
    assert guessed_dose_unit(largest, prescription_gy=70.0)[0] == gy


@pytest.mark.parametrize(
    ("largest", "doubt"), [(7.0, "tells neither"), (104.0, "may be percent or cGy"), (7280.0, "may be percent or cGy")]
)
def test_a_dose_that_could_be_either_is_refused(largest, doubt):
    with pytest.raises(CaseError, match=doubt):
        guessed_dose_unit(largest, prescription_gy=70.0)

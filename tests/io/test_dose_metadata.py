import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexp.errors import CaseError
from medexp.io.dose_metadata import DoseMetadata, default_affine, json_array, json_of, parsed
from medexp.io.dose_units import NORMALIZED

AFFINE = np.array([[-2.0, 0, 0, 10], [0, -1.5, 0, 20], [0, 0, 3.0, 30], [0, 0, 0, 1]])


def test_everything_is_read_back():
    before = DoseMetadata(("PTV70", "Bladder"), AFFINE, 70.0, NORMALIZED, 70.0, ("PTV70",), {"fractions": 28}, ("odd",))
    after = parsed(json_of(before.to_array(distance_clip_mm=50.0)))
    assert np.array_equal(after.affine, AFFINE)
    for name in ("structures", "prescription_gy", "ct_unit", "dose_unit_gy", "coverage", "details", "warnings"):
        assert getattr(after, name) == getattr(before, name), name


def test_the_spacing_stands_in_the_order_of_the_arrays():
    record = json_of(DoseMetadata(affine=AFFINE).to_array())
    assert record["voxel_spacing_mm"] == [1.5, 2.0, 3.0]  # y, x, z


@pytest.mark.parametrize(
    ("record", "spacing"),
    [
        ({"voxel_spacing_mm": [1.5, 2.0, 3.0], "target_spacing_mm": [1, 1, 2]}, (2.0, 1.5, 3.0)),
        ({"target_spacing_mm": [1, 1, 2]}, (1.0, 1.0, 2.0)),
    ],
)
def test_other_programs_spacings_are_taken_in_order(record, spacing):
    affine = parsed(record).affine
    assert np.diag(affine)[:3].tolist() == [-spacing[0], -spacing[1], spacing[2]]


def test_other_programs_may_have_versions_of_their_own():
    assert parsed({"version": "2.3", "axes": "yxz"}).structures is None


@pytest.mark.parametrize(
    ("record", "message"),
    [({"version": 99}, "expected version 1, got 99"), ({"axes": ["x", "y", "z"]}, "turn the arr")],
)
def test_what_a_later_version_may_mean_is_refused(record, message):
    with pytest.raises(CaseError, match=message):
        parsed({"format": "medexp dose", **record})


def test_nothing_said_is_nothing_known():
    found = parsed({})
    assert (found.affine, found.structures, found.prescription_gy, found.ct_unit) == (None, None, None, None)
    assert np.diag(default_affine()).tolist() == [-1.0, -1.0, 2.0, 1.0]


def test_nan_becomes_null():
    assert json_of(json_array({"score": float("nan")})) == {"score": None}


@pytest.mark.parametrize(
    "record",
    [
        {"voxel_spacing_mm": [1, 1]},
        {"voxel_spacing_mm": [1, 1, 0]},
        {"voxel_spacing_mm": "1x1x2"},
        {"ras_mm_from_xyz": np.zeros((4, 4)).tolist()},
        {"ras_mm_from_xyz": [[1, 2], [3]]},
        {"ras_mm_from_xyz": np.diag([1.0, 1.0, 0.0, 1.0]).tolist()},
        {"ras_mm_from_xyz": [[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]},
        {"ras_mm_from_xyz": AFFINE.tolist(), "voxel_spacing_mm": [1.0, 1.0, 1.0]},
        {"prescription_gy": "70"},
        {"prescription_gy": True},
        {"prescription_gy": 1e300},
        {"structures": "PTV70"},
        {"structures": [1, 2]},
        {"ct": {"hu_per_unit": 4000}},
        {"ct": {"hu_per_unit": 4000, "offset": "a"}},
        {"ct": []},
        {"dose": 70},
        {"details": 3},
    ],
)
def test_entries_of_another_kind_are_refused(record):
    with pytest.raises(CaseError, match="expected entries"):
        parsed(record)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("structures", "ras_mm_from_xyz", "voxel_spacing_mm", "prescription_gy", "ct", "dose", "coverage", "details")


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(KEYS), json_values))
def test_any_json_is_read_or_refused_with_a_case_error(record):
    with suppress(CaseError):
        parsed(record)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.array("{'a': 1}"), id="no JSON"),
        pytest.param(np.array("[" * 100_000), id="nested without end"),
        pytest.param(np.array("[1]"), id="a list"),
        pytest.param(np.array(3.0), id="a number"),
        pytest.param(np.array(["{}", "{}"]), id="two texts"),
        pytest.param(np.array(b"\xff\xfe{"), id="other bytes"),
    ],
)
def test_what_is_no_json_text_is_refused(array):
    with pytest.raises(CaseError, match="expected"):
        json_of(array)


def test_text_may_be_bytes():
    assert json_of(np.array(json.dumps({"a": 1}).encode())) == {"a": 1}

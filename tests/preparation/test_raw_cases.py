"""Names of cases: safe in a path, and different ones stay different."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexp.errors import CohortError, ConfigurationError
from medexp.preparation.raw_cases import (
    RawCase,
    case_identifier,
    combined,
    patient_matcher,
    patient_of,
    require_folders,
    required_channels,
    required_labels,
)

HOSTILE = [
    "../../etc/x",
    "/etc/passwd",
    "a\0b",
    "a\nb",
    "x" * 300,
    "CON",
    "con.nii",
    "..",
    ".hidden",
    "-rf",
    "<script>",
    "é",
    "a b",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_becomes_a_plain_one(name):
    identifier = case_identifier(name)
    assert re.fullmatch(r"[A-Za-z0-9%][A-Za-z0-9._%-]{0,99}", identifier)
    assert identifier.split(".")[0].upper() != "CON"


def test_a_plain_name_is_kept():
    assert case_identifier("BraTS-GLI-00005-100") == "BraTS-GLI-00005-100"


@given(first=st.text(min_size=1, max_size=400), second=st.text(min_size=1, max_size=400))
def test_different_names_stay_different(first, second):
    assert (case_identifier(first) == case_identifier(second)) == (first == second)


def test_the_shipped_pattern_tells_the_patient_from_the_time_point():
    matcher = patient_matcher(r"(?P<patient>.+?)(-\d{3})?$")
    assert patient_of("BraTS-GLI-00005-100", matcher) == "BraTS-GLI-00005"
    assert patient_of("BraTS-TCGA-DU-7294", matcher) == "BraTS-TCGA-DU-7294"


@pytest.mark.parametrize("pattern", ["(", "no group", r"(?P<subject>.+)"])
def test_a_pattern_without_a_patient_names_the_key(pattern):
    with pytest.raises(ConfigurationError, match=r"dataset\.patient_pattern"):
        patient_matcher(pattern)


def test_cases_of_one_name_are_marked_with_both_places(tmp_path):
    cases = [
        RawCase("a", "a", "train", {"t1c": tmp_path / folder / "a.nii.gz"}, None, "a") for folder in ("one", "two")
    ]
    marked = combined([*cases, RawCase("b", "b", "train", {}, None, "b")])
    assert [len(case.problems) for case in marked] == [1, 1, 0]
    assert "one" in marked[0].problems[0]
    assert "two" in marked[0].problems[0]


def test_channels_must_be_named_once():
    with pytest.raises(ConfigurationError, match=r"dataset\.channels"):
        required_channels(["t1c", "t1c"])
    with pytest.raises(ConfigurationError, match=r"dataset\.channels"):
        required_channels(None)


@pytest.mark.parametrize("labels", [None, {}, {"a": 0}, {"a": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 1}])
def test_labels_must_count_from_one(labels):
    with pytest.raises(ConfigurationError, match=r"dataset\.labels"):
        required_labels(labels)


def test_roots_that_are_missing_are_listed(tmp_path):
    with pytest.raises(CohortError, match=r"nowhere.*elsewhere.*dataset\.roots"):
        require_folders([tmp_path / "nowhere", tmp_path, tmp_path / "elsewhere"])

"""Filters: what holds, what is misspelt, what nobody has."""

import pytest

from medexp.errors import ConfigurationError, UnknownOptionError
from medexp.runs.filters import Filters

FACTS = [
    {"model": "unet3d", "fold": 0, "rate": 0.001, "tag": ["paper", "first"], "flips": True},
    {"model": "monai_ft", "fold": 1, "rate": 0.01, "tag": [], "flips": False},
    {"model": "monai_ft", "fold": 2, "tag": ["paper"], "flips": None},
]


def matching(*filters, **known):
    return Filters.parse(filters, where="filter").matching(FACTS, where="filter", known=known)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), [0, 1, 2]),
        (("model=monai_ft",), [1, 2]),
        (("model=monai_ft", "fold=2"), [2]),
        (("fold=0,2",), [0, 2]),
        (("fold=0", "fold=2"), [0, 2]),
        (("model=u*",), [0]),
        (("tag=paper",), [0, 2]),
        (("rate=1e-2",), [1]),
        (("flips=true",), [0]),
        (("flips=null",), [2]),
        (("model=unet3d", "fold=1"), []),
    ],
)
def test_every_key_must_hold_by_any_of_its_values(filters, expected):
    assert matching(*filters) == expected


def test_a_misspelt_key_names_the_nearest():
    with pytest.raises(UnknownOptionError, match="no run has a key modle; did you mean model"):
        matching("modle=unet3d")


def test_a_misspelt_value_names_the_nearest():
    with pytest.raises(UnknownOptionError, match="no run has model=unet2d; did you mean unet3d"):
        matching("model=unet2d")


def test_known_values_may_be_absent():
    assert matching("fold=4", fold=("4",)) == []
    with pytest.raises(UnknownOptionError, match="fold=4"):
        matching("fold=4")


def test_nothing_recorded_matches_nothing_without_complaint():
    assert Filters.parse(["model=any"], where="filter").matching([], where="filter") == []


@pytest.mark.parametrize("text", ["model", "=unet3d", "model="])
def test_what_is_no_filter_is_refused(text):
    with pytest.raises(ConfigurationError, match=r"expected filters like model=unet3d, got"):
        matching(text)

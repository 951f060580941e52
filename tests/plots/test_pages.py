"""Pages escape what they are given and refuse what they lack."""

import math

import jinja2
import pytest

from medexp.plots.pages import distance, milliliters, render, score


def test_values_are_escaped():
    assert "<title>&lt;b&gt;</title>" in render("page.html.j2", {"title": "<b>"})


def test_a_missing_value_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        render("page.html.j2", {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (score(0.12345), "0.123"),
        (score(math.nan), "–"),
        (score(None), "–"),
        (distance(12.34), "12.3"),
        (distance(math.inf), "∞"),
        (distance(math.nan), "–"),
        (milliliters(12345.0), "12.3"),
        (milliliters(7.0), "0.007"),
        (milliliters(0.0), "0.0"),
        (milliliters(None), "–"),
    ],
)
def test_numbers_are_written_for_a_reader(text, expected):
    assert text == expected

"""Dots are cases; what is undefined is counted, not drawn."""

import math

import numpy as np
import pytest

from medexp.plots.distributions import ScorePanel, score_strips


def test_every_defined_value_is_a_dot():
    figure = score_strips(
        [ScorePanel("HD95", {"a": [1.0, 2.0, math.inf, math.nan], "b": [3.0]})], colors={"a": "#1f77b4"}
    )
    [axes] = figure.axes
    dots = [collection.get_offsets()[:, 0].tolist() for collection in axes.collections]
    assert dots == [[1.0, 2.0], [3.0]]
    assert [text.get_text() for text in axes.texts] == ["2/4"]


def test_a_structure_without_any_value_keeps_its_row():
    figure = score_strips([ScorePanel("Dice", {"a": [math.nan], "b": [0.5]}, (0.0, 1.0))], colors={})
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]
    assert figure.axes[0].get_xlim() == (0.0, 1.0)


def test_the_line_is_the_median():
    figure = score_strips([ScorePanel("Dice", {"a": [0.1, 0.2, 0.9]}, (0.0, 1.0))], colors={})
    assert figure.axes[0].lines[0].get_xdata() == pytest.approx([0.2, 0.2])


def test_dots_of_a_row_do_not_reach_the_next():
    values = np.linspace(0.0, 1.0, 50).tolist()
    figure = score_strips([ScorePanel("Dice", {"a": values}, (0.0, 1.0))], colors={})
    assert np.abs(figure.axes[0].collections[0].get_offsets()[:, 1]).max() < 0.25

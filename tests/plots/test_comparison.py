"""The figure of a comparison: one dot per run, one mark per pair, filled where the difference is clear."""

import math

import pytest

from medexp.plots.comparison import ComparisonPanel, DifferenceRow, MethodRow, comparison_figure

PANEL = ComparisonPanel(
    "dice/WT",
    "higher",
    [MethodRow("a", 0.8, 0.7, 0.9, [0.75, 0.85]), MethodRow("b", 0.7, math.nan, math.nan, [0.7, math.nan])],
    [DifferenceRow("a − b", 0.1, 0.05, 0.15, is_clear=True)],
)


def test_runs_are_dots_and_means_are_lines():
    left = comparison_figure([PANEL]).axes[0]
    assert [dots.get_offsets()[:, 0].tolist() for dots in left.collections] == [[0.75, 0.85], [0.7]]
    assert [line.get_xdata()[0] for line in left.lines] == [0.8, 0.7]
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "b"]


def test_intervals_are_bars_where_there_are_any():
    left = comparison_figure([PANEL]).axes[0]
    assert [(bar.get_x(), bar.get_width()) for bar in left.patches] == [(0.7, pytest.approx(0.2))]


@pytest.mark.parametrize("is_clear", [True, False])
def test_clear_differences_are_filled(is_clear):
    panel = ComparisonPanel("dice", "higher", PANEL.methods, [DifferenceRow("a − b", 0.1, 0.0, 0.2, is_clear=is_clear)])
    right = comparison_figure([panel]).axes[1]
    [face] = right.collections[0].get_facecolors()
    assert (sum(face[:3]) < 1.0) == is_clear


def test_one_row_of_panels_per_metric_and_a_note_below():
    figure = comparison_figure([PANEL, PANEL], note="† picked on these cases")
    assert len(figure.axes) == 4
    assert figure.get_supxlabel() == "† picked on these cases"


def test_long_names_are_cut():
    panel = ComparisonPanel("dice", "lower", [MethodRow("x" * 80, 0.5, 0.4, 0.6, [0.5])], [])
    [name] = comparison_figure([panel]).axes[0].get_yticklabels()
    assert len(name.get_text()) < 40

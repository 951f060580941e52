"""Figures become parts of a page."""

import re

from medexp.plots.distributions import ScorePanel, score_strips
from medexp.plots.theme import ACCENT, INK, colors_of, house_style, inline_svg, new_figure


def drawing(text="<b>&"):
    with house_style():
        figure = new_figure(3.0, 2.0)
        axes = figure.subplots()
        axes.plot([1.23456, 2.0], [0.00012, 0.0003], color=ACCENT)
        axes.set_title(text)
    return inline_svg(figure, name="drawing", description='a "line" & more')


def test_a_figure_has_no_address_and_no_style_for_the_page_around_it():
    svg = drawing()
    assert svg.startswith('<svg class="figure"')
    assert "http" not in svg
    assert "<style" not in svg


def test_roles_become_variables():
    svg = drawing()
    assert "var(--ink)" in svg
    assert "var(--accent)" in svg
    assert INK not in svg


def test_text_is_escaped():
    svg = drawing()
    assert "&lt;b&gt;&amp;" in svg
    assert 'aria-label="a &quot;line&quot; &amp; more"' in svg


def test_small_numbers_on_an_axis_keep_their_digits():
    assert re.search(r">0\.000\d+<", drawing())


def test_the_same_figure_is_the_same_text():
    assert drawing() == drawing()


def test_labels_have_the_colors_of_brats_viewers():
    assert colors_of({"ET": 3, "NETC": 1}) == {"ET": "#2ca02c", "NETC": "#1f77b4"}


def test_names_with_dollar_signs_are_no_formulas():
    panel = ScorePanel("Dice", {"$x_1$": [0.5, float("nan")]}, (0.0, 1.0))
    svg = inline_svg(score_strips([panel], colors={}), name="strips", description="")
    assert "$x_1$" in svg
    assert ">1/2<" in svg

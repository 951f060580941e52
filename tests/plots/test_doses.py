"""Figures of doses on the CT: three planes a row, true proportions, what is said in titles."""

from dataclasses import replace

import numpy as np
import pytest

from medexp.plots.dose_colors import structure_colors
from medexp.plots.dose_view import CUTS, DoseView
from medexp.plots.doses import dose_difference, dose_wash, gamma_figure
from medexp.plots.theme import inline_svg
from tests.synthetic.doses import VMAT, small_case

COLORS = structure_colors(VMAT)
CASE = small_case()


@pytest.fixture(scope="module")
def view():
    return DoseView.of(CASE, CASE.dose_gy + np.float32(3.0), targets_gy={"PTV70": 70.0})


def planes(figure):
    return [axes for axes in figure.axes if axes.images]


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_reference_and_prediction_stand_one_below_the_other(view):
    panels = planes(dose_wash(view, colors=COLORS))
    assert len(panels) == 6
    places = [axes.get_position() for axes in panels]
    for upper, lower in zip(places[::2], places[1::2], strict=True):
        assert upper.x0 == pytest.approx(lower.x0)
        assert upper.y0 > lower.y1
    assert [axes.get_ylabel() for axes in panels[:2]] == ["reference", "prediction"]
    assert not np.array_equal(panels[0].images[0].get_array(), panels[1].images[0].get_array())


def test_planes_keep_their_proportions(view):
    figure = dose_wash(view, colors=COLORS)
    width_in, height_in = figure.get_size_inches()
    for axes, cut in zip(planes(figure)[::2], CUTS, strict=True):
        place = axes.get_position()
        width_mm, height_mm = view.size_mm(cut)
        assert place.width * width_in / (place.height * height_in) == pytest.approx(width_mm / height_mm)


def test_the_scale_of_the_wash_ends_at_75_gray(view):
    bar = dose_wash(view, colors=COLORS).axes[-1]
    assert bar.get_ylim() == (0.0, 75.0)
    assert bar.get_ylabel() == "dose (Gy)"


def test_outlines_enclose_the_voxels_of_the_structure(view):
    from matplotlib.path import Path

    [axes] = planes(dose_difference(view, colors=COLORS))[:1]
    drawn = [line.get_xydata() for line in axes.lines if line.get_color() == COLORS["PTV70"]]
    share = view.share_of("PTV70", CUTS[0])
    rows, columns = np.indices(share.shape)
    centers = np.stack([(columns + 0.5) * view.spacing_mm[0], (rows + 0.5) * view.spacing_mm[1]], axis=-1)
    inside = np.logical_xor.reduce([Path(one).contains_points(centers.reshape(-1, 2)) for one in drawn])
    np.testing.assert_array_equal(inside.reshape(share.shape), share >= 0.5)


def test_differences_are_signed_around_zero(view):
    figure = dose_difference(view, colors=COLORS)
    assert figure.axes[-1].get_ylim() == (-5.0, 5.0)
    assert figure.axes[-1].get_ylabel() == "prediction − reference (Gy)"


def test_the_pass_rate_stands_above_the_gamma_map(view):
    gamma = np.full(view.ct_hu.shape, np.nan, np.float32)
    gamma[:10, :10, 0] = 0.5
    gamma[:5, :5, 0] = 1.5
    title = texts(gamma_figure(view, gamma, max_gamma=2.0, criteria="3%/3mm global", colors=COLORS))[0]
    assert title == "Gamma 3%/3mm global: 75.0 % of 100 voxels pass"


def test_a_grid_without_any_gamma_says_so(view):
    gamma = np.full(view.ct_hu.shape, np.nan, np.float32)
    figure = gamma_figure(view, gamma, max_gamma=2.0, criteria="3%/3mm global", colors=COLORS)
    assert texts(figure)[0] == "Gamma 3%/3mm global: nothing to be judged"


def test_a_case_without_structures_has_no_legend():
    view = DoseView.of(replace(CASE, masks={}, coverage={}), CASE.dose_gy, targets_gy={})
    figure = dose_wash(view, colors={})
    assert figure.legends == []
    assert "hottest voxel" in texts(figure)[0]


def test_in_a_page_pictures_stay_where_outlines_are(view):
    """The scale of a picture keeps its digits: a few percent of shift would show."""
    svg = inline_svg(dose_wash(view, colors=COLORS), name="wash", description="dose")
    assert svg.count("<image") == 6 + 1  # and the scale's colors
    scale = float(svg.split('transform="matrix(')[1].split()[0])
    figure = dose_wash(view, colors=COLORS)
    points = planes(figure)[0].get_position().width * figure.get_size_inches()[0] * 72
    assert scale * planes(figure)[0].images[0].get_array().shape[1] == pytest.approx(points, rel=1e-3)

"""Box plots: quartiles by numpy, every case a dot, what is undefined counted."""

import math

import numpy as np
import pytest

from medexp.plots.dose_spread import BoxPanel, box_plots


def test_boxes_are_the_quartiles():
    values = [1.0, 2.0, 4.0, 7.0, 11.0]
    [axes] = box_plots([BoxPanel("MAE (Gy)", {"PTV70": values})], colors={"PTV70": "#d55e00"}).axes
    [box] = axes.patches
    edges = box.get_path().vertices[:, 0]
    assert (edges.min(), edges.max()) == pytest.approx(tuple(np.percentile(values, [25, 75])))
    assert axes.collections[-1].get_offsets()[:, 0].tolist() == values


def test_two_cases_are_dots_without_a_box():
    [axes] = box_plots([BoxPanel("MAE (Gy)", {"PTV70": [1.0, 2.0]})], colors={}).axes
    assert len(axes.patches) == 0
    assert len(axes.collections[0].get_offsets()) == 2


def test_undefined_cases_are_counted():
    [axes] = box_plots([BoxPanel("MAE (Gy)", {"PTV63": [1.0, math.nan, math.nan]})], colors={}).axes
    assert [text.get_text() for text in axes.texts] == ["1/3"]


def test_a_rate_ends_at_its_end_and_an_error_starts_at_zero():
    panels = [BoxPanel("gamma (%)", {"a": [97.0, 99.0]}, 100.0), BoxPanel("MAE (Gy)", {"a": [3.0, 4.0]})]
    rate, error = box_plots(panels, colors={}).axes
    assert rate.get_xlim()[1] == 100.0
    assert rate.get_xlim()[0] <= 90.0
    assert error.get_xlim()[0] == 0.0


def test_panels_have_their_own_rows():
    panels = [BoxPanel("MAE", {"all": [1.0], "PTV70": [1.0]}), BoxPanel("D95", {"PTV70": [1.0]})]
    names = [[label.get_text() for label in axes.get_yticklabels()] for axes in box_plots(panels, colors={}).axes]
    assert names == [["all", "PTV70"], ["PTV70"]]

"""Figures of objects: every finite value is in a bar, and counts stand against counts."""

import numpy as np
import pytest

from medexp.plots.objects import Measure, object_figure, size_and_shape


def bars_of(axes):
    return [bar.get_height() for bar in axes.patches if hasattr(bar, "get_height")]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        pytest.param([1.0, 2.0, 3.0, float("nan"), 4.0], "linear", id="alike, one undefined"),
        pytest.param([1.0, 20.0, 400.0, 30000.0], "log", id="over orders of magnitude"),
        pytest.param([0.0, 100.0, 1000.0, 2.0], "linear", id="with a zero"),
        pytest.param([3.0, 3.0, 3.0, 3.0], "linear", id="all the same"),
    ],
)
def test_every_defined_value_is_counted(values, scale):
    axes = object_figure([Measure("Area", values, None)], None).axes
    assert len(axes) == 1
    assert axes[0].get_xscale() == scale
    assert sum(bars_of(axes[0])) == 4


def test_reference_and_prediction_share_their_bins():
    axes = object_figure([Measure("Area", [1.0, 2.0], [1.5, 9.0, 9.5])], {"A": (2, 3)}).axes
    [outline] = [patch for patch in axes[0].patches if hasattr(patch, "get_data")]
    assert outline.get_data().values.sum() == 3
    assert len(outline.get_data().values) == len(bars_of(axes[0]))


def test_counts_of_every_image_are_a_dot():
    axes = object_figure([Measure("Area", [1.0], [1.0])], {"A": (2, 3), "B": (0, 5)}).axes[-1]
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), [[3, 2], [5, 0]])


def test_no_object_is_said():
    axes = object_figure([Measure("Area", [], [])], {"A": (0, 0)}).axes[0]
    assert axes.texts[0].get_text() == "no object"


def test_micrometers_are_taken_where_every_object_has_them():
    row = {"area": 4, "area_um2": 1.0, "equivalent_diameter": 2.0, "equivalent_diameter_um": 1.0, "circularity": ""}
    known = size_and_shape([row], [dict(row)])
    assert (known[0].title, known[0].predicted) == ("Area (µm²)", [1.0])
    assert np.isnan(known[2].predicted).all()
    unknown = size_and_shape([row], [{**row, "area_um2": "", "equivalent_diameter_um": ""}])
    assert (unknown[0].title, unknown[0].predicted, unknown[0].reference) == ("Area (px)", [4.0], [4.0])

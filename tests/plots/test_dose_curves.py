"""Lines of doses: the curves that were given, the voxels that the line runs through."""

import numpy as np
import pytest

from medexp.plots.dose_colors import structure_colors
from medexp.plots.dose_curves import DvhPair, dvh_figure, profile_figure
from medexp.plots.dose_view import DoseView
from tests.synthetic.doses import VMAT, small_case

COLORS = structure_colors(VMAT)
CURVES = {
    "PTV70": DvhPair([100.0, 100.0, 50.0, 0.0], [100.0, 90.0, 0.0]),
    "Rectum": DvhPair([100.0, 0.0], [100.0, 0.0]),
}


def test_the_prediction_is_a_line_and_the_reference_dashed():
    [axes] = dvh_figure(CURVES, step_gy=20.0, targets_gy={}, colors=COLORS).axes
    reference, prediction = axes.lines[:2]
    assert reference.get_xydata().tolist() == [[0.0, 100.0], [20.0, 100.0], [40.0, 50.0], [60.0, 0.0]]
    assert prediction.get_xydata().tolist() == [[0.0, 100.0], [20.0, 90.0], [40.0, 0.0]]
    assert reference.get_linestyle() == "--"
    assert prediction.get_linestyle() == "-"
    assert reference.get_color() == prediction.get_color() == COLORS["PTV70"]


def test_the_axis_ends_where_the_last_curve_reaches_zero():
    [axes] = dvh_figure(CURVES, step_gy=20.0, targets_gy={}, colors=COLORS).axes
    assert axes.get_xlim() == (0.0, 60.0)


def test_prescribed_doses_of_drawn_targets_are_marked():
    [axes] = dvh_figure(CURVES, step_gy=20.0, targets_gy={"PTV70": 70.0, "PTV56": 56.0}, colors=COLORS).axes
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "^"] == [70.0]


def test_profiles_are_the_voxels_through_the_middle_of_the_target():
    case = small_case()
    view = DoseView.of(case, 2 * case.dose_gy, targets_gy={"PTV70": 70.0})
    panels = profile_figure(view, colors=COLORS).axes
    for axis, axes in enumerate(panels):
        prediction, reference = axes.lines
        np.testing.assert_allclose(prediction.get_ydata(), 2 * reference.get_ydata())
        middle = view.world_mm(axis)[view.position[axis]]
        at = np.argmin(np.abs(reference.get_xdata() - middle))
        assert reference.get_ydata()[at] == view.reference_gy[view.position]
    right, left = panels[0].get_xlim()
    assert right > left  # RAS+: the patient's right is drawn on the left
    bottom, top = panels[2].get_xlim()
    assert bottom < top


def test_the_shade_is_as_wide_as_the_target():
    case = small_case()
    view = DoseView.of(case, case.dose_gy, targets_gy={"PTV70": 70.0})
    for axis, axes in enumerate(profile_figure(view, colors=COLORS).axes):
        [shade] = axes.patches
        wanted = view.inside_along("PTV70", axis).sum() * view.spacing_mm[axis]
        assert shade.get_width() == pytest.approx(wanted)

"""Colors of doses: structures that color-blind eyes tell apart, scales that mean what their legends say."""

from itertools import combinations

import numpy as np
import pytest

from medexp.plots.dose_colors import (
    STRUCTURE_COLORS,
    difference_limit_gy,
    differing,
    gamma_painted,
    gray_of_ct,
    structure_colors,
    wash_legend,
    wash_limit_gy,
    washed,
)
from tests.synthetic.doses import OPENKBP, VMAT

# Machado, Oliveira and Fernandes 2009 (https://doi.org/10.1109/TVCG.2009.113), severity 1, for linear RGB.
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]


def seen_by(colors, matrix):
    """Return CIE Lab of colors as an eye with a defect sees them."""
    from skimage.color import rgb2lab

    rgb = np.array([tuple(bytes.fromhex(color[1:])) for color in colors]) / 255.0
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ np.array(matrix).T
    linear = linear.clip(0.0, 1.0)
    return rgb2lab(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("structures", [(*VMAT, "PTV50.4"), OPENKBP], ids=["vmat", "openkbp"])
@pytest.mark.parametrize("matrix", [np.eye(3), PROTANOPIA, DEUTERANOPIA], ids=["all cones", "no red", "no green"])
def test_structures_of_a_dataset_look_different(structures, matrix):
    lab = seen_by([STRUCTURE_COLORS[name] for name in structures], matrix)
    closest = min(
        (float(np.linalg.norm(first - second)), names)
        for (first, second), names in zip(combinations(lab, 2), combinations(structures, 2), strict=True)
    )
    assert closest[0] > 14.0, closest  # a just noticeable difference is 2.3


def test_unknown_structures_get_colors_too():
    colors = structure_colors(["PTV70", "Lung", "Heart"])
    assert colors["PTV70"] == STRUCTURE_COLORS["PTV70"]
    assert len(set(colors.values())) == 3


@pytest.mark.parametrize(("prescription", "limit"), [(70.0, 75.0), (60.0, 75.0), (78.0, 85.0)])
def test_the_wash_holds_107_percent_of_the_prescription(prescription, limit):
    assert wash_limit_gy(prescription) == limit >= 1.07 * prescription


def test_a_legend_shows_dose_as_it_looks_on_soft_tissue():
    gray = np.full((1, 3), 0.45, np.float32)
    painted = washed(gray, np.array([[10.0, 40.0, 70.0]], np.float32), 70.0)[0] / 255.0
    legend = np.array([wash_legend(70.0)(dose / 75.0)[:3] for dose in (10.0, 40.0, 70.0)])
    np.testing.assert_allclose(painted, legend, atol=0.01)


def test_below_five_percent_of_the_prescription_the_ct_is_seen():
    gray = np.array([[0.2, 0.2]], np.float32)
    low, high = washed(gray, np.array([[3.4, 3.6]], np.float32), 70.0)[0]
    assert low.tolist() == [51, 51, 51]
    assert high.tolist() != [51, 51, 51]


def test_too_much_is_red_and_too_little_is_blue():
    too_much, too_little, none = differing(np.zeros((1, 3), np.float32), np.array([[5.0, -5.0, 0.0]]), 5.0)[0]
    assert too_much[0] > 2 * too_much[2]
    assert too_little[2] > 2 * too_little[0]
    assert none.tolist() == [0, 0, 0]


@pytest.mark.parametrize("max_gamma", [1.5, 2.0, 3.0])
def test_gamma_of_exactly_one_is_painted_as_passing(max_gamma):
    just_fails = np.nextafter(np.float32(1.0), np.float32(2.0))
    gamma = np.array([[0.0, 1.0, just_fails, max_gamma, np.nan]], np.float32)
    painted = gamma_painted(np.zeros((1, 5), np.float32), gamma, max_gamma)[0].astype(int)
    is_red = (painted[:, 0] > painted[:, 2]).tolist()
    assert is_red == [False, False, True, True, False]
    assert painted[4].tolist() == [0, 0, 0]


def test_the_scale_of_differences_is_not_set_by_one_voxel():
    differences = np.full(1000, 1.5, np.float32)
    differences[0] = 60.0
    assert difference_limit_gy(differences) == 2.0
    assert difference_limit_gy(differences * 2) == 5.0
    assert difference_limit_gy(np.zeros(0, np.float32)) == 2.0


def test_soft_tissue_is_gray_and_bone_is_white():
    assert gray_of_ct(np.array([[-1000, 40, 400]], np.int16)).tolist() == [[0.0, pytest.approx(0.5), 1.0]]

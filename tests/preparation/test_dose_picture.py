import io

import numpy as np
import pytest
from PIL import Image

from medexp.preparation.dose_picture import dose_picture

SHAPE = (40, 30, 20)
SIDE, GAP = 160, 2


def patient():
    """A body of water; the target in its right half (RAS+: large i), the dose only there."""
    ct = np.full(SHAPE, -1000, np.int16)
    ct[4:36, 4:26] = 0
    distances = np.ones((2, *SHAPE), np.float16)
    distances[0, 28:32, 12:18, 8:12] = -0.5
    dose = np.zeros(SHAPE, np.float32)
    dose[26:34, 10:20, 6:14] = 70.0
    return ct, dose, distances


def panels_of(png):
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    side = SIDE + GAP
    assert picture.shape == (2 * side, 4 * side, 3)
    return [[picture[r * side : (r + 1) * side, c * side : (c + 1) * side] for c in range(4)] for r in range(2)]


@pytest.fixture(scope="module")
def panels():
    ct, dose, distances = patient()
    return panels_of(dose_picture(ct_hu=ct, dose_gy=dose, distances=distances, spacing_mm=(1.0, 1.0, 2.0)))


def is_red(panel):
    return (panel[..., 0] > 120) & (panel[..., 1] < 60) & (panel[..., 2] < 60)


def test_the_patients_right_is_on_the_left(panels):
    columns = np.argwhere(is_red(panels[0][1]))[:, 1]
    assert len(columns) > 0
    assert columns.max() < SIDE / 2


def test_the_picture_is_cropped_to_the_body_in_true_proportions(panels):
    rows, columns = np.nonzero(panels[0][0].any(axis=2))
    assert np.ptp(columns) + 1 == SIDE
    assert np.ptp(rows) + 1 == pytest.approx(SIDE * 22 / 32, abs=1)


def test_the_outline_is_on_the_ct_only_where_it_should_be(panels):
    colored = np.ptp(panels[0][3], axis=2) > 30
    assert not (np.ptp(panels[0][0], axis=2) > 30).any()
    assert 20 < colored.sum() < 200


def test_the_profile_rises_where_the_dose_is(panels):
    profile = is_red(panels[1][3]) | (panels[1][3][..., 0] > 180)
    high = np.argwhere(profile[: SIDE // 4])[:, 1]
    assert high.max() < SIDE / 2


@pytest.mark.parametrize("change", ["no dose", "no structure", "all air"])
def test_a_case_that_lacks_something_has_a_picture_all_the_same(change):
    ct, dose, distances = patient()
    if change == "no structure":
        distances[:] = 1
    if change == "all air":
        ct[:] = -1000
    dose_gy = None if change == "no dose" else dose
    panels_of(dose_picture(ct_hu=ct, dose_gy=dose_gy, distances=distances, spacing_mm=(1.0, 1.0, 2.0)))

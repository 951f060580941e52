import numpy as np
import pytest

from medexp.preparation.arc_dose import NUM_BEAMS, Body, arc_dose

SIZE_MM = 4.0


def body_of(shape=(50, 50, 24), half_width=90.0, half_depth=70.0):
    x, y, z = (((np.arange(side) - (side - 1) / 2) * SIZE_MM).astype(np.float32) for side in shape)
    return Body(x, y, z, np.full(shape[2], half_width, np.float32), np.full(shape[2], half_depth, np.float32))


def ball(body, radius_mm=20.0, center=(0.0, 0.0, 0.0)):
    square = (body.x[:, None, None] - center[0]) ** 2 + (body.y[None, :, None] - center[1]) ** 2
    return square + (body.z[None, None, :] - center[2]) ** 2 < radius_mm**2


def equal_beams():
    return np.ones(NUM_BEAMS)


def test_depth_below_the_skin_is_that_of_the_ellipse_along_its_axes():
    body = body_of()
    i, j = 10, 30
    x, y = float(body.x[i]), float(body.y[j])
    to_the_left = 90.0 * np.sqrt(1 - (y / 70.0) ** 2) - x
    to_the_front = 70.0 * np.sqrt(1 - (x / 90.0) ** 2) + y
    assert body.below_skin_mm((1.0, 0.0))[i, j, 0] == pytest.approx(to_the_left, abs=1e-3)
    assert body.below_skin_mm((0.0, -1.0))[i, j, 0] == pytest.approx(to_the_front, abs=1e-3)


def test_depth_in_any_direction_ends_on_the_skin():
    body = body_of()
    inside = body.radius[..., 0] < 1.0
    for angle in np.linspace(0.0, 6.0, 7):
        way = (float(np.cos(angle)), float(np.sin(angle)))
        depth = body.below_skin_mm(way)[..., 0]
        x, y = body.x[:, None] + depth * way[0], body.y[None, :] + depth * way[1]
        assert np.abs(np.hypot(x / 90.0, y / 70.0)[inside] - 1.0).max() < 1e-3


def test_the_target_gets_one_on_average_and_the_air_nothing():
    body = body_of()
    dose = arc_dose(ball(body), body, weights=equal_beams())
    assert dose[ball(body)].mean() == pytest.approx(1.0, abs=1e-5)
    assert not dose[body.radius >= 1.0].any()
    assert dose.min() >= 0.0


def test_a_round_target_in_a_round_body_gets_a_round_dose():
    body = body_of(half_width=90.0, half_depth=90.0)
    dose = arc_dose(ball(body), body, weights=equal_beams())
    near = np.hypot(body.x[:, None], body.y[None, :]) < 60.0
    for turned in (dose.transpose(1, 0, 2), dose[::-1], dose[:, ::-1]):
        assert np.abs(turned - dose)[near].max() < 0.03


def test_dose_falls_faster_along_the_axis_than_across_it():
    body = body_of()
    dose = arc_dose(ball(body), body, weights=equal_beams())
    i, j, k = (side // 2 for side in dose.shape)
    away = round(40.0 / SIZE_MM)
    assert dose[i, j, k + away] < 0.05
    assert dose[i + away, j, k] > 0.2


def test_beams_from_one_side_enter_there():
    body = body_of()
    from_the_left = np.zeros(NUM_BEAMS)
    from_the_left[NUM_BEAMS // 4] = 1.0
    dose = arc_dose(ball(body), body, weights=from_the_left)
    j, k = dose.shape[1] // 2, dose.shape[2] // 2
    assert body.x[40] > 0
    assert dose[40, j, k] > 1.5 * dose[9, j, k]  # x grows to the left; what leaves on the right is weakened
    assert dose[25, 5, k] == pytest.approx(0.0, abs=1e-3)


def test_dose_builds_up_below_the_skin():
    body = body_of()
    from_the_front = np.zeros(NUM_BEAMS)
    from_the_front[0] = 1.0
    dose = arc_dose(ball(body), body, weights=from_the_front)
    along = dose[25, :, 12]
    entered = np.flatnonzero(along)[0]
    assert along[entered] < along[entered + 4]
    assert along[entered + 4] > along[entered + 14]

import numpy as np
import pytest

from medexp.errors import ConfigurationError
from medexp.preparation.dose_scene import Scene

NOMINAL_MM = (100.0, 80.0, 60.0)


def scene_of(shape=(120, 100, 80), spacing_mm=(2.0, 2.0, 2.0)):
    return Scene.of(0, shape, spacing_mm, nominal_mm=NOMINAL_MM)


def test_an_ellipsoid_has_its_volume_and_center():
    scene = scene_of()
    mask = scene.ellipsoid((20.0, -10.0, 5.0), (30.0, 24.0, 18.0))
    assert mask.sum() * 8.0 == pytest.approx(4 / 3 * np.pi * 30.0 * 24.0 * 18.0, rel=0.01)
    i, j, k = np.argwhere(mask).mean(axis=0)
    found = (np.interp(i, range(120), scene.x.ravel()), np.interp(j, range(100), scene.y.ravel()))
    assert found == pytest.approx((20.0, -10.0), abs=0.1)
    assert np.interp(k, range(80), scene.z.ravel()) == pytest.approx(5.0, abs=0.1)


def test_a_tube_has_its_volume_and_bows_in_the_middle():
    scene = scene_of()
    straight = scene.tube((0.0, 0.0), (31.3, 23.7), (-40.0, 40.0))
    bowed = scene.tube((0.0, 0.0), (31.3, 23.7), (-40.0, 40.0), bow_mm=(0.0, 20.0))
    volume_mm3 = np.pi * 31.3 * 23.7 * 80.0
    assert straight.sum() * 8.0 == pytest.approx(volume_mm3, rel=0.02)
    assert bowed.sum() * 8.0 == pytest.approx(volume_mm3, rel=0.02)
    rows = {k: scene.y.ravel()[np.argwhere(bowed[..., k])[:, 1]].mean() for k in (20, 40)}
    assert rows[40] == pytest.approx(20.0, abs=0.5)
    assert rows[20] == pytest.approx(0.0, abs=2.5)


def test_a_patient_that_does_not_fit_is_drawn_smaller():
    assert scene_of().scale == (1.0, 1.0, 1.0)
    small = scene_of(shape=(50, 100, 80))
    assert small.scale == pytest.approx((0.46, 1.0, 1.0))
    assert not small.ellipsoid((0.0, 0.0, 0.0), NOMINAL_MM)[[0, -1]].any()


@pytest.mark.parametrize(("shape", "spacing_mm"), [((10, 50, 50), (2.0, 2.0, 2.0)), ((50, 50, 50), (2.0, 0.0, 2.0))])
def test_grids_without_room_are_refused(shape, spacing_mm):
    with pytest.raises(ConfigurationError, match=r"mock\.shape"):
        scene_of(shape, spacing_mm)

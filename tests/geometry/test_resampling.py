"""Resampling over one extent: identity, constants, ramps, labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexp.geometry.resampling import resample_label, resample_linear, resampled_shape

shapes = st.tuples(*[st.integers(1, 12)] * 3)


def test_the_number_of_voxels_keeps_the_extent():
    assert resampled_shape((10, 20, 5), (1.0, 1.0, 3.0), (1.0, 2.0, 1.0)) == (10, 10, 15)


def test_no_axis_vanishes():
    assert resampled_shape((1, 2, 3), (1.0, 1.0, 1.0), (9.0, 9.0, 9.0)) == (1, 1, 1)


@given(shape=shapes)
def test_equal_shapes_return_equal_values(shape):
    volume = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert (resample_linear(volume, shape) == volume).all()


@given(old=shapes, new=shapes)
def test_a_constant_stays_constant(old, new):
    result = resample_linear(np.full((2, *old), 3.5, np.float32), new)
    assert result.shape == (2, *new)
    assert np.allclose(result, 3.5)


def test_a_ramp_keeps_its_slope_in_millimeters():
    ramp = np.broadcast_to(np.arange(12, dtype=np.float32), (2, 3, 12))
    half = resample_linear(ramp, (2, 3, 6))
    assert half[0, 0] == pytest.approx(np.arange(6) * 2 + 0.5)


def test_values_agree_with_torch():
    import torch

    volume = np.random.default_rng(1).standard_normal((2, 7, 9, 6)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(volume)[None], size=(11, 5, 6), mode="trilinear", align_corners=False
    )[0]
    assert np.allclose(resample_linear(volume, (11, 5, 6)), expected.numpy(), atol=1e-5)


def test_the_argument_is_left_as_it_was():
    volume = np.random.default_rng(0).standard_normal((4, 4, 4)).astype(np.float32)
    before = volume.copy()
    resample_linear(volume, (8, 2, 4))
    assert (volume == before).all()


def test_a_label_has_only_its_own_values_after_resampling():
    label = np.random.default_rng(0).integers(0, 4, (9, 8, 7)).astype(np.uint8)
    assert set(np.unique(resample_label(label, (13, 5, 9)))) <= set(range(4))


def test_a_label_on_its_own_grid_is_unchanged():
    label = np.random.default_rng(0).integers(0, 4, (9, 8, 7)).astype(np.uint8)
    assert resample_label(label, (9, 8, 7)) is label


def test_a_halved_block_keeps_its_border():
    label = np.zeros((8, 8, 8), np.uint8)
    label[:4] = 3
    half = resample_label(label, (4, 4, 4))
    assert (half[:2] == 3).all()
    assert (half[2:] == 0).all()

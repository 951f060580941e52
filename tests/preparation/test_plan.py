"""The plan: patches and networks that fit the cohort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexp.errors import ConfigurationError
from medexp.preparation.plan import PATCH_VOXELS, make_plan


def plan_for(shape, *, spacing=(1.0, 1.0, 1.0), patch=None):
    return make_plan(spacing_mm=spacing, median_shape=shape, patch_size=patch)


def total_stride(plan):
    return np.prod(plan.strides, axis=0)


def test_brats_gets_128_cubed():
    plan = plan_for((140, 172, 137))
    assert plan.patch_size == (128, 128, 128)
    assert len(plan.strides) == 6


def test_hippocampus_gets_the_whole_crop_and_three_poolings():
    plan = plan_for((36, 50, 35))
    assert plan.patch_size == (40, 56, 40)
    assert plan.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert plan.kernel_sizes == ((3, 3, 3),) * 4


def test_the_poolings_of_hippocampus_are_nnunets():
    # nnU-Net v2's published plan of Task04: patch 40 x 56 x 40, three halvings of every axis.
    assert tuple(total_stride(plan_for((36, 50, 35)))) == (8, 8, 8)


def test_a_coarse_axis_waits_for_the_others():
    plan = plan_for((400, 400, 30), spacing=(0.7, 0.7, 5.0))
    assert plan.strides[1] == (2, 2, 1)
    assert plan.kernel_sizes[0] == (3, 3, 1)
    assert plan.kernel_sizes[-1] == (3, 3, 3)
    assert total_stride(plan)[2] < total_stride(plan)[0]


@given(
    shape=st.tuples(*[st.integers(1, 500)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6.0)] * 3),
)
def test_every_plan_fits_its_cohort_and_its_budget(shape, spacing):
    plan = plan_for(shape, spacing=spacing)
    stride = total_stride(plan)
    for side, full, step in zip(plan.patch_size, shape, stride, strict=True):
        assert side % step == 0
        assert side <= -(-full // step) * step
        assert side // step >= min(side, 4)
    assert np.prod(plan.patch_size) <= PATCH_VOXELS
    assert len(plan.strides) == len(plan.kernel_sizes)
    assert plan.strides[0] == (1, 1, 1)


def test_a_configured_patch_is_kept_and_halved_while_it_is_even():
    plan = plan_for((140, 172, 137), patch=(48, 40, 36))
    assert plan.patch_size == (48, 40, 36)
    assert tuple(total_stride(plan)) == (8, 8, 4)


@pytest.mark.parametrize("patch", [(48, 48), (48, 48, 3), (0, 48, 48)])
def test_an_impossible_patch_names_the_key(patch):
    with pytest.raises(ConfigurationError, match=r"dataset\.patch_size"):
        plan_for((100, 100, 100), patch=patch)

"""Affines: orientation, spacing, distance."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medexp.geometry.affine import closest_axes, corner_distance_mm, native_from_canonical, orientation, spacing_mm

LAS = np.diag([-1.0, 1.0, 1.0, 1.0])


def rotation(angles):
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        cosine, sine = np.cos(angle), np.sin(angle)
        plane = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[np.ix_(plane, plane)] = [[cosine, -sine], [sine, cosine]]
        result = result @ turn
    return result


def affine_of(angles, sizes, origin=(0.0, 0.0, 0.0)):
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) * np.array(sizes)
    affine[:3, 3] = origin
    return affine


def test_spacing_is_the_length_of_the_columns():
    affine = affine_of((0.3, -0.2, 1.0), (0.5, 1.0, 2.5))
    assert spacing_mm(affine) == pytest.approx((0.5, 1.0, 2.5))


def test_the_challenges_grid_is_las():
    assert orientation(LAS) == "LAS"


@given(
    angles=arrays(float, 3, elements=st.floats(-3.1, 3.1)),
    sizes=arrays(float, 3, elements=st.floats(0.3, 5.0)),
)
def test_orientation_agrees_with_nibabel(angles, sizes):
    affine = affine_of(angles, sizes)
    assert orientation(affine) == "".join(nib.aff2axcodes(affine))


@given(axes=st.permutations(range(3)), flips=st.tuples(*[st.booleans()] * 3))
def test_every_permutation_and_flip_becomes_ras(axes, flips):
    affine = np.zeros((4, 4))
    affine[3, 3] = 1.0
    for world, axis in enumerate(axes):
        affine[world, axis] = -1.5 if flips[world] else 1.5
    found = closest_axes(affine)
    assert found == (tuple(axes), flips)
    canonical = affine @ native_from_canonical((4, 5, 6), *found)
    assert orientation(canonical) == "RAS"


def test_a_shift_moves_every_corner_by_itself():
    moved = LAS.copy()
    moved[1, 3] += 10.0
    assert corner_distance_mm(LAS, moved, (8, 9, 10)) == pytest.approx(10.0)


def test_a_spacing_error_grows_with_the_volume():
    wider = LAS.copy()
    wider[1, 1] *= 1.001
    assert corner_distance_mm(LAS, wider, (8, 11, 8)) == pytest.approx(0.010)
    assert corner_distance_mm(LAS, wider, (8, 101, 8)) == pytest.approx(0.100)

"""Planes go through the largest lesion, lie as a radiologist expects, and keep lengths."""

import re

import numpy as np
import pytest

from medexp.plots.slices import three_planes

SHAPE = (30, 24, 20)


def extent(path):
    """Return (left, right, top, bottom) of an SVG path."""
    points = np.array([[float(x) for x in pair.split()] for pair in re.split("[MLZ]+", path) if pair])
    return points[:, 0].min(), points[:, 0].max(), points[:, 1].min(), points[:, 1].max()


def planes_of(reference, prediction=None, image=None, affine=None):
    empty = np.zeros(reference.shape, np.uint8)
    return three_planes(
        reference=reference,
        prediction=empty if prediction is None else prediction,
        image=image,
        affine=np.eye(4) if affine is None else affine,
    )


def box(*sides, value=1):
    label = np.zeros(SHAPE, np.uint8)
    label[tuple(slice(*side) for side in sides)] = value
    return label


def test_planes_cut_the_largest_lesion():
    label = box((2, 4), (2, 4), (2, 4)) + box((20, 27), (10, 16), (8, 13))
    axial, coronal, sagittal = planes_of(label)
    assert (axial.name, coronal.name, sagittal.name) == ("axial", "coronal", "sagittal")
    assert 8 <= axial.position_mm < 13
    assert 10 <= coronal.position_mm < 16
    assert 20 <= sagittal.position_mm < 27


def test_the_patients_right_front_and_head_are_left_and_top():
    label = box((24, 28), (18, 22), (15, 18))  # left, front and high in RAS+
    axial, coronal, sagittal = planes_of(label)
    assert extent(axial.reference[0].path) == pytest.approx((2, 6, 2, 6))
    assert extent(coronal.reference[0].path) == pytest.approx((2, 6, 2, 5))
    assert extent(sagittal.reference[0].path) == pytest.approx((2, 6, 2, 5))


def test_a_file_in_another_orientation_gives_the_same_planes():
    label = box((3, 9), (4, 8), (5, 7))
    turned = np.flip(label.transpose(2, 0, 1), axis=1)
    affine = np.array([[0, -1, 0, SHAPE[0] - 1.0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], np.float64)
    assert planes_of(turned, affine=affine) == planes_of(label)


def test_lengths_are_millimeters():
    label = box((10, 14), (8, 12), (5, 9))
    affine = np.diag([0.5, 2.0, 3.0, 1.0])
    axial, coronal, _ = planes_of(label, affine=affine)
    assert (axial.width_mm, axial.height_mm) == (15.0, 48.0)
    assert (coronal.width_mm, coronal.height_mm) == (15.0, 60.0)
    left, right, top, bottom = extent(axial.reference[0].path)
    assert (right - left, bottom - top) == pytest.approx((2.0, 8.0), abs=0.11)


def test_pictures_show_the_content_with_a_margin():
    image = np.zeros(SHAPE, np.int16)
    image[10:20, 6:18, 5:15] = 300
    axial, *_ = planes_of(box((12, 14), (8, 10), (8, 10)), image=image)
    assert (axial.width_mm, axial.height_mm) == (16.0, 18.0)
    assert axial.picture.startswith("data:image/png;base64,")


def test_a_label_outside_the_image_is_not_cut_off():
    image = np.zeros(SHAPE, np.int16)
    image[10:14, 10:14, 10:14] = 300
    axial, *_ = planes_of(box((20, 24), (10, 14), (10, 14)), image=image)
    assert axial.width_mm == 3 + 14 + 3


def test_the_predictions_lesion_stands_in_for_an_empty_reference():
    axial, *_ = planes_of(np.zeros(SHAPE, np.uint8), box((3, 9), (4, 8), (15, 17)))
    assert axial.position_mm in {15, 16}
    assert axial.reference == ()
    assert [outline.value for outline in axial.prediction] == [1]


def test_without_any_lesion_the_center_is_shown():
    axial, *_ = planes_of(np.zeros(SHAPE, np.uint8))
    assert axial.position_mm == 10.0


def test_lines_of_labels_that_touch_lie_side_by_side():
    label = box((5, 10), (5, 10), (5, 10)) + box((10, 15), (5, 10), (5, 10), value=2)
    axial, *_ = planes_of(label, label)
    right_of, left_of = (extent(outline.path) for outline in axial.prediction)
    assert right_of[0] - left_of[1] == pytest.approx(0.7, abs=0.11)


def test_an_outline_of_a_ring_has_a_hole():
    label = box((5, 15), (5, 15), (8, 12))
    label[8:12, 8:12] = 0
    axial, *_ = planes_of(label)
    assert axial.reference[0].path.count("M") == 2

"""Pictures of slices: orientation, intensities, colors, and files that others can read."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from medexp.plots.overlays import (
    LABEL_COLORS,
    blend,
    data_uri,
    display_slice,
    encode_png,
    gray_levels,
    shrink,
    side_by_side,
)


@pytest.mark.parametrize(
    ("axis", "corner"),
    [
        pytest.param(2, (3, 4, 1), id="axial: right and front at the top left"),
        pytest.param(1, (3, 1, 5), id="coronal: right and top at the top left"),
        pytest.param(0, (1, 4, 5), id="sagittal: front and top at the top left"),
    ],
)
def test_the_view_is_radiological(axis, corner):
    volume = np.zeros((4, 5, 6), np.uint8)
    volume[corner] = 1
    assert display_slice(volume, axis, corner[axis])[0, 0] == 1


def test_gray_levels_leave_the_background_black_and_span_the_rest():
    picture = np.zeros((10, 10), np.float32)
    picture[5:] = np.linspace(-3, 5, 50).reshape(5, 10)
    gray = gray_levels(picture)
    assert (gray[:5] == 0).all()
    assert gray.max() == 255


def test_given_limits_are_used():
    gray = gray_levels(np.array([[1.0, 2.0, 3.0]], np.float32), 1.0, 3.0)
    assert gray.tolist() == [[0, 128, 255]]


def test_an_empty_picture_is_black():
    assert gray_levels(np.zeros((3, 3), np.float32)).max() == 0


def test_a_labelled_pixel_takes_its_labels_color_and_others_stay_gray():
    gray = np.full((1, 2), 100, np.uint8)
    colored = blend(gray, np.array([[0, 2]], np.uint8), alpha=1.0)
    assert colored[0, 0].tolist() == [100, 100, 100]
    assert "#" + bytes(colored[0, 1]).hex() == LABEL_COLORS[1]


def test_shrinking_keeps_small_pictures():
    assert shrink(np.zeros((100, 50)), 128).shape == (100, 50)
    assert max(shrink(np.zeros((300, 200)), 128).shape) <= 128


def test_pictures_of_any_height_stand_side_by_side():
    row = side_by_side([np.full((3, 2, 3), 9, np.uint8), np.full((5, 4, 3), 7, np.uint8)], gap=1)
    assert row.shape == (5, 7, 3)
    assert (row[3:, :2] == 0).all()


def test_a_gray_png_is_exact():
    gray = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
    picture = np.repeat(gray[..., None], 3, axis=2)
    read = np.asarray(Image.open(io.BytesIO(encode_png(picture))).convert("RGB"))
    assert (read == picture).all()


def test_a_colored_png_keeps_its_colors():
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[:10, :10] = (255, 0, 0)
    read = np.asarray(Image.open(io.BytesIO(encode_png(picture))).convert("RGB"))
    assert np.abs(read.astype(int) - picture).max() <= 2


def test_a_data_uri_holds_the_file():
    assert base64.b64decode(data_uri(b"abc").removeprefix("data:image/png;base64,")) == b"abc"

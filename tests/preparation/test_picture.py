"""The picture of a case."""

import io

import numpy as np
from PIL import Image

from medexp.preparation.picture import case_picture, middle_slice


def test_the_slice_halves_the_most_frequent_label():
    label = np.zeros((6, 6, 20), np.uint8)
    label[0, 0, 2] = 1
    label[1:3, 1:3, 10:15] = 2
    assert middle_slice(label, 20) == 12


def test_without_a_label_it_is_the_middle_slice():
    assert middle_slice(None, 20) == 10
    assert middle_slice(np.zeros((2, 2, 20), np.uint8), 20) == 10


def test_there_is_a_tile_per_channel_and_one_with_the_label():
    image = np.random.default_rng(0).standard_normal((3, 40, 50, 9)).astype(np.float16)
    label = np.zeros((40, 50, 9), np.uint8)
    label[5:20, 5:20, 4] = 1
    wide = Image.open(io.BytesIO(case_picture(image, label)))
    narrow = Image.open(io.BytesIO(case_picture(image, None)))
    assert wide.size == (4 * 42 - 2, 50)
    assert narrow.size == (3 * 42 - 2, 50)

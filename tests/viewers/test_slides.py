"""Slides: one image to every mask, and pictures that show them."""

import numpy as np
import pytest

from medexp.errors import CaseError
from medexp.viewers.slides import COLOR, Picture, Slide, slides_of
from tests.synthetic.wells import SHAPE, disks, write_image, write_mask


def test_every_mask_without_an_image_is_named(tmp_path):
    images = {"A": tmp_path / "A.tif"}
    with pytest.raises(CaseError, match=r"view\.images: .*2 have none:\n  B\n  C"):
        slides_of({"A": tmp_path, "B": tmp_path, "C": tmp_path}, images)


def test_slides_are_sorted_by_name(tmp_path):
    paths = {"b": tmp_path / "b", "a": tmp_path / "a"}
    assert [slide.name for slide in slides_of(paths, paths)] == ["a", "b"]


def test_an_image_and_a_mask_of_two_sizes_are_refused(tmp_path):
    slide = Slide("A", write_image(tmp_path / "A.tif", disks()), write_mask(tmp_path / "m.tif", disks(shape=(9, 9))))
    with pytest.raises(CaseError, match="expected one size"):
        Picture.of(slide)


def test_large_images_are_reduced(slides):
    assert Picture.of(slides[0], longest=64).gray.shape == (SHAPE[0] // 2, SHAPE[1] // 2)


def test_the_border_is_drawn_in_full_and_the_background_stays(slides):
    picture = Picture.of(slides[0])
    blended = picture.blended(0.5)
    assert (blended[picture.border] == COLOR).all()
    outside = ~picture.mask
    np.testing.assert_array_equal(blended[outside], np.repeat(picture.gray[outside][:, None], 3, axis=1))
    inside = picture.mask & ~picture.border
    assert inside.any()
    assert not (blended[inside] == COLOR).all(axis=1).any()

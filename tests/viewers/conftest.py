"""Slides of small wells, one with a hostile name."""

import pytest

from medexp.viewers.slides import Slide
from tests.synthetic.wells import disks, write_image, write_mask

NAMES = ("<script>alert(1)<", "well_1", "well_2")
MASKS = (disks((30, 30, 12), (60, 90, 15)), disks((40, 60, 20)), disks((20, 100, 9)))


@pytest.fixture(scope="package")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    return [
        Slide(name, write_image(folder / f"{name}.tif", mask, seed=number), write_mask(folder / f"{name}_m.tif", mask))
        for number, (name, mask) in enumerate(zip(NAMES, MASKS, strict=True))
    ]

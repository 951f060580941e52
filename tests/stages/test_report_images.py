"""The report on images: whole images with outlines, worst first, and what the objects come to."""

import re

import numpy as np
import pytest

from medexp.errors import ManifestError
from tests.synthetic.evaluations import OBJECTS, evaluated, predicted_images, reported
from tests.synthetic.wells import SHAPE, disks, write_mask

SETTINGS = {"labels": {"spheroid": 1}, "regions": {}, "lesions": None, "nsd_tolerances_mm": [1.0], "objects": OBJECTS}
MASKS = {
    "good": (disks((30, 30, 12), (60, 90, 15)), disks((30, 30, 12), (60, 90, 15))),
    "bad": (disks((30, 60, 12), (20, 100, 9)), disks((30, 50, 12), (60, 90, 15))),
    "empty": (np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)),
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    upstream = {"predicted": [predicted_images(folder, MASKS)]}
    return reported(folder, evaluated(folder, None, None, upstream=upstream, **SETTINGS), max_cases=2)


def test_the_worst_image_comes_first_as_a_whole(page):
    cards = page.split('<article class="card">')[1:]
    assert [re.search(r"<h3>(.*?)</h3>", card).group(1) for card in cards] == ["bad", "good"]
    assert all(card.count("<figure") == 1 and 'src="data:image/png;base64,' in card for card in cards)
    assert f'viewBox="0 0 {SHAPE[1]}.00 {SHAPE[0]}.00"' in cards[0]
    assert f"{SHAPE[1]} x {SHAPE[0]} pixels · gray" in cards[0]


def test_objects_are_outlined(page):
    card = page.split('<article class="card">')[1]
    assert re.search(r'class="reference" fill="#1f77b4" d="(.*?)"', card).group(1).count("M") == 2
    assert re.search(r'class="prediction" stroke="#1f77b4" d="(.*?)"', card).group(1).count("M") == 2


def test_objects_are_counted_over_all_images(page):
    section = page.split('id="objects"')[1].split("</table>")[0]
    assert re.findall(r"<td>(.*?)</td>", section)[:6] == ["2", "2", "2", "0.500", "0.500", "0.500"]
    assert 'aria-label="Sizes, shapes and numbers of objects"' in page


def test_nothing_is_said_about_millimeters(page):
    assert "HD95" not in page
    assert "Object F1, spheroid" in page
    assert "not the area under" in page.lower()


def test_the_page_asks_for_nothing_from_elsewhere(page):
    assert "http" not in page
    assert set(re.findall(r'(?:src|href)="(.)', page)) <= {"#", "d"}


def test_measures_without_scores_have_no_report(tmp_path):
    write_mask(tmp_path / "predictions" / "A_mask.tif", MASKS["good"][0])
    run = evaluated(tmp_path, tmp_path / "predictions", None, **SETTINGS, measure_only=True)
    with pytest.raises(ManifestError, match="measure_only"):
        reported(tmp_path, run)


def test_an_image_that_is_gone_costs_its_picture_only(tmp_path):
    source = predicted_images(tmp_path, {"good": MASKS["good"]})
    run = evaluated(tmp_path, None, None, upstream={"predicted": [source]}, **SETTINGS)
    (tmp_path / "raw" / "images" / "good.tif").unlink()
    page = reported(tmp_path, run)
    assert "Outlines only" in page
    assert '<path class="prediction"' in page

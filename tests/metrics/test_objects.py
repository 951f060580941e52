"""Object measures: worked by hand, and those of scikit-image's regionprops on masks of many kinds."""

import math

import numpy as np
import pytest
from skimage.measure import regionprops

from medexp.errors import CaseError
from medexp.metrics.object_labels import ObjectRule, objects_of
from medexp.metrics.objects import OBJECT_COLUMNS, measure_objects

EVERYTHING = ObjectRule(min_area_px=1, fill_holes=False, split_touching=False, split_depth_px=1.0)


def disks(seed=0, *, shape=(300, 420), number=25, noise=0.15):
    """Return ragged ellipses of many sizes, some cut by the border."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, bool)
    for _ in range(number):
        row, column, radius = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(1, 25)
        stretch = rng.uniform(0.5, 1.5)
        far = ((rows - row) / radius / stretch) ** 2 + ((columns - column) / radius * stretch) ** 2
        mask |= far + rng.normal(0, noise, shape) < 1
    return mask


def split_disks():
    return objects_of(disks(5, noise=0.0), ObjectRule(30, fill_holes=True, split_touching=True, split_depth_px=1.0))


def with_gaps():
    labels = objects_of(disks(6), EVERYTHING)
    return np.where(labels % 3 == 0, 0, labels)


MASKS = {
    "ragged": lambda: objects_of(disks(1), EVERYTHING),
    "smooth": lambda: objects_of(disks(2, noise=0.0), EVERYTHING),
    "speckles": lambda: objects_of(np.random.default_rng(3).random((90, 70)) < 0.3, EVERYTHING),
    "objects that touch": split_disks,
    "missing numbers": with_gaps,
    "everything": lambda: np.ones((20, 30), np.int32),
    "one pixel": lambda: np.pad(np.ones((1, 1), np.int32), 4),
    "lines": lambda: objects_of(np.eye(40, dtype=bool) | (np.arange(40) == 39), EVERYTHING),
    "one row": lambda: objects_of(np.random.default_rng(4).random((1, 60)) < 0.5, EVERYTHING),
}


@pytest.mark.parametrize("name", MASKS)
def test_measures_are_those_of_scikit_image(name):
    labels = MASKS[name]()
    measured = measure_objects(labels, None).columns
    expected = regionprops(labels)
    assert measured["object_id"].tolist() == [region.label for region in expected]
    for column, attribute in {
        "area": "area",
        "perimeter": "perimeter",
        "equivalent_diameter": "equivalent_diameter_area",
        "major_axis_length": "axis_major_length",
        "eccentricity": "eccentricity",
    }.items():
        theirs = [float(getattr(region, attribute)) for region in expected]
        np.testing.assert_allclose(measured[column], theirs, rtol=1e-9, atol=1e-7, err_msg=column)
    # The root of an eigenvalue that is 0 up to rounding.
    minor = [float(region.axis_minor_length) for region in expected]
    np.testing.assert_allclose(measured["minor_axis_length"], minor, rtol=1e-7, atol=1e-5)
    np.testing.assert_allclose(measured["centroid_y"], [region.centroid[0] for region in expected], atol=1e-9)
    np.testing.assert_allclose(measured["centroid_x"], [region.centroid[1] for region in expected], atol=1e-9)
    boxes = np.stack([measured[f"bbox_{end}_{axis}"] for end in ("min", "max") for axis in ("row", "col")], axis=1)
    np.testing.assert_array_equal(boxes, [region.bbox for region in expected])


def test_a_square_worked_by_hand():
    labels = np.zeros((9, 12), np.int32)
    labels[2:6, 3:7] = 1
    row = measure_objects(labels, 0.5).rows()[0]
    assert (row["area"], row["area_um2"]) == (16, 4.0)
    assert (row["perimeter"], row["perimeter_um"]) == (12.0, 6.0)  # through the centers of the border pixels
    assert row["equivalent_diameter"] == pytest.approx(math.sqrt(64 / math.pi))
    assert row["circularity"] == pytest.approx(4 * math.pi * 16 / 144)
    assert (row["centroid_x"], row["centroid_y"], row["centroid_x_um"]) == (4.5, 3.5, 2.25)
    assert row["major_axis_length"] == row["minor_axis_length"] == pytest.approx(4 * math.sqrt(15 / 12))
    assert row["eccentricity"] == 0.0
    assert [row[f"bbox_{name}"] for name in ("min_row", "min_col", "max_row", "max_col")] == [2, 3, 6, 7]
    assert tuple(row) == OBJECT_COLUMNS


def test_a_disk_is_round_and_a_line_is_not():
    rows, columns = np.mgrid[-40:41, -40:41]
    disk = measure_objects((rows**2 + columns**2 <= 35**2).astype(np.int32), None).rows()[0]
    assert disk["circularity"] > 0.9
    assert disk["equivalent_diameter"] == pytest.approx(70, rel=0.01)
    line = np.zeros((5, 60), np.int32)
    line[2, 5:55] = 1
    assert measure_objects(line, None).rows()[0]["eccentricity"] == 1.0


def test_lengths_grow_with_the_pixel_and_ratios_do_not():
    labels = MASKS["ragged"]()
    one, three = (measure_objects(labels, size).columns for size in (1.0, 3.0))
    for name, power in (("area_um2", 2), ("perimeter_um", 1), ("equivalent_diameter_um", 1), ("centroid_x_um", 1)):
        np.testing.assert_allclose(three[name], one[name] * 3.0**power)
    np.testing.assert_array_equal(three["circularity"], one["circularity"])


def test_a_transposed_image_has_the_same_objects():
    labels = MASKS["smooth"]()
    there = measure_objects(labels, None).columns
    back = measure_objects(np.ascontiguousarray(labels.T), None).columns
    np.testing.assert_allclose(there["centroid_x"], back["centroid_y"])
    for name in ("area", "perimeter", "major_axis_length", "minor_axis_length", "eccentricity"):
        np.testing.assert_allclose(there[name], back[name], atol=1e-6)


def test_an_empty_image_has_no_objects():
    measured = measure_objects(np.zeros((30, 20), np.int32), 1.0)
    assert len(measured) == 0
    assert measured.rows() == []


def test_without_a_pixel_size_micrometers_stay_empty():
    row = measure_objects(np.ones((4, 4), np.int32), None).rows()[0]
    assert row["area_um2"] is None
    assert tuple(sorted(row)) == tuple(sorted(OBJECT_COLUMNS))


def test_a_pixel_has_no_circularity():
    assert math.isnan(measure_objects(np.ones((1, 1), np.int32), None).rows()[0]["circularity"])


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), (0.5, 0.6)])
def test_pixels_that_are_not_square_are_refused(size):
    with pytest.raises(CaseError, match="expected square pixels"):
        measure_objects(np.ones((4, 4), np.int32), size)

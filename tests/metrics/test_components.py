import numpy as np
import pytest
from scipy import ndimage

from medexp.metrics.components import (
    components,
    components_joined_by_dilation,
    dilated,
    label_components,
    overlapping_pairs,
    touching_pairs,
)
from medexp.metrics.surface_points import eroded

ROUND = ndimage.generate_binary_structure(3, 2)


def random_mask(seed, density=0.03, shape=(13, 11, 12)):
    return np.random.default_rng(seed).random(shape) < density


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_dilation_is_scipys_with_the_18_neighborhood(iterations):
    for seed in range(10):
        mask = random_mask(seed, 0.01)
        assert np.array_equal(dilated(mask, iterations), ndimage.binary_dilation(mask, ROUND, iterations))


@pytest.mark.parametrize("connectivity", [1, 3])
def test_erosion_is_scipys_with_background_outside(connectivity):
    structure = ndimage.generate_binary_structure(3, connectivity)
    for seed in range(10):
        mask = random_mask(seed, 0.9)
        before = mask.copy()
        assert np.array_equal(eroded(mask, connectivity), ndimage.binary_erosion(mask, structure))
        assert np.array_equal(mask, before)


def test_components_are_numbered_by_their_first_voxel():
    mask = np.zeros((4, 9, 9), dtype=bool)
    mask[3, 0, 0] = mask[0, 8, 8] = mask[0, 0, 5] = True
    numbers, count = label_components(mask)
    assert count == 3
    assert (numbers[0, 0, 5], numbers[0, 8, 8], numbers[3, 0, 0]) == (1, 2, 3)


def test_corner_neighbors_are_one_component():
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert components(mask).numbers() == [1]


@pytest.mark.parametrize(("gap", "count"), [(6, 1), (7, 2)], ids=["dilations touch", "dilations do not touch"])
def test_parts_are_one_lesion_if_their_dilations_touch(gap, count):
    mask = np.zeros((5, 5, 20), dtype=bool)
    mask[2, 2, 2] = mask[2, 2, 3 + gap] = True  # `gap` empty voxels between, 3 dilation steps from each side
    lesions = components_joined_by_dilation(mask, 3)
    assert len(lesions.numbers()) == count


def test_lesions_and_zones_are_those_of_the_whole_volume():
    for seed in range(20):
        mask = random_mask(seed, 0.004)
        lesion_map = components_joined_by_dilation(mask, 2)
        zones = ndimage.label(ndimage.binary_dilation(mask, ROUND, 2), np.ones((3, 3, 3)))[0]
        expected = zones * mask
        found = np.zeros_like(expected)
        found[lesion_map.box] = lesion_map.lesions
        assert np.array_equal(found, expected)
        for number in lesion_map.numbers():  # a zone is the dilation of its own lesion
            spread = ndimage.binary_dilation(expected == number, ROUND, 2)
            assert np.array_equal(spread[lesion_map.box], lesion_map.zones == number)


def test_an_empty_mask_has_no_lesions():
    for lesion_map in (
        components(np.zeros((4, 4, 4), bool)),
        components_joined_by_dilation(np.zeros((4, 4, 4), bool), 3),
    ):
        assert lesion_map.numbers() == []
        assert lesion_map.num_voxels.sum() == 0


@pytest.mark.parametrize(
    ("offset", "touches"),
    [((0, 0, 1), True), ((0, 1, 1), True), ((1, 1, 1), False), ((0, 0, 2), False)],
    ids=["face", "edge", "corner", "apart"],
)
def test_lesions_touch_across_faces_and_edges_only(offset, touches):
    labels = np.zeros((6, 6, 6), dtype=np.uint8)
    labels[2, 2, 2] = 1
    labels[2 + offset[0], 2 + offset[1], 2 + offset[2]] = 2
    first, second = (components_joined_by_dilation(labels == value, 3) for value in (1, 2))
    assert touching_pairs(first, second) == ({(1, 1)} if touches else set())


def test_touching_pairs_agree_with_dilating_every_lesion():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels = rng.integers(1, 3, (10, 11, 12)) * (ndimage.gaussian_filter(rng.random((10, 11, 12)), 1) > 0.57)
        first, second = (components_joined_by_dilation(labels == value, 1) for value in (1, 2))
        whole = [np.zeros(labels.shape, dtype=int) for _ in range(2)]
        for numbers, lesion_map in zip(whole, (first, second), strict=True):
            numbers[lesion_map.box] = lesion_map.lesions
        expected = set()
        for number in first.numbers():
            reached = whole[1][ndimage.binary_dilation(whole[0] == number, ROUND)]
            expected |= {(number, int(other)) for other in np.unique(reached) if other}
        assert touching_pairs(first, second) == expected


def test_overlapping_pairs_count_shared_voxels():
    first, second = np.array([0, 1, 1, 2, 2, 0], dtype=np.int32), np.array([3, 3, 0, 3, 4, 0], dtype=np.int32)
    assert overlapping_pairs(first, second) == {(1, 3): 1, (2, 3): 1, (2, 4): 1}

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from medexp.errors import CaseError, GridMismatchError
from medexp.metrics.surface import (
    SurfaceDistances,
    average_surface_distance_mm,
    hausdorff_distance_95,
    normalized_surface_dice,
    pooled_hausdorff_distance_95,
    robust_hausdorff_mm,
    surface_dice,
    surface_distances,
)
from medexp.metrics.surface_elements import element_sizes, neighbor_codes

UNIT = (1.0, 1.0, 1.0)


def slab(start, stop, shape=(20, 6, 7)):
    mask = np.zeros(shape, dtype=bool)
    mask[start:stop] = True
    return mask


def random_masks(seed, shape=(9, 10, 11)):
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal(shape), 1.2) for _ in range(2)]
    return [field > field.std() for field in fields]


def plain_surface(mask, spacing):
    """All corners with an area, by way of the full table of codes; no boxes."""
    codes = neighbor_codes(mask.astype(np.uint8))
    sizes = element_sizes(spacing)[codes]
    return np.argwhere(sizes > 0) * np.array(spacing), sizes[sizes > 0]


def plain_hd95(prediction, reference, spacing):
    (a, a_sizes), (b, b_sizes) = plain_surface(prediction, spacing), plain_surface(reference, spacing)
    away = cdist(a, b)
    directed = []
    for distances, sizes in ((away.min(axis=1), a_sizes), (away.min(axis=0), b_sizes)):
        order = np.argsort(distances, kind="stable")
        share = np.cumsum(sizes[order]) / sizes.sum()
        directed.append(distances[order][np.argmax(share >= 0.95 - 1e-12)])
    return max(directed)


@pytest.mark.parametrize("spacing", [UNIT, (0.5, 1.0, 2.5)], ids=["isotropic", "anisotropic"])
@pytest.mark.parametrize("seed", range(6))
def test_hd95_and_surface_dice_agree_with_all_pairs_of_points(seed, spacing):
    prediction, reference = random_masks(seed)
    (a, a_sizes), (b, b_sizes) = plain_surface(prediction, spacing), plain_surface(reference, spacing)
    away = cdist(a, b)
    near = a_sizes[away.min(axis=1) <= 1.0].sum() + b_sizes[away.min(axis=0) <= 1.0].sum()
    assert hausdorff_distance_95(prediction, reference, spacing) == pytest.approx(
        plain_hd95(prediction, reference, spacing), abs=1e-9
    )
    assert normalized_surface_dice(prediction, reference, spacing, 1.0) == pytest.approx(
        near / (a_sizes.sum() + b_sizes.sum())
    )


@pytest.mark.parametrize("percent", [50, 95, 100])
def test_parallel_faces_three_voxels_apart_are_three_voxels_apart(percent):
    # The slabs span the volume, so the shared rim of their sides lies within the shift too.
    distances = surface_distances(slab(4, 5), slab(7, 8), (2.0, 1.0, 1.0))
    assert robust_hausdorff_mm(distances, percent) == 6.0


def test_the_percentile_is_the_first_distance_that_covers_the_share():
    steps = np.arange(1.0, 21.0)  # of equal area: the 19th covers 95 % exactly
    distances = SurfaceDistances(steps, steps[:1], np.ones(20), np.ones(1))
    assert robust_hausdorff_mm(distances, 95) == 19.0
    heavy_tail = SurfaceDistances(steps, steps[:1], np.array([1.0] * 19 + [2.0]), np.ones(1))
    assert robust_hausdorff_mm(heavy_tail, 95) == 20.0


def test_single_voxels_five_steps_apart():
    prediction, reference = np.zeros((2, 3, 3, 9), dtype=bool)
    prediction[1, 1, 1] = reference[1, 1, 6] = True
    # Corners behind the one and before the other are 4 steps apart, their far sides 5.
    assert hausdorff_distance_95(prediction, reference, (1.0, 1.0, 0.5)) == 5 * 0.5
    assert pooled_hausdorff_distance_95(prediction, reference, (1.0, 1.0, 0.5)) == 5 * 0.5
    distances = surface_distances(prediction, reference, (1.0, 1.0, 0.5))
    assert average_surface_distance_mm(distances) == (4 + 5) / 2 * 0.5


def test_area_decides_how_much_a_far_part_counts():
    reference = slab(2, 8, (20, 20, 20))
    prediction = reference.copy()
    prediction[15, 10, 10] = True  # 8 small triangles of more than 1000 mm2: far below 5 %
    assert hausdorff_distance_95(prediction, reference, UNIT) == 0.0
    prediction[14:18, 4:16, 4:16] = True
    assert hausdorff_distance_95(prediction, reference, UNIT) > 5.0


def test_tolerance_is_inclusive_and_in_millimeters():
    prediction, reference = np.zeros((2, 3, 3, 9), dtype=bool)
    prediction[1, 1, 1:5] = reference[1, 1, 2:6] = True
    assert normalized_surface_dice(prediction, reference, (1.0, 1.0, 0.5), 0.5) == 1.0
    assert normalized_surface_dice(prediction, reference, (1.0, 1.0, 0.5), 0.49) < 1.0


@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6)], ids=["volume", "image"])
def test_empty_masks(shape):
    empty, full = np.zeros(shape, dtype=bool), np.ones(shape, dtype=bool)
    spacing = (1.0,) * len(shape)
    assert math.isnan(hausdorff_distance_95(empty, empty, spacing))
    assert math.isnan(pooled_hausdorff_distance_95(empty, empty, spacing))
    assert math.isnan(normalized_surface_dice(empty, empty, spacing, 1))
    assert math.isnan(average_surface_distance_mm(surface_distances(empty, empty, spacing)))
    for prediction, reference in ((empty, full), (full, empty)):
        assert hausdorff_distance_95(prediction, reference, spacing) == math.inf
        assert pooled_hausdorff_distance_95(prediction, reference, spacing) == math.inf
        assert normalized_surface_dice(prediction, reference, spacing, 1) == 0.0
        assert average_surface_distance_mm(surface_distances(prediction, reference, spacing)) == math.inf


def test_the_border_of_the_volume_is_a_surface():
    whole = np.ones((4, 4, 4), dtype=bool)
    padded = np.pad(whole, 3)
    areas = [surface_distances(mask, mask, UNIT).reference_areas.sum() for mask in (whole, padded)]
    assert areas[0] == areas[1] > 0


def test_an_image_has_contours():
    prediction, reference = np.zeros((2, 12, 12), dtype=bool)
    prediction[2:6, 2:6] = reference[2:6, 4:8] = True
    assert hausdorff_distance_95(prediction, reference, (1.0, 0.5)) == 1.0
    assert normalized_surface_dice(prediction, prediction, (1.0, 0.5), 0.0) == 1.0


def test_pooled_distance_mixes_both_directions():
    reference = slab(2, 3, (20, 3, 3))
    prediction = reference.copy()
    prediction[12] = True
    # 9 voxels of the reference and 9 of 18 of the prediction at 0 mm, 9 at 10 mm: a third of 27 is above 5 %.
    assert pooled_hausdorff_distance_95(prediction, reference, UNIT) == 10.0
    prediction[12] = False
    prediction[12, 1, 1] = True
    assert pooled_hausdorff_distance_95(prediction, reference, UNIT) == pytest.approx(
        np.percentile([0.0] * 18 + [10.0], 95)
    )


def test_inputs_are_checked():
    mask = np.zeros((4, 4, 4), dtype=bool)
    with pytest.raises(GridMismatchError, match=r"\(4, 4, 3\).*\(4, 4, 4\)"):
        surface_distances(mask[..., :3], mask, UNIT)
    with pytest.raises(GridMismatchError, match=r"\(4, 4, 3\).*\(4, 4, 4\)"):
        pooled_hausdorff_distance_95(mask[..., :3], mask, UNIT)
    with pytest.raises(CaseError, match="3 positive voxel sizes"):
        surface_distances(mask, mask, (1.0, 1.0))


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(seed=st.integers(0, 2**16), scale=st.sampled_from([0.5, 2.0, 3.0]))
def test_properties_of_a_distance(seed, scale):
    prediction, reference = random_masks(seed, (7, 8, 6))
    if not (prediction.any() and reference.any()):
        return
    distance = hausdorff_distance_95(prediction, reference, UNIT)
    assert hausdorff_distance_95(reference, prediction, UNIT) == distance
    assert hausdorff_distance_95(reference, reference, UNIT) == 0.0
    scaled = (scale, scale, scale)
    assert hausdorff_distance_95(prediction, reference, scaled) == pytest.approx(scale * distance)
    moved = [np.pad(mask, ((3, 0), (0, 2), (1, 1))) for mask in (prediction, reference)]
    assert hausdorff_distance_95(*moved, UNIT) == distance
    distances = surface_distances(prediction, reference, UNIT)
    shares = [surface_dice(distances, tolerance) for tolerance in (0.0, 0.5, 1.0, 100.0)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_masks_are_not_changed():
    prediction, reference = random_masks(3)
    before = prediction.copy(), reference.copy()
    hausdorff_distance_95(prediction, reference, UNIT)
    pooled_hausdorff_distance_95(prediction, reference, UNIT)
    assert np.array_equal(prediction, before[0])
    assert np.array_equal(reference, before[1])

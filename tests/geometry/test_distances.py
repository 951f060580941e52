import numpy as np
import pytest

from medexp.errors import CaseError
from medexp.geometry.distances import signed_distance_mm

SPACING_MM = (1.0, 1.5, 2.5)


def brute_force(mask: np.ndarray, clip_mm: float) -> np.ndarray:
    places = np.argwhere(np.ones_like(mask)) * np.array(SPACING_MM)
    inside = mask.ravel()
    apart = np.sqrt(((places[:, None] - places[None]) ** 2).sum(axis=2))
    outward = apart[:, inside].min(axis=1, initial=np.inf)
    inward = apart[:, ~inside].min(axis=1, initial=np.inf)
    return np.clip(np.where(inside, -inward, outward), -clip_mm, clip_mm).reshape(mask.shape)


@pytest.mark.parametrize("clip_mm", [3.0, 50.0])
def test_distances_are_those_to_the_nearest_voxel_of_the_other_side(clip_mm: float) -> None:
    mask = np.random.default_rng(1).random((9, 8, 7)) < 0.2
    found = signed_distance_mm(mask, SPACING_MM, clip_mm=clip_mm)
    np.testing.assert_allclose(found, brute_force(mask, clip_mm), rtol=1e-6)


def test_far_from_a_small_structure_the_clip_holds() -> None:
    mask = np.zeros((14, 9, 6), bool)
    mask[1:3, 1:3, 1:2] = True
    np.testing.assert_allclose(signed_distance_mm(mask, SPACING_MM, clip_mm=6), brute_force(mask, 6.0), rtol=1e-6)


def test_below_zero_is_exactly_inside() -> None:
    mask = np.random.default_rng(2).random((12, 12, 12)) < 0.5
    found = signed_distance_mm(mask, SPACING_MM, clip_mm=50)
    np.testing.assert_array_equal(found < 0, mask)
    assert (np.abs(found) >= min(SPACING_MM)).all()


def test_a_mask_of_bytes_counts_as_one_of_truths() -> None:
    mask = np.random.default_rng(3).random((8, 8, 8)) < 0.3
    np.testing.assert_array_equal(
        signed_distance_mm(mask.astype(np.uint8), SPACING_MM, clip_mm=50),
        signed_distance_mm(mask, SPACING_MM, clip_mm=50),
    )


@pytest.mark.parametrize(("filled", "expected_mm"), [(False, 20.0), (True, -20.0)], ids=["empty", "full"])
def test_a_structure_without_a_surface_is_at_the_clip(filled: bool, expected_mm: float) -> None:
    assert (signed_distance_mm(np.full((4, 5, 6), filled), SPACING_MM, clip_mm=20) == expected_mm).all()


@pytest.mark.parametrize(("spacing_mm", "clip_mm"), [((1, 1), 5), ((1, 0, 1), 5), ((1, 1, 1), 0)])
def test_sizes_must_be_positive(spacing_mm: tuple[float, ...], clip_mm: float) -> None:
    with pytest.raises(CaseError, match="three positive voxel sizes and a positive clip"):
        signed_distance_mm(np.zeros((3, 3, 3), bool), spacing_mm, clip_mm=clip_mm)

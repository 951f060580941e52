import numpy as np
import pytest

from medexp.errors import CaseError
from medexp.geometry.contours import coverage_of, planes_of, planes_off_grid, require_on_grid, trace

AFFINE = np.array([[-1.3, 0, 0, 100], [0, -0.9, 0, 50], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])  # LPS, as an HFS CT is
UNIT = np.eye(4)


def rectangle(i: tuple[float, float], j: tuple[float, float], k: float) -> np.ndarray:
    """Corners in voxel indices."""
    return np.array([[i[0], j[0], k], [i[1], j[0], k], [i[1], j[1], k], [i[0], j[1], k]])


def disk(radius: float, k: float, center: tuple[float, float] = (20, 20)) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius + center
    return np.concatenate([points, np.full((360, 1), k)], axis=1)


def in_world(points: np.ndarray, affine: np.ndarray = AFFINE) -> np.ndarray:
    return points @ affine[:3, :3].T + affine[:3, 3]


def shares(contours: list[np.ndarray], shape: tuple[int, int, int], affine: np.ndarray = UNIT) -> np.ndarray:
    return coverage_of([in_world(contour, affine) for contour in contours], affine, shape) / 255


def test_coverage_is_the_exact_share_of_a_rectangle_between_voxel_edges() -> None:
    found = shares([rectangle((1.25, 3.1), (0.75, 2.5), 0)], (5, 4, 1), AFFINE)
    # Voxel n reaches from n - 0.5 to n + 0.5.
    along_i = np.array([0, 0.25, 1, 0.6, 0])
    along_j = np.array([0, 0.75, 1, 0])
    np.testing.assert_allclose(found[:, :, 0], np.outer(along_i, along_j), atol=0.5 / 255 + 1e-9)


def test_coverage_of_a_triangle_sums_to_its_area() -> None:
    triangle = np.array([[2.3, 1.7, 0], [17.9, 4.4, 0], [6.1, 15.2, 0]])
    (x1, y1), (x2, y2) = triangle[1, :2] - triangle[0, :2], triangle[2, :2] - triangle[0, :2]
    assert shares([triangle], (20, 18, 1)).sum() == pytest.approx(abs(x1 * y2 - x2 * y1) / 2, rel=2e-3)


def test_coverage_agrees_with_many_points_tested_one_by_one() -> None:
    from matplotlib.path import Path

    rng = np.random.default_rng(3)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 15))
    star = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(2, 9, (15, 1)) + 10
    fine = (np.arange(20 * 25) + 0.5) / 25 - 0.5
    points = np.stack(np.meshgrid(fine, fine, indexing="ij"), axis=-1).reshape(-1, 2)
    inside = Path(star).contains_points(points).reshape(20, 25, 20, 25).mean(axis=(1, 3))
    found = shares([np.concatenate([star, np.zeros((15, 1))], axis=1)], (20, 20, 1))[:, :, 0]
    np.testing.assert_allclose(found, inside, atol=0.05)
    assert found.sum() == pytest.approx(inside.sum(), rel=2e-3)


@pytest.mark.parametrize("flipped", [False, True], ids=["same direction", "opposite direction"])
def test_a_contour_within_a_contour_is_a_hole(flipped: bool) -> None:
    hole = rectangle((3.5, 5.5), (3.5, 6.5), 0)
    found = shares([rectangle((0.5, 8.5), (0.5, 8.5), 0), hole[::-1] if flipped else hole], (10, 10, 1))
    assert found.sum() == 64 - 6
    assert found[4, 4, 0] == 0


def test_a_keyhole_contour_is_a_ring() -> None:
    outer = [(0.5, 0.5), (8.5, 0.5), (8.5, 8.5), (0.5, 8.5), (0.5, 4.2)]
    inner = [(3.5, 4.2), (3.5, 6.5), (5.5, 6.5), (5.5, 3.5), (3.5, 3.5), (3.5, 4.2)]
    path = [*outer, *inner, (0.5, 4.2)]
    keyhole = np.array([(i, j, 0.0) for i, j in path])
    np.testing.assert_array_equal(
        shares([keyhole], (10, 10, 1)),
        shares([rectangle((0.5, 8.5), (0.5, 8.5), 0), rectangle((3.5, 5.5), (3.5, 6.5), 0)], (10, 10, 1)),
    )


def test_several_contours_of_a_slice_are_united() -> None:
    found = shares([rectangle((0.5, 2.5), (0.5, 2.5), 0), rectangle((5.5, 8.5), (5.5, 8.5), 0)], (10, 10, 1))
    assert found.sum() == 4 + 9


def test_what_reaches_over_the_sides_is_cut_off() -> None:
    found = shares([rectangle((-20.0, 1.5), (2.5, 40.0), 0)], (6, 6, 1))
    assert found[:2, 3:, 0].all()
    assert found.sum() == 2 * 3


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_filling_the_traced_outlines_of_a_mask_gives_the_mask(density: float) -> None:
    mask = np.random.default_rng(0).random((23, 17, 5)) < density  # holes, islands in holes, touching corners
    np.testing.assert_array_equal(coverage_of(trace(mask, AFFINE), AFFINE, mask.shape), 255 * mask)


def test_a_traced_box_has_its_four_corners_only() -> None:
    mask = np.zeros((6, 7, 2), bool)
    mask[1:4, 2:6, 1] = True
    (outline,) = trace(mask, UNIT)
    assert {tuple(point) for point in outline} == {(0.5, 1.5, 1), (3.5, 1.5, 1), (3.5, 5.5, 1), (0.5, 5.5, 1)}


def test_voxels_that_touch_in_a_corner_have_outlines_of_their_own() -> None:
    mask = np.zeros((4, 4, 1), bool)
    mask[1, 1, 0] = mask[2, 2, 0] = True
    assert [len(outline) for outline in trace(mask, UNIT)] == [4, 4]


def test_an_empty_mask_has_no_outline_and_no_contours_cover_nothing() -> None:
    assert trace(np.zeros((3, 3, 3), bool), UNIT) == []
    assert not coverage_of([], UNIT, (3, 3, 3)).any()


def test_a_slice_between_two_planes_has_the_shape_between() -> None:
    between = coverage_of([disk(8, 0.0), disk(14, 2.0)], UNIT, (41, 41, 3))[:, :, 1] / 255
    assert np.sqrt(between.sum() / np.pi) == pytest.approx(11, abs=0.05)


def test_planes_near_each_other_are_one() -> None:
    planes = planes_of([disk(4, 1.0), disk(3, 1.004), disk(4, 3.0)], UNIT)
    assert [len(group) for group in planes.polygons] == [2, 1]


def test_a_real_gap_between_planes_stays_empty() -> None:
    planes = [0.0, 2.0, 4.0, 10.0, 12.0]  # the usual distance is 2, so parts end at 5 and begin at 9
    found = coverage_of([disk(8, k) for k in planes], UNIT, (41, 41, 16)).any(axis=(0, 1))
    assert np.flatnonzero(found).tolist() == [0, 1, 2, 3, 4, 9, 10, 11, 12]


def test_end_planes_reach_half_a_plane_distance_and_half_distances_count_once() -> None:
    found = coverage_of([disk(8, k) for k in (4.0, 8.0, 12.0)], UNIT, (41, 41, 20)).any(axis=(0, 1))
    assert np.flatnonzero(found).tolist() == list(range(2, 14))  # 3 planes of 4 mm are 12 slices of 1 mm


def test_no_end_reach_ends_a_structure_on_its_last_plane() -> None:
    contours = [disk(8, k) for k in (4.0, 8.0, 12.0)]
    found = coverage_of(contours, UNIT, (41, 41, 20), end_reach=0.0).any(axis=(0, 1))
    assert np.flatnonzero(found).tolist() == list(range(4, 13))


def test_a_shape_goes_on_shrinking_beyond_its_end_but_does_not_grow() -> None:
    found = coverage_of([disk(6, 4.0), disk(10, 8.0)], UNIT, (41, 41, 12))
    radii = np.sqrt(found.sum(axis=(0, 1)) / 255 / np.pi)
    np.testing.assert_allclose(radii[2:10], [4, 5, 6, 7, 8, 9, 10, 10], atol=0.15)


def test_contours_with_fewer_than_three_points_are_counted_and_left_out() -> None:
    planes = planes_of([disk(5, 1.0), disk(5, 1.0)[:2], np.repeat(disk(5, 1.0)[:1], 4, axis=0)], UNIT)
    assert planes.num_degenerate == 2
    assert len(planes.polygons) == 1


def test_contours_across_the_slices_are_refused() -> None:
    sagittal = disk(5, 3.0)[:, [2, 0, 1]]
    with pytest.raises(CaseError, match=r"parallel to the slices, got one that spans 10 mm"):
        coverage_of([sagittal], UNIT, (30, 30, 30))


def test_contours_that_are_not_numbers_are_refused() -> None:
    broken = disk(5, 3.0)
    broken[7, 1] = np.nan
    with pytest.raises(CaseError, match="finite contour coordinates"):
        coverage_of([broken], UNIT, (30, 30, 30))


@pytest.mark.parametrize("reach", [-0.1, 0.6])
def test_end_planes_cannot_reach_farther_than_half_the_way(reach: float) -> None:
    with pytest.raises(CaseError, match=r"0 to 0\.5 plane distances"):
        planes_of([disk(5, 1.0)], UNIT, end_reach=reach)


def test_planes_off_the_grid_are_counted_and_refused() -> None:
    contours = [disk(5, k) for k in (1.0, 2.0, 3.0, 4.0)] + [disk(5, 1.0, (200, 200))]
    assert planes_off_grid(planes_of(contours, UNIT), (41, 41, 4)) == 2  # one above, one with a part at the side
    with pytest.raises(CaseError, match="2 of 4 planes outside"):
        require_on_grid(contours, UNIT, (41, 41, 4))
    require_on_grid(contours[:3], UNIT, (41, 41, 4))


def test_contours_wholly_off_the_grid_cover_nothing() -> None:
    assert not coverage_of([disk(5, 1.0, (200, 200))], UNIT, (41, 41, 4)).any()
    assert not coverage_of([disk(5, 90.0)], UNIT, (41, 41, 4)).any()


def test_the_order_of_contours_does_not_matter() -> None:
    contours = [disk(3 + k, float(k)) for k in range(6)]
    shape = (41, 41, 6)
    np.testing.assert_array_equal(coverage_of(contours, UNIT, shape), coverage_of(contours[::-1], UNIT, shape))

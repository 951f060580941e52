import numpy as np
import pytest
from scipy.spatial.distance import cdist

from medexp.metrics.nearest import is_for_map, lattice_tree, map_distances, nearby_distances, tree_distances


def clouds(seed, count, spread):
    rng = np.random.default_rng(seed)
    points = np.unique(rng.integers(-3, 24, (3, count)), axis=1)
    others = np.unique(rng.integers(0, spread, (3, count // 4)), axis=1)
    return points, others


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 1.25)])
@pytest.mark.parametrize("spread", [6, 24], ids=["others in a corner", "others everywhere"])
def test_table_and_tree_find_the_nearest_point(spread, spacing):
    points, others = clouds(1, 3000, spread)
    exact = cdist(points.T * np.array(spacing), others.T * np.array(spacing)).min(axis=1)
    from_table, complete_mm = nearby_distances(points, others, spacing)
    found = np.isfinite(from_table)
    assert found.any()
    assert np.allclose(from_table[found], exact[found], atol=1e-12)
    assert (exact[~found] >= complete_mm).all()  # nothing nearer than promised was missed
    assert complete_mm >= 2 * min(spacing)
    from_tree = tree_distances(points, others, lattice_tree(others, spacing), spacing, np.inf)
    assert np.allclose(from_tree, exact, atol=1e-12)
    assert np.allclose(map_distances(points, others, spacing), exact, atol=1e-12)


def test_a_bound_keeps_what_lies_on_it():
    points, others = np.array([[0, 0], [0, 0], [0, 9]]), np.array([[0], [0], [5]])
    spacing = (1.0, 1.0, 0.1)
    distances = tree_distances(points, others, lattice_tree(others, spacing), spacing, 0.5)
    assert distances.tolist() == [0.5, 0.4]


def test_a_map_is_for_dense_points_in_a_box_of_moderate_size():
    line = np.stack([np.arange(300)] * 3)
    block = np.array(np.nonzero(np.ones((30, 30, 30))))
    assert is_for_map(block, block[:, :1])
    assert not is_for_map(line, line[:, :1])  # few points for their box
    assert not is_for_map(block, np.array([[900], [900], [0]]))  # too large a box


def test_few_points_need_no_table():
    points = np.zeros((3, 3), dtype=int)
    distances, complete_mm = nearby_distances(points, points, (1.0, 1.0, 1.0))
    assert complete_mm == 0.0
    assert np.isinf(distances).all()

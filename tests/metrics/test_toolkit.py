import json

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from medexp.errors import GridMismatchError
from medexp.metrics.lesions import LesionStatus
from medexp.metrics.toolkit import toolkit_report, toolkit_scores

SPACING = (1.0, 1.0, 2.0)
DIAGONAL = float(np.sqrt(12**2 + 14**2 + 20**2))  # of 12x14x10 voxels


def cubes(*corners, size=3):
    labels = np.zeros((12, 14, 10), dtype=np.uint8)
    for corner in corners:
        labels[tuple(slice(start, start + size) for start in corner)] = 1
    return labels


def score(prediction, reference):
    return toolkit_scores(prediction, reference, SPACING, {"ET": (1,)})["ET"]


def test_a_perfect_match_scores_one_and_zero():
    assert (score(cubes((1, 1, 1)), cubes((1, 1, 1))).dice, score(cubes((1, 1, 1)), cubes((1, 1, 1))).hd95_mm) == (1, 0)


@pytest.mark.parametrize(
    ("prediction", "reference", "status"),
    [(cubes(), cubes((1, 1, 1)), "missed"), (cubes((1, 1, 1)), cubes(), "spurious")],
)
def test_a_lesion_without_partner_scores_zero_and_the_diagonal(prediction, reference, status):
    found = score(prediction, reference)
    assert (found.dice, found.hd95_mm) == (0.0, pytest.approx(DIAGONAL))
    assert [str(lesion.status) for lesion in found.lesions] == [status]


def test_nothing_on_both_sides_is_perfect():
    assert (score(cubes(), cubes()).dice, score(cubes(), cubes()).hd95_mm) == (1.0, 0.0)


def test_the_larger_overlap_is_served_first_and_partners_are_not_shared():
    reference = cubes((1, 1, 1), (1, 5, 1))
    prediction = np.zeros_like(reference)
    prediction[1:4, 2:8, 1:4] = 1  # 18 voxels of the first, 27 of the second
    found = score(prediction, reference)
    assert [lesion.status for lesion in found.lesions] == [LesionStatus.MISSED, LesionStatus.MATCHED]
    assert found.lesions[1].dice == 2 * 27 / (27 + 54)


def test_there_is_no_threshold_and_no_dilation():
    found = score(cubes((1, 1, 1), (8, 8, 8), size=1), cubes((1, 1, 2), size=1))
    assert [str(lesion.status) for lesion in found.lesions] == ["missed", "spurious", "spurious"]


def plain_score(prediction, reference, spacing):
    """The definition, pair by pair in the whole volume."""
    cube = np.ones((3, 3, 3))
    p, num_p = ndimage.label(prediction, cube)
    g, num_g = ndimage.label(reference, cube)
    overlaps = [(int(((g == a) & (p == b)).sum()), a, b) for a in range(1, num_g + 1) for b in range(1, num_p + 1)]
    overlaps = sorted((row for row in overlaps if row[0]), key=lambda row: (-row[0], row[1], row[2]))
    partner, used = {}, set()
    for _, a, b in overlaps:
        if a not in partner and b not in used:
            partner[a] = b
            used.add(b)
    dices, distances = [], []
    diagonal = float(np.linalg.norm(np.array(reference.shape) * spacing))
    for a in range(1, num_g + 1):
        if a not in partner:
            dices.append(0.0)
            distances.append(diagonal)
            continue
        masks = [g == a, p == partner[a]]
        edges = [np.argwhere(mask & ~ndimage.binary_erosion(mask, cube)) * spacing for mask in masks]
        pooled = [cKDTree(edges[1]).query(edges[0])[0], cKDTree(edges[0]).query(edges[1])[0]]
        dices.append(2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum()))
        distances.append(np.percentile(np.concatenate(pooled), 95))
    spurious = num_p - len(used)
    dices, distances = dices + [0.0] * spurious, distances + [diagonal] * spurious
    return (np.mean(dices), np.mean(distances)) if dices else (1.0, 0.0)


def test_random_masks_score_as_the_definition_says():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        fields = [ndimage.gaussian_filter(rng.standard_normal((14, 13, 12)), 0.9) for _ in range(2)]
        prediction, reference = ((field > 1.3 * field.std()).astype(np.uint8) for field in fields)
        reference = np.maximum(reference, prediction * (rng.random(reference.shape) < 0.6))
        found = score(prediction, reference)
        assert (found.dice, found.hd95_mm) == pytest.approx(plain_score(prediction, reference, SPACING))


def test_the_report_has_the_toolkits_shape():
    cases = {
        "a": {"ET": score(cubes((1, 1, 1)), cubes((1, 1, 1)))},
        "b": {"ET": score(cubes(), cubes((1, 1, 1)))},
    }
    report = json.loads(json.dumps(toolkit_report(cases)))
    assert report["cases"]["a"] == {
        "LesionWise_Dice": {"ET": 1.0},
        "LesionWise_HD95": {"ET": 0.0},
        "lesions": {"ET": [{"status": "matched", "dice": 1.0, "hd95": 0.0, "gt_voxels": 27, "pred_voxels": 27}]},
    }
    assert report["summary"]["Dice"]["ET"] == {"mean": 0.5, "median": 0.5, "min": 0.0, "max": 1.0, "std": 0.5}
    assert report["summary"]["HD95"]["ET"]["max"] == pytest.approx(DIAGONAL)


def test_different_shapes_are_refused():
    with pytest.raises(GridMismatchError, match="on one grid"):
        toolkit_scores(cubes(), cubes()[1:], SPACING, {"ET": (1,)})

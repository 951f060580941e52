import math

import numpy as np
import pytest

from medexp.errors import GridMismatchError
from medexp.metrics.overlap import ConfusionCounts, confusion_counts, dice, iou

# 2 shared, 1 only predicted, 3 only referred, 4 neither
PREDICTION = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
REFERENCE = np.array([1, 1, 0, 1, 1, 1, 0, 0, 0, 0], dtype=bool)


def test_hand_worked_counts_and_ratios():
    counts = confusion_counts(PREDICTION, REFERENCE)
    assert counts == ConfusionCounts(2, 1, 3, 4)
    assert (counts.num_prediction, counts.num_reference) == (3, 5)
    assert counts.dice == 4 / 8
    assert counts.iou == 2 / 6
    assert counts.sensitivity == 2 / 5
    assert counts.specificity == 4 / 5
    assert counts.precision == 2 / 3


def test_two_empty_masks_are_undefined_for_the_caller_to_judge():
    empty = np.zeros((3, 3), dtype=bool)
    assert math.isnan(dice(empty, empty))
    assert math.isnan(iou(empty, empty))
    assert math.isnan(confusion_counts(empty, empty).sensitivity)
    assert math.isnan(confusion_counts(~empty, ~empty).specificity)


def test_one_empty_mask_scores_zero():
    empty = np.zeros((3, 3), dtype=bool)
    assert dice(empty, ~empty) == dice(~empty, empty) == 0.0
    assert iou(empty, ~empty) == iou(~empty, empty) == 0.0


def test_dice_and_iou_are_symmetric_and_follow_from_each_other():
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.random((2, 4, 5, 6)) < 0.4
        assert dice(first, second) == dice(second, first)
        assert iou(first, second) == pytest.approx(dice(first, second) / (2 - dice(first, second)))
        assert dice(first, first) == iou(first, first) == 1.0


def test_different_shapes_are_refused():
    with pytest.raises(GridMismatchError, match="on one grid"):
        dice(np.zeros((2, 2), dtype=bool), np.zeros((2, 3), dtype=bool))

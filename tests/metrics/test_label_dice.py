"""Dice over cases, on the device: hand-worked numbers and the policy for empty labels."""

import math

import numpy as np
import pytest
import torch

from medexp.metrics.label_dice import LabelDice
from medexp.metrics.overlap import dice

LABELS, REGIONS = {"a": 1, "b": 2}, {"both": (1, 2)}


def scores_of(*cases):
    scores = LabelDice(LABELS, REGIONS)
    for prediction, label in cases:
        scores.add(torch.tensor(prediction, dtype=torch.uint8), torch.tensor(label, dtype=torch.uint8))
    return scores


def test_hand_worked_case():
    summary = scores_of(([0, 1, 1, 2], [0, 1, 2, 2])).summary()
    assert summary["dice/a"] == pytest.approx(2 / 3)
    assert summary["dice/b"] == pytest.approx(2 / 3)
    assert summary["dice/both"] == 1.0


def test_mean_is_over_labels_and_not_over_regions():
    summary = scores_of(([1, 0, 0], [1, 2, 2])).summary()
    assert summary["dice/mean"] == pytest.approx((1.0 + 0.0) / 2)


def test_case_without_a_label_on_either_side_is_left_out_and_counted():
    summary = scores_of(([1, 0], [1, 0]), ([1, 2], [1, 2])).summary()
    assert summary["dice/b"] == 1.0
    assert (summary["cases/a"], summary["cases/b"]) == (2.0, 1.0)


def test_label_predicted_where_there_is_none_scores_zero():
    assert scores_of(([2, 0], [0, 0]), ([2, 0], [2, 0])).summary()["dice/b"] == 0.5


def test_label_in_no_case_has_no_mean():
    summary = scores_of(([1, 0], [1, 0])).summary()
    assert "dice/b" not in summary
    assert summary["cases/b"] == 0.0
    assert summary["dice/mean"] == 1.0


def test_mean_of_nothing_is_nan():
    assert math.isnan(scores_of(([0, 0], [0, 0])).summary()["dice/mean"])


def test_cleared_scores_forget_earlier_cases():
    scores = scores_of(([0, 2], [1, 0]))
    scores.clear()
    scores.add(torch.tensor([1]), torch.tensor([1]))
    assert scores.summary()["dice/a"] == 1.0


def test_agrees_with_the_dice_of_stage_evaluate():
    rng = np.random.default_rng(0)
    prediction, label = rng.integers(0, 3, (2, 5, 6, 7)).astype(np.uint8)
    scores = LabelDice(LABELS, REGIONS)
    scores.add(torch.from_numpy(prediction), torch.from_numpy(label))
    for name, values in {"a": [1], "b": [2], "both": [1, 2]}.items():
        wanted = dice(np.isin(prediction, values), np.isin(label, values))
        assert scores.per_case()[name].item() == pytest.approx(wanted)

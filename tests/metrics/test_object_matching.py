"""Matching: worked by hand, and an independent implementation from the definition by trying every assignment."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexp.errors import ConfigurationError, GridMismatchError
from medexp.metrics.object_matching import AP_THRESHOLDS, average_precisions, match_objects, overlaps


def strips(*ranges, length=100):
    """Return a label map of one row with object n on the n-th range."""
    labels = np.zeros((1, length), np.int32)
    for number, (start, stop) in enumerate(ranges, start=1):
        labels[0, start:stop] = number
    return labels


def iou_by_sets(first, second):
    """Return {(predicted, reference): IoU} from sets of pixels."""
    pixels = [
        {number: set(map(tuple, np.argwhere(labels == number))) for number in np.unique(labels) if number}
        for labels in (first, second)
    ]
    return {
        (one, two): len(own & other) / len(own | other)
        for one, own in pixels[0].items()
        for two, other in pixels[1].items()
    }, tuple(len(side) for side in pixels)


def best_by_trying(first, second, threshold):
    """Return (matches, largest sum of IoU) over every assignment."""
    table, (num_first, num_second) = iou_by_sets(first, second)
    rows = [int(number) for number in np.unique(first) if number]
    columns: list = [int(number) for number in np.unique(second) if number] + [None] * num_first
    best = (0, 0.0)
    for chosen in permutations(columns, num_first):
        scores = [table[pair] for pair in zip(rows, chosen, strict=True) if pair[1] is not None]
        passing = [score for score in scores if score >= threshold]
        best = max(best, (len(passing), sum(passing)))
    return best, num_first, num_second


def test_a_shift_worked_by_hand():
    prediction = strips((0, 10), (20, 30), (60, 70))
    reference = strips((0, 10), (23, 33), (40, 50), (90, 99))
    matches = match_objects(overlaps(prediction, reference), 0.5)
    assert matches.pairs == ((1, 1, 1.0), (2, 2, 7 / 13))
    assert (matches.true_positive, matches.false_positive, matches.false_negative) == (2, 1, 2)
    assert (matches.precision, matches.recall) == (2 / 3, 2 / 4)
    assert matches.f1 == 4 / 7
    assert matches.mean_matched_iou == (1 + 7 / 13) / 2
    assert matches.average_precision == 2 / 5


def test_the_threshold_itself_is_reached():
    found = overlaps(strips((0, 11)), strips((0, 20)))  # 11/20
    assert match_objects(found, 11 / 20).true_positive == 1
    assert match_objects(found, 0.56).true_positive == 0
    precisions = average_precisions(found)
    assert [precisions[threshold] for threshold in AP_THRESHOLDS] == [1.0, 1.0, *[0.0] * 8]


def test_one_object_over_two_halves_matches_one_of_them():
    found = overlaps(strips((0, 20)), strips((0, 10), (10, 20)))
    assert match_objects(found, 0.5).true_positive == 1
    assert match_objects(found, 0.5).false_negative == 1


def test_many_matches_come_before_good_ones():
    """At a low threshold two poor pairs count more than one good pair."""
    prediction, reference = strips((0, 10), (10, 16)), strips((2, 13), (0, 2))
    matches = match_objects(overlaps(prediction, reference), 0.1)
    assert {pair[:2] for pair in matches.pairs} == {(1, 2), (2, 1)}


def label_maps():
    numbers = st.lists(st.integers(0, 4), min_size=24, max_size=24)
    return numbers.map(lambda values: np.array(values, np.int32).reshape(4, 6))


@settings(max_examples=60, deadline=None)
@given(label_maps(), label_maps(), st.sampled_from([0.05, 0.2, 0.5, 0.75]))
def test_matching_is_the_best_of_all_assignments(first, second, threshold):
    (count, total), num_first, num_second = best_by_trying(first, second, threshold)
    matches = match_objects(overlaps(first, second), threshold)
    assert matches.true_positive == count
    assert sum(iou for _, _, iou in matches.pairs) == pytest.approx(total)
    assert (matches.num_predicted, matches.num_reference) == (num_first, num_second)
    assert len({one for one, _, _ in matches.pairs}) == len({two for _, two, _ in matches.pairs}) == count


def test_average_precision_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    for _ in range(5):
        reference = strips(*((start, start + 12) for start in range(0, 96, 16)))
        prediction = strips(*((start + int(rng.integers(0, 6)), start + 12) for start in range(0, 96, 16)))
        expected = {}
        for threshold in (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95):
            table, (num_first, num_second) = iou_by_sets(prediction, reference)
            hits = sum(value >= threshold for value in table.values())  # one to one above a half
            expected[threshold] = hits / (num_first + num_second - hits)
        found = average_precisions(overlaps(prediction, reference))
        assert list(found.values()) == pytest.approx(list(expected.values()))


def test_two_sides_change_places():
    rng = np.random.default_rng(3)
    first, second = (np.kron(rng.integers(0, 3, (5, 5)), np.ones((3, 3))).astype(np.int32) for _ in range(2))
    there, back = match_objects(overlaps(first, second), 0.3), match_objects(overlaps(second, first), 0.3)
    assert (there.precision, there.recall, there.f1) == (back.recall, back.precision, back.f1)


def test_nothing_to_divide_by_is_undefined():
    nothing, something = strips(), strips((0, 5))
    both = match_objects(overlaps(nothing, nothing), 0.5)
    assert all(math.isnan(value) for value in (both.precision, both.recall, both.f1, both.average_precision))
    missed = match_objects(overlaps(nothing, something), 0.5)
    assert math.isnan(missed.precision)
    assert (missed.recall, missed.f1, missed.average_precision) == (0.0, 0.0, 0.0)
    assert math.isnan(missed.mean_matched_iou)


def test_other_shapes_are_refused():
    with pytest.raises(GridMismatchError):
        overlaps(np.zeros((3, 4), np.int32), np.zeros((4, 3), np.int32))


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.01])
def test_impossible_thresholds_are_refused(threshold):
    with pytest.raises(ConfigurationError, match=r"evaluate\.objects\.iou"):
        match_objects(overlaps(strips(), strips()), threshold)

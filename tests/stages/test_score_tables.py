"""What the tables of an evaluation come to."""

import math

import pytest

from medexp.stages.score_tables import foreground, score_lines, summaries

NAN = float("nan")


def rows(**columns):
    count = len(next(iter(columns.values())))
    named = {name.replace("__", "/"): values for name, values in columns.items()}
    return [
        {"case": str(i), "patient": "", **{name: values[i] for name, values in named.items()}} for i in range(count)
    ]


def test_labels_count_alike_however_many_cases_have_them():
    found = foreground(rows(dice__a=[1.0, 1.0, 1.0], dice__b=[0.0, NAN, NAN]), ["a", "b"], empty_reference="nan")
    assert found.mean == 0.5
    assert found.num_cases == 3


def test_the_interval_holds_the_mean_and_is_the_same_each_time():
    table = rows(dice__a=[0.1, 0.5, 0.9, 0.6], dice__b=[0.2, NAN, 0.8, 0.7])
    first, second = (foreground(table, ["a", "b"], empty_reference="nan") for _ in range(2))
    assert first == second
    assert first.low < first.mean < first.high


def test_one_case_has_no_interval():
    found = foreground(rows(dice__a=[0.5]), ["a"], empty_reference="nan")
    assert found.mean == 0.5
    assert math.isnan(found.low)


def test_a_label_without_any_value_is_named():
    found = foreground(rows(dice__a=[0.5, 0.7], dice__b=[NAN, NAN]), ["a", "b"], empty_reference="nan")
    assert found.mean == pytest.approx(0.6)
    assert found.labels_without_value == ("b",)


def test_no_value_at_all_is_undefined():
    found = foreground(rows(dice__a=[NAN, NAN]), ["a"], empty_reference="nan")
    assert math.isnan(found.mean)
    assert found.num_cases == 0


def test_infinite_distances_are_counted_apart_from_undefined_ones():
    column = summaries(rows(hd95_mm__a=[2.0, math.inf, NAN]), empty_reference="nan")["hd95_mm/a"]
    assert (column.mean, column.n_used, column.n_undefined, column.n_infinite) == (2.0, 1, 1, 1)


def test_two_empty_masks_have_distance_zero_where_they_are_worth_one():
    column = summaries(rows(hd95_mm__a=[2.0, math.inf, NAN]), empty_reference="one")["hd95_mm/a"]
    assert (column.mean, column.n_used) == (1.0, 2)


def test_only_infinite_distances_have_no_mean():
    column = summaries(rows(hd95_mm__a=[math.inf, math.inf]), empty_reference="one")["hd95_mm/a"]
    assert math.isnan(column.mean)
    assert (column.n_used, column.n_infinite) == (0, 2)


def test_sensitivity_without_a_reference_is_never_one():
    column = summaries(rows(sensitivity__a=[0.5, NAN]), empty_reference="one")["sensitivity/a"]
    assert (column.mean, column.n_used) == (0.5, 1)


def test_lines_leave_out_scores_that_nothing_has():
    columns = summaries(rows(dice__a=[0.5, NAN]), empty_reference="nan")
    head, line = score_lines(columns, ["a"], nsd_mm=None, num_cases=2)
    assert head.split() == ["Dice"]
    assert line.split() == ["a", "0.500", "(1/2)"]

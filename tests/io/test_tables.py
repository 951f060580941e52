"""Tables keep every digit, and say what is undefined."""

import math

import pytest

from medexp.errors import ManifestError
from medexp.io.tables import number, read_table, write_table


def test_numbers_come_back_to_the_last_bit(tmp_path):
    values = [1 / 3, math.inf, 1e-300, 0.0]
    write_table(tmp_path / "t.csv", [{"value": value} for value in values])
    assert [number(row["value"]) for row in read_table(tmp_path / "t.csv")] == values


def test_undefined_is_written_as_nan(tmp_path):
    write_table(tmp_path / "t.csv", [{"value": math.nan, "is_counted": True}])
    assert (tmp_path / "t.csv").read_text() == "value,is_counted\nnan,true\n"


def test_text_with_separators_and_lines_comes_back(tmp_path):
    text = 'a,"b"\nc'
    write_table(tmp_path / "t.csv", [{"case": text}])
    assert read_table(tmp_path / "t.csv") == [{"case": text}]


def test_a_cell_that_a_row_lacks_is_undefined(tmp_path):
    write_table(tmp_path / "t.csv", [{"a": 1}, {"b": 2}])
    assert math.isnan(number(read_table(tmp_path / "t.csv")[1]["a"]))


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    write_table(tmp_path / "t.csv", [], columns=["case", "region"])
    assert (tmp_path / "t.csv").read_text() == "case,region\n"


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(ManifestError, match=r"absent\.csv: expected a table"):
        read_table(tmp_path / "absent.csv")

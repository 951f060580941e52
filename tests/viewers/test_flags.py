"""Flags are on the disk as soon as they are set, and come back."""

import csv
from datetime import datetime

import pytest

from medexp.errors import ManifestError
from medexp.viewers.flags import COLUMNS, Flags, read_flags


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_flag_is_written_at_once_with_who_and_when(tmp_path, slides):
    path = tmp_path / "flags.csv"
    flags = Flags(path, slides, "ada")
    assert rows_of(path) == []
    flags.set(1, "missed object")
    [row] = rows_of(path)
    assert tuple(row) == COLUMNS
    assert (row["image_path"], row["mask_path"]) == (str(slides[1].image), str(slides[1].mask))
    assert (row["flag_reason"], row["reviewer"]) == ("missed object", "ada")
    assert datetime.fromisoformat(row["timestamp"]).utcoffset().total_seconds() == 0


def test_a_flag_can_be_taken_away_and_changed(tmp_path, slides):
    flags = Flags(tmp_path / "flags.csv", slides, "ada")
    flags.set(0, "one")
    flags.set(0, "two")
    flags.set(2, "")
    assert flags.reasons() == {0: "two", 2: ""}
    flags.remove(0)
    flags.remove(0)
    assert flags.reasons() == {2: ""}


def test_flags_of_an_earlier_session_stay_under_their_reviewer(tmp_path, slides):
    Flags(tmp_path / "flags.csv", slides, "ada").set(0, "first")
    later = Flags(tmp_path / "flags.csv", slides, "bob")
    later.set(1, "second")
    assert {flag.reviewer for flag in read_flags(tmp_path / "flags.csv").values()} == {"ada", "bob"}
    assert later.reasons() == {0: "first", 1: "second"}


@pytest.mark.parametrize(("given", "kept"), [("=1+1", "'=1+1"), ("a\nb\0c", "a b c"), ("x" * 900, "x" * 500)])
def test_reasons_are_plain_text(tmp_path, slides, given, kept):
    flags = Flags(tmp_path / "flags.csv", slides, "ada")
    flags.set(0, given)
    assert rows_of(tmp_path / "flags.csv")[0]["flag_reason"] == kept


def test_another_table_is_refused(tmp_path, slides):
    (tmp_path / "flags.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ManifestError, match="expected the columns image_path"):
        Flags(tmp_path / "flags.csv", slides, "ada")

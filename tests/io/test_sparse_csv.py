import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexp.errors import CaseError
from medexp.io.nifti import RawFile
from medexp.io.sparse_csv import indices_of, packed_indices, packed_values, sizes_of, values_of


def file_of(content):
    return RawFile(Path("pt_1/dose.csv"), content)


def test_values_are_what_python_reads_from_the_text():
    rows = {7: "61.3", 3: "0.009", 12: "1e-05", 0: "20.322000503540039", 99: "5"}
    content = ",data\n" + "".join(f"{index},{text}\n" for index, text in rows.items())
    indices, values = values_of(file_of(content.encode()), num_voxels=100)
    assert indices.tolist() == list(rows)
    assert values.tolist() == [float(text) for text in rows.values()]


def test_a_mask_is_indices_and_an_empty_column():
    assert indices_of(file_of(b",data\n5,\n2,\n"), num_voxels=6).tolist() == [5, 2]


def test_line_ends_of_windows_and_a_missing_last_one_are_read():
    indices, values = values_of(file_of(b",data\r\n1,2.5\r\n2,3.5"), num_voxels=6)
    assert (indices.tolist(), values.tolist()) == ([1, 2], [2.5, 3.5])


@pytest.mark.parametrize("read", [values_of, indices_of])
def test_a_header_alone_is_an_empty_volume(read):
    found = read(file_of(b",data\n"), num_voxels=6)
    assert all(len(part) == 0 for part in (found if isinstance(found, tuple) else (found,)))


@given(st.dictionaries(st.integers(0, 999), st.floats(0, 1e6, allow_nan=False), max_size=20))
def test_what_is_written_reads_back_equal(rows):
    indices, values = np.array(list(rows), np.int64), np.array(list(rows.values()), np.float64)
    found, read = values_of(file_of(packed_values(indices, values)), num_voxels=1000)
    assert np.array_equal(found, indices)
    assert np.array_equal(read, values)
    assert np.array_equal(indices_of(file_of(packed_indices(indices)), num_voxels=1000), indices)


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        pytest.param(b"", 1, "header", id="empty file"),
        pytest.param(b"1,2.0\n", 1, "header", id="no header"),
        pytest.param(b"index,data\n1,2.0\n", 1, "header", id="another header"),
        pytest.param(b"\x00\xff\x1f\x8b", 1, "header", id="random bytes"),
        pytest.param(b",data\n1,2.0\n2,nan\n", 3, "got '2,nan'", id="not a number"),
        pytest.param(b",data\n1,inf\n", 2, "got '1,inf'", id="infinity"),
        pytest.param(b",data\n1,1e999\n", 2, "overflows", id="overflow"),
        pytest.param(b",data\n1,2.0\n2\n", 3, "got '2'", id="one column"),
        pytest.param(b",data\n1,2.0,3.0\n", 2, "got '1,2.0,3.0'", id="three columns"),
        pytest.param(b",data\n1,\n", 2, "got '1,'", id="no value"),
        pytest.param(b",data\n1,2.0\n\n2,2.0\n", 3, "got ''", id="empty line"),
        pytest.param(b",data\n-1,2.0\n", 2, "got '-1,2.0'", id="negative index"),
        pytest.param(b",data\n1.0,2.0\n", 2, "got '1.0,2.0'", id="index with a point"),
        pytest.param(b",data\n1,2_0\n", 2, "got '1,2_0'", id="underscore"),
        pytest.param(b",data\n1, 2.0\n", 2, "got '1, 2.0'", id="space"),
        pytest.param(b",data\n1,0x10\n", 2, "got '1,0x10'", id="hexadecimal"),
        pytest.param(b",data\n1,2.0\n100,2.0\n", 3, "below 100, got 100", id="index outside"),
        pytest.param(b",data\n1,2.0\n2,3.0\n1,2.0\n", 4, "got 1 again", id="index twice"),
        pytest.param(b",data\n12345678901,2.0\n", 2, "12345678901", id="huge index"),
        pytest.param(b",data\n1,2.0\n2,3.", None, None, id="a point at the end is a number"),
    ],
)
def test_a_bad_line_is_named(content, line, reason):
    if line is None:
        assert len(values_of(file_of(content), num_voxels=100)[0]) == 2
        return
    with pytest.raises(CaseError, match=rf"pt_1/dose\.csv: line {line}: ") as caught:
        values_of(file_of(content), num_voxels=100)
    assert reason in str(caught.value)


@pytest.mark.parametrize("content", [b",data\n1,2.0\n", b",data\n1\n", b",data\n1,\n1,\n", b",data\n100,\n"])
def test_a_mask_with_values_without_columns_or_twice_is_refused(content):
    with pytest.raises(CaseError, match="line [23]: "):
        indices_of(file_of(content), num_voxels=100)


def test_a_file_that_is_too_large_is_refused_before_it_is_split(monkeypatch):
    monkeypatch.setattr("medexp.io.sparse_csv.MAX_BYTES", 10)
    with pytest.raises(CaseError, match="at most 10 bytes, got 14"):
        values_of(file_of(b",data\n1,2.000\n"), num_voxels=100)


def test_a_whole_volume_takes_a_few_times_its_size():
    content = packed_values(np.arange(100_000), np.arange(100_000) / 1000.0)
    tracemalloc.start()
    values_of(file_of(content), num_voxels=100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(content)


def test_sizes_are_three_numbers_of_any_notation():
    assert sizes_of(file_of(b"3.906000000000000139e+00\n3.906\n2.5\n")) == (3.906, 3.906, 2.5)


@pytest.mark.parametrize(
    "content", [b"", b"1\n2\n", b"1\n2\n3\n4\n", b"1\n0\n2\n", b"1\n-1\n2\n", b"1\nx\n2\n", b"1,2,3\n"]
)
def test_other_sizes_are_refused(content):
    with pytest.raises(CaseError, match="voxel size"):
        sizes_of(file_of(content))

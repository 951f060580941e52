import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from medexp.errors import CaseError
from medexp.io.npz import read_headers, read_keys, write_npz
from tests.synthetic.corrupt_npz import (
    endless_header,
    flip_byte,
    lying_header,
    members_of,
    npy,
    write_members,
    wrong_checksum,
)


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "case.npz"
    write_npz(target, {"ct": np.arange(60_000, dtype=np.float32).reshape(20, 30, 100), "text": np.array("été")})
    return target


def test_numpy_reads_what_is_written_without_pickle(path):
    with np.load(path, allow_pickle=False) as file:
        assert np.array_equal(file["ct"], np.arange(60_000, dtype=np.float32).reshape(20, 30, 100))
        assert file["text"].item() == "été"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.asfortranarray(np.arange(24).reshape(2, 3, 4)), id="Fortran order"),
        pytest.param(np.arange(5, dtype=">i2"), id="big endian"),
        pytest.param(np.zeros((0, 3)), id="empty"),
        pytest.param(np.float64(3.5), id="scalar"),
        pytest.param(np.array([True, False]), id="booleans"),
    ],
)
def test_what_numpy_writes_is_read(tmp_path, save, array):
    save(tmp_path / "a.npz", key=array)
    found = read_keys(tmp_path / "a.npz", ["key"])["key"]
    assert np.array_equal(found, array)
    assert found.dtype == np.asarray(array).dtype.newbyteorder("=")


def test_equal_arrays_give_equal_bytes(path, tmp_path):
    time.sleep(2.1)  # the resolution of a zip's clock
    write_npz(tmp_path / "b.npz", read_keys(path, ["ct", "text"]))
    assert (tmp_path / "b.npz").read_bytes() == path.read_bytes()


def test_a_header_is_read_without_the_data(path):
    header = read_headers(path)["ct"]
    assert (header.shape, header.dtype, header.num_bytes) == ((20, 30, 100), np.float32, 240_000)


def test_a_damaged_array_does_not_touch_the_others(path):
    flip_byte(path, "ct")
    assert read_keys(path, ["text"])["text"].item() == "été"
    with pytest.raises(CaseError, match=r"case\.npz: ct: expected intact data"):
        read_keys(path, ["ct"])


def test_a_wrong_checksum_is_refused(path):
    wrong_checksum(path, "ct")
    with pytest.raises(CaseError, match="ct: expected intact data.*CRC"):
        read_keys(path, ["ct"])


def test_a_missing_key_is_named_with_those_that_are_there(path):
    with pytest.raises(CaseError, match="expected the key 'dose', got ct, text"):
        read_keys(path, ["dose"])


@pytest.mark.parametrize("length", [0, 1, 100, -30])
def test_a_truncated_file_is_refused(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CaseError, match=r"case\.npz: expected an npz archive"):
        read_headers(path)


def test_random_bytes_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "random.npz").write_bytes(np.random.default_rng(0).bytes(5000))
    for name in ("random.npz", "nowhere.npz"):
        with pytest.raises(CaseError, match=name):
            read_headers(tmp_path / name)


def test_pickled_objects_are_told_by_the_header_and_never_loaded(tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    header = npy(np.array([{}], dtype=object), allow_pickle=True)
    content = header[: header.index(b"\n") + 1] + pickle.dumps(Trap())
    write_members(tmp_path / "p.npz", {"ct.npy": content})
    assert read_headers(tmp_path / "p.npz")["ct"].is_pickled
    with pytest.raises(CaseError, match="ct: expected plain numbers, got pickled"):
        read_keys(tmp_path / "p.npz", ["ct"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(lying_header((10**6, 10**6)), "does not fit the data", id="terabytes promised"),
        pytest.param(lying_header((2**62, 4)), "does not fit the data", id="size beyond 64 bits"),
        pytest.param(lying_header((3,)), "does not fit the data", id="more data than promised"),
        pytest.param(lying_header((-4, -4)), "expected an array's header", id="negative shape"),
        pytest.param(lying_header((16,), descr="|V4"), "numbers or text", id="raw bytes"),
        pytest.param(lying_header((16,), descr="<c8"), "numbers or text", id="complex"),
        pytest.param(lying_header((16,), descr="nonsense"), "expected an array's header", id="unknown dtype"),
        pytest.param(b"\x93NUMPY\x09\x00" + b"\0" * 100, "version", id="unknown version"),
        pytest.param(b"", "expected an array's header", id="empty"),
        pytest.param(b"hello", "expected an array's header", id="text"),
        pytest.param(lying_header((16,))[:40], "expected an array's header", id="cut header"),
    ],
)
def test_a_member_that_lies_is_refused(tmp_path, content, reason):
    write_members(tmp_path / "a.npz", {"ct.npy": content})
    with pytest.raises(CaseError, match=reason) as caught:
        read_keys(tmp_path / "a.npz", ["ct"])
    assert "a.npz: ct: " in str(caught.value)


def test_a_header_that_claims_gigabytes_takes_none(tmp_path):
    write_members(tmp_path / "a.npz", {"ct.npy": endless_header()})
    tracemalloc.start()
    with pytest.raises(CaseError, match="header"):
        read_headers(tmp_path / "a.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_bomb_is_refused_by_its_size_before_it_is_unpacked(tmp_path):
    write_members(tmp_path / "a.npz", {"ct.npy": lying_header((4 << 20,), bytes(16 << 20))})
    assert (tmp_path / "a.npz").stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(CaseError, match="at most 1,000,000 bytes, got 16,777,216"):
        read_keys(tmp_path / "a.npz", ["ct"], max_bytes=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("name", ["../../etc/ct.npy", "/ct.npy", "a/ct.npy", "ct", "ct.txt", "a b.npy", "..npy"])
def test_members_with_other_names_are_refused(tmp_path, name):
    write_members(tmp_path / "a.npz", {name: npy(np.zeros(3))})
    with pytest.raises(CaseError, match="expected members such as"):
        read_headers(tmp_path / "a.npz")


def test_one_name_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("ct.npy", npy(np.zeros(3)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("ct.npy", npy(np.ones(3)))
    with pytest.raises(CaseError, match="ct: expected one array of this name"):
        read_headers(tmp_path / "a.npz")


def test_other_ways_of_packing_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("ct.npy", npy(np.zeros(3)))
    with pytest.raises(CaseError, match="stored or deflated"):
        read_headers(tmp_path / "a.npz")


def test_too_many_members_are_refused(tmp_path):
    write_members(tmp_path / "a.npz", {f"a{number}.npy": b"" for number in range(1100)})
    with pytest.raises(CaseError, match="at most 1024 arrays, got 1,100"):
        read_headers(tmp_path / "a.npz")


def test_bytes_that_are_neither_true_nor_false_are_true(tmp_path):
    write_members(tmp_path / "a.npz", {"mask.npy": lying_header((4,), bytes([0, 1, 2, 255]), descr="|b1")})
    assert read_keys(tmp_path / "a.npz", ["mask"])["mask"].view(np.uint8).tolist() == [0, 1, 1, 1]


def test_objects_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        write_npz(tmp_path / "a.npz", {"metadata": np.array([{}], dtype=object)})
    assert not (tmp_path / "a.npz").exists()


def test_a_failed_write_leaves_the_earlier_file(path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="allow_pickle"):
        write_npz(path, {"metadata": np.array([{}], dtype=object)})
    assert path.read_bytes() == before
    assert members_of(path)

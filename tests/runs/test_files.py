"""Files appear whole or not at all."""

import math
import resource
import signal

import pytest

from medexp.errors import ManifestError, StorageError
from medexp.runs.files import atomic_write, read_json, sha256_of, write_json, write_text


def _write_half(path):
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("in the middle")


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path):
    path = tmp_path / "scores.json"
    write_text(path, "before")
    with pytest.raises(RuntimeError, match="in the middle"):
        _write_half(path)
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores.json"]


def test_a_full_disk_is_named_with_the_path_and_the_bytes(tmp_path):
    path = tmp_path / "volume.nii.gz"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with (
            pytest.raises(StorageError, match=r"volume\.nii\.gz.*1,000 bytes.*free some space"),
            atomic_write(path) as temporary,
        ):
            temporary.write_bytes(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_permission_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(StorageError, match="file/inside"):
        write_text(blocked / "inside", "x")


def test_the_temporary_name_keeps_the_suffixes(tmp_path):
    with atomic_write(tmp_path / "a.nii.gz") as temporary:
        assert temporary.name.endswith("a.nii.gz")
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"x")


def test_json_has_null_for_numbers_that_it_cannot_say(tmp_path):
    write_json(tmp_path / "a.json", {"dice": [math.nan, math.inf, 0.5]})
    assert read_json(tmp_path / "a.json") == {"dice": [None, None, 0.5]}


@pytest.mark.parametrize("content", [None, "{", ""], ids=["missing", "cut off", "empty"])
def test_unreadable_json_is_named(tmp_path, content):
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ManifestError, match=r"plan\.json"):
        read_json(path)


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, example B.1
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

"""The folder of a synthetic cohort is only ever ours."""

import pytest

from medexp.errors import ConfigurationError
from medexp.preparation.mock_folder import MARKER, MockFolder


def writers(*names, text="x"):
    return {name: (lambda path: path.write_text(text) and None) for name in names}


def fill(root, *names, settings="one", text="x"):
    return MockFolder(root, {"settings": settings}).fill(writers(*names, text=text))


def files(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_a_folder_is_filled_once_and_left_alone_afterwards(tmp_path):
    assert fill(tmp_path, "a/1", "b")
    before = (tmp_path / "b").stat().st_mtime_ns
    assert not fill(tmp_path, "a/1", "b", text="y")
    assert (tmp_path / "b").stat().st_mtime_ns == before


def test_another_cohort_replaces_the_earlier_one(tmp_path):
    fill(tmp_path, "a/1", "b")
    assert fill(tmp_path, "c", settings="two")
    assert files(tmp_path) == [MARKER, "c"]
    assert not (tmp_path / "a").exists()


def test_a_damaged_cohort_is_written_again(tmp_path):
    fill(tmp_path, "a", "b")
    (tmp_path / "a").unlink()
    assert fill(tmp_path, "a", "b")
    assert files(tmp_path) == [MARKER, "a", "b"]


def test_an_interrupted_cohort_is_completed(tmp_path):
    def fail(path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MockFolder(tmp_path, {"settings": "one"}).fill({**writers("a"), "b": fail})
    (tmp_path / ".writing-123-b").write_text("half")
    assert fill(tmp_path, "a", "b")
    assert files(tmp_path) == [MARKER, "a", "b"]


def test_foreign_files_are_refused_and_untouched(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"mock\.root.*deep/thesis\.tex"):
        fill(tmp_path, "a")
    assert files(tmp_path) == ["deep/thesis.tex"]


def test_a_foreign_file_among_ours_is_refused(tmp_path):
    fill(tmp_path, "a")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"notes\.txt"):
        fill(tmp_path, "b", settings="two")
    assert "a" in files(tmp_path)

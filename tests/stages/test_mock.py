"""stage=mock: a raw cohort, made once."""

import pytest

from medexp.errors import ConfigurationError
from medexp.stages.mock import mock
from tests.synthetic.preparing import Dataset, make_context


def make(tmp_path, *, num_patients=2, name="run"):
    return mock(
        Dataset(tmp_path / "raw"),
        root=tmp_path / "raw",
        num_patients=num_patients,
        shape=[24, 28, 24],
        seed=0,
        context=make_context(tmp_path / name),
    )


def test_it_says_what_it_wrote_and_where(tmp_path):
    result = make(tmp_path)
    assert result.lines == (f"wrote: 2 synthetic patients, 15 files in {tmp_path / 'raw'}",)
    assert result.outputs["cohort"].exists()


def test_a_second_run_finds_the_cohort(tmp_path):
    make(tmp_path)
    assert make(tmp_path, name="again").lines[0].startswith("found as it was")


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "precious.nii.gz").write_bytes(b"data")
    with pytest.raises(ConfigurationError, match=r"mock\.root"):
        make(tmp_path)

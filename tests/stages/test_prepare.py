"""stage=prepare: all records, a digest of the content, lines for the person who waits."""

import json

import pytest

from medexp.errors import CohortError, ConfigurationError
from medexp.preparation.nnunet import RawLayout
from medexp.stages.prepare import prepare
from tests.synthetic.brats import make_brats, path_of
from tests.synthetic.preparing import Dataset, make_context

FIRST = "BraTS-GLI-00001-100"


@pytest.fixture
def root(tmp_path):
    return make_brats(tmp_path / "raw")


@pytest.fixture
def run(root, tmp_path):
    def start(*, name="run", skip_bad_cases=False, layout=None, **changes):
        return prepare(
            Dataset(root, **changes),
            store=tmp_path / "store",
            skip_bad_cases=skip_bad_cases,
            nnunet=layout or RawLayout(None, 501, "hard", clean=False),
            num_workers=1,
            context=make_context(tmp_path / name),
        )

    return start


def test_every_output_is_there_and_named(run, tmp_path):
    result = run()
    assert {name: path.name for name, path in result.outputs.items()} == {
        "manifest": "manifest.json",
        "splits": "splits_final.json",
        "fingerprint": "fingerprint.json",
        "plan": "plan.json",
        "quality": "qc.json",
        "quality_table": "qc.csv",
        "quality_page": "qc.html",
    }
    assert all(path.parent == tmp_path / "run" for path in result.outputs.values())
    assert (tmp_path / "run" / "nnunet_raw" / "Dataset501_brats" / "dataset.json").exists()


def test_the_summary_names_cases_warnings_folds_plan_and_paths(run):
    text = "\n".join(run().lines)
    assert "4 training cases of 3 patients" in text
    assert "BraTS-GLI-00003-100: the label is empty" in text
    assert "folds: 2, validation cases 2, 2" in text
    assert "spacing 1 x 1 x 1 mm" in text
    assert "qc.html" in text


def test_the_digest_is_that_of_the_content(run, root):
    first = run()
    assert run(name="again").digest == first.digest
    assert run(name="folded", num_folds=3).digest != first.digest
    assert run(name="patched", patch_size=(16, 16, 16)).digest != first.digest


def test_an_interrupted_run_goes_on_in_its_folder(run):
    first = run()
    assert run().digest == first.digest


def test_cases_left_out_are_in_the_summary_and_not_in_the_layout(run, root, tmp_path):
    path_of(root, FIRST, "t1n").write_bytes(b"")
    with pytest.raises(CohortError, match=FIRST):
        run()
    text = "\n".join(run(skip_bad_cases=True).lines)
    assert "left out: 1" in text
    assert FIRST in text
    record = json.loads((tmp_path / "run" / "nnunet_raw" / "Dataset501_brats" / "dataset.json").read_text())
    assert record["numTraining"] == 3
    assert FIRST not in record["training"]


def test_a_foreign_nnunet_folder_is_refused_before_the_work(run, tmp_path):
    foreign = tmp_path / "nnunet" / "Dataset501_brats"
    foreign.mkdir(parents=True)
    (foreign / "theirs").write_text("data")
    with pytest.raises(ConfigurationError, match=r"prepare\.nnunet_id"):
        run(layout=RawLayout(tmp_path / "nnunet", 501, "hard", clean=True))
    assert not (tmp_path / "store").exists()


def test_raw_files_are_only_read(run, root):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*.nii.gz")}
    run()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*.nii.gz")} == before


def test_the_real_cases_make_two_folds(run, shared_data, tmp_path):
    result = prepare(
        Dataset(shared_data / "brats"),
        store=tmp_path / "store",
        skip_bad_cases=False,
        nnunet=RawLayout(None, 501, "hard", clean=False),
        num_workers=1,
        context=make_context(tmp_path / "real"),
    )
    assert "folds: 2, validation cases 1, 1" in result.lines
    assert any("patch 128 x 128 x 128" in line for line in result.lines)

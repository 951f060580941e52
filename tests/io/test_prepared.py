"""Opening a prepared cohort: its records agree, nothing leaks, damage is found."""

import json
import time

import numpy as np
import pytest

from medexp.errors import ConfigurationError, LeakageError, ManifestError
from medexp.io.prepared import ChannelStatistics, PreparedCohort
from medexp.preparation.cohort import prepare_cohort
from tests.synthetic.brats import make_brats, settings_for

FIRST, SECOND = "BraTS-GLI-00001-100", "BraTS-GLI-00002-100"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    root = make_brats(folder / "raw")
    prepare_cohort(settings_for(root), folder=folder / "run", store=folder / "store", num_workers=1)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    for path in (original / "run").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def edit(folder, name, change):
    record = json.loads((folder / name).read_text())
    changed = change(record)
    (folder / name).write_text(json.dumps(record if changed is None else changed))


def test_the_store_is_found_without_being_told(folder, original):
    cohort = PreparedCohort.open(folder)
    assert cohort.store == (original / "store").resolve()
    assert cohort.case(FIRST).image().dtype == np.float16


def test_a_store_that_has_moved_can_be_named(folder, original, tmp_path):
    (original / "store").rename(tmp_path / "moved")
    try:
        case = PreparedCohort.open(folder, tmp_path / "moved").case(FIRST)
        assert case.label().shape == case.shape
    finally:
        (tmp_path / "moved").rename(original / "store")


def test_arrays_are_memory_mapped_and_foreground_points_at_labels(folder):
    case = PreparedCohort.open(folder).case(FIRST)
    assert isinstance(case.image(), np.memmap)
    label, i, j, k = case.foreground().T
    assert (case.label()[i, j, k] == label).all()


def test_a_fold_is_its_training_and_validation_cases(folder):
    cohort = PreparedCohort.open(folder)
    train, validation = cohort.fold(1)
    assert sorted(case.case for case in (*train, *validation)) == sorted(case.case for case in cohort.cases)


@pytest.mark.parametrize("fold", [-1, 2, 99])
def test_a_fold_that_is_not_there_names_both_keys(folder, fold):
    with pytest.raises(ConfigurationError, match=rf"fold: expected 0 to 1, got {fold}.*dataset\.num_folds"):
        PreparedCohort.open(folder).fold(fold)


def test_a_patient_on_both_sides_is_leakage(folder):
    edit(folder, "splits_final.json", lambda splits: splits[0]["val"].append(splits[0]["train"][0]))
    with pytest.raises(LeakageError, match="fold 0"):
        PreparedCohort.open(folder)


def test_equal_voxels_on_both_sides_are_leakage(folder):
    def copy_hash(manifest):
        cases = {case["case"]: case for case in manifest["cases"]}
        cases[SECOND]["channel_sha256"][2] = cases[FIRST]["channel_sha256"][2]

    edit(folder, "manifest.json", copy_hash)
    with pytest.raises(LeakageError, match=f"{FIRST} and {SECOND} hold|{SECOND} and {FIRST} hold"):
        PreparedCohort.open(folder)


def test_a_test_patient_in_training_is_leakage(folder):
    def set_aside(manifest):
        manifest["cases"].append({**manifest["cases"][0], "case": "copy", "role": "test"})

    edit(folder, "manifest.json", set_aside)
    with pytest.raises(LeakageError, match="the test cases"):
        PreparedCohort.open(folder)


def test_a_split_that_names_a_stranger_is_refused(folder):
    edit(folder, "splits_final.json", lambda splits: splits[0]["val"].append("stranger"))
    with pytest.raises(ManifestError, match="stranger"):
        PreparedCohort.open(folder)


@pytest.mark.parametrize("name", ["manifest.json", "splits_final.json", "plan.json"])
def test_a_missing_record_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ManifestError, match=name):
        PreparedCohort.open(folder)


def test_another_format_is_refused(folder):
    edit(folder, "manifest.json", lambda manifest: {**manifest, "format": 99})
    with pytest.raises(ManifestError, match="format 1, got 99"):
        PreparedCohort.open(folder)


def test_an_unknown_case_is_refused(folder):
    with pytest.raises(ManifestError, match="nobody"):
        PreparedCohort.open(folder).case("nobody")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY garbage"])
def test_damage_without_a_way_to_rebuild_is_an_error_that_says_what_to_do(folder, content):
    case = PreparedCohort.open(folder).case(FIRST)
    path = case.folder / "label.npy"
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        with pytest.raises(ManifestError, match=rf"{FIRST}.*label\.npy.*stage=prepare"):
            case.label()
    finally:
        path.write_bytes(before)


def test_a_damaged_header_of_the_right_size_is_found(folder):
    case = PreparedCohort.open(folder).case(FIRST)
    path = case.folder / "label.npy"
    before = path.read_bytes()
    path.write_bytes(bytes(100) + before[100:])
    try:
        with pytest.raises(ManifestError, match="cannot be read"):
            case.label()
    finally:
        path.write_bytes(before)


def test_a_case_without_a_label_says_so(folder):
    edit(folder, "manifest.json", lambda manifest: manifest["cases"][0].update(label=None))
    case = PreparedCohort.open(folder).case(FIRST)
    assert not case.has_label
    with pytest.raises(ManifestError, match="expected a label"):
        case.foreground()


def test_a_thousand_cases_open_in_less_than_a_second(folder):
    def multiply(manifest):
        first = manifest["cases"][0]
        manifest["cases"] = [
            {**first, "case": f"c{n}", "patient": f"p{n}", "channel_sha256": [f"{n}{c}" for c in range(4)]}
            for n in range(1000)
        ]

    edit(folder, "manifest.json", multiply)
    names = [f"c{n}" for n in range(1000)]
    splits = [{"train": [n for n in names if int(n[1:]) % 5 != f], "val": names[f::5]} for f in range(5)]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    started = time.process_time()
    cohort = PreparedCohort.open(folder)
    assert time.process_time() - started < 1.0
    assert len(cohort.cases) == 1000


def test_statistics_clip_shift_and_scale_each_channel_and_leave_the_argument():
    image = np.arange(16, dtype=np.int16).reshape(2, 2, 2, 2)
    before = image.copy()
    statistics = ChannelStatistics((2.0, float("-inf")), (5.0, float("inf")), (3.0, 0.0), (2.0, 1.0))
    result = statistics.apply(image)
    assert result[0].ravel() == pytest.approx((np.clip(np.arange(8), 2, 5) - 3) / 2)
    assert (result[1] == image[1]).all()
    assert (image == before).all()


def test_a_normalized_store_needs_no_statistics(folder):
    assert PreparedCohort.open(folder).channel_statistics(0) is None

"""Finding BraTS cases: at any depth, with either separator, and nothing is passed over."""

import os

import pytest

from medexp.preparation.brats import find_cases
from tests.synthetic.brats import CHANNELS, LABELS, PATIENT_PATTERN, copy_case, make_brats, path_of

CASE = "BraTS-GLI-00001-100"


@pytest.fixture
def root(tmp_path):
    return make_brats(tmp_path / "raw")


def find(*roots):
    return find_cases(list(roots), channels=CHANNELS, labels=LABELS, patient_pattern=PATIENT_PATTERN)


def test_every_case_is_found_with_its_files_and_patient(root):
    cohort = find(root)
    assert [case.case for case in cohort.cases] == [
        "BraTS-GLI-00001-100",
        "BraTS-GLI-00001-101",
        "BraTS-GLI-00002-100",
        "BraTS-GLI-00003-100",
    ]
    assert cohort.cases[1].patient == "BraTS-GLI-00001"
    assert cohort.cases[0].images == {channel: path_of(root, CASE, channel) for channel in CHANNELS}
    assert cohort.cases[0].label == path_of(root, CASE, "seg")
    assert not any(case.problems for case in cohort.cases)


def test_channels_come_in_the_configured_order(root):
    cohort = find_cases([root], channels=["t2f", "t1n"], labels=LABELS, patient_pattern=PATIENT_PATTERN)
    assert list(cohort.cases[0].images) == ["t2f", "t1n"]


def test_cases_lie_at_any_depth_and_underscores_are_fine(root):
    deep = copy_case(root, CASE, "BraTS-GLI-00009-100", to=root / "more" / "folders")
    for file in deep.iterdir():
        file.rename(deep / file.name.replace("-t1c", "_t1c").replace("-seg", "_seg"))
    found = next(case for case in find(root).cases if case.patient == "BraTS-GLI-00009")
    assert found.problems == ()
    assert found.label.name.endswith("_seg.nii.gz")


def test_a_missing_modality_is_a_problem_of_the_case(root):
    path_of(root, CASE, "t2f").unlink()
    problems = find(root).cases[0].problems
    assert len(problems) == 1
    assert "-t2f.nii.gz, found none" in problems[0]


def test_a_missing_label_is_left_to_the_role(root):
    path_of(root, CASE, "seg").unlink()
    assert find(root).cases[0].label is None
    assert find(root).cases[0].problems == ()


def test_two_files_for_one_modality_are_a_problem(root):
    copy_case(root, CASE, "other")
    path_of(root, "other", "t1c").rename(root / CASE / "other-t1c.nii.gz")
    case = find(root).cases[0]
    assert "other-t1c.nii.gz" in case.problems[0]


def test_an_empty_case_folder_is_reported_not_skipped(root):
    (root / "BraTS-GLI-00077-100").mkdir()
    case = next(case for case in find(root).cases if case.patient == "BraTS-GLI-00077")
    assert len(case.problems) == len(CHANNELS)


def test_hidden_files_and_other_folders_are_not_cases(root):
    (root / CASE / f"._{CASE}-t1c.nii.gz").write_bytes(b"resource fork")
    (root / "notes").mkdir()
    (root / "notes" / "readme.txt").write_text("not a case")
    cohort = find(root)
    assert len(cohort.cases) == 4
    assert not any(case.problems for case in cohort.cases)


def test_links_to_cases_count_once_and_loops_end(root, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "linked").symlink_to(root / CASE)
    (elsewhere / "loop").symlink_to(elsewhere)
    assert [case.name for case in find(elsewhere).cases] == ["linked"]
    assert len(find(root, elsewhere, root).cases) == 4


def test_a_folder_that_cannot_be_read_is_a_problem(root, monkeypatch):
    real = os.scandir

    def scandir(folder):
        if str(folder).endswith(CASE):
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert "Permission denied" in find(root).cases[0].problems[0]


@pytest.mark.parametrize("name", ["evil\nname-001", "x" * 200, "<img src=x onerror=alert(1)>"])
def test_a_hostile_folder_name_becomes_a_safe_case_and_stays_known(root, name):
    (root / CASE).rename(root / name)
    case = next(case for case in find(root).cases if case.name == name)
    assert case.case != name
    assert "/" not in case.case
    assert "\n" not in case.case


def test_the_roots_are_only_read(root):
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    find(root)
    assert sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*")) == before


def test_the_real_cases_are_found(shared_data):
    cohort = find(shared_data / "brats")
    assert [case.patient for case in cohort.cases] == ["BraTS-TCGA-DU-7294", "BraTS-TCGA-FG-6692"]
    assert not any(case.problems for case in cohort.cases)

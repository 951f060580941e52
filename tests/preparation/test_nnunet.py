"""Reading any nnU-Net v2 raw folder."""

import json

import pytest

from medexp.errors import CohortError, ConfigurationError
from medexp.preparation.mock_brats import LABELS, write_mock_nnunet
from medexp.preparation.nnunet import find_cases

CASE = "BraTS-GLI-00001-100"


@pytest.fixture
def root(tmp_path):
    write_mock_nnunet(tmp_path, num_patients=2, shape=(24, 28, 24), seed=0)
    return tmp_path


def find(root, channels=None, labels=None):
    return find_cases([root], channels=channels, labels=labels, patient_pattern=r"(?P<patient>.+?)(-\d{3})?$")


def describe(root, **changes):
    record = json.loads((root / "dataset.json").read_text())
    record.update(changes)
    (root / "dataset.json").write_text(json.dumps({key: value for key, value in record.items() if value is not None}))


def test_channels_and_labels_come_from_dataset_json(root):
    cohort = find(root)
    assert cohort.channels == ("t1c", "t1n", "t2w", "t2f")
    assert cohort.labels == LABELS
    assert [case.case for case in cohort.cases] == [CASE, "BraTS-GLI-00001-101", "BraTS-GLI-00002-100"]
    assert cohort.cases[0].images["t2w"].name == f"{CASE}_0002.nii.gz"
    assert not any(case.problems for case in cohort.cases)


def test_configured_channels_are_chosen_by_name(root):
    cohort = find(root, channels=("t2f", "t1c"))
    assert {name: path.name[-11:] for name, path in cohort.cases[0].images.items()} == {
        "t2f": "0003.nii.gz",
        "t1c": "0000.nii.gz",
    }


def test_a_channel_that_is_not_there_names_the_key(root):
    with pytest.raises(ConfigurationError, match=r"dataset\.channels.*flair"):
        find(root, channels=("t1c", "flair"))


def test_labels_that_disagree_name_the_key(root):
    with pytest.raises(ConfigurationError, match=r"dataset\.labels"):
        find(root, labels={"ET": 1, "NETC": 2, "SNFH": 3, "RC": 4})


def test_a_missing_channel_file_is_a_problem(root):
    (root / "imagesTr" / f"{CASE}_0001.nii.gz").unlink()
    assert "_0001.nii.gz (t1n)" in find(root).cases[0].problems[0]


def test_a_surplus_channel_file_is_a_problem(root):
    (root / "imagesTr" / f"{CASE}_0004.nii.gz").write_bytes(b"")
    assert "_0004.nii.gz besides" in find(root).cases[0].problems[0]


def test_an_image_without_a_channel_number_is_a_problem(root):
    (root / "imagesTr" / "odd.nii.gz").write_bytes(b"")
    describe(root, numTraining=4)
    odd = next(case for case in find(root).cases if case.name == "odd")
    assert len(odd.problems) == 4


def test_images_for_testing_become_test_cases(root):
    (root / "imagesTs").mkdir()
    for file in (root / "imagesTr").glob("BraTS-GLI-00002-100*"):
        file.rename(root / "imagesTs" / file.name)
    (root / "labelsTr" / "BraTS-GLI-00002-100.nii.gz").unlink()
    describe(root, numTraining=2)
    assert [case.role for case in find(root).cases] == ["train", "train", "test"]


def test_a_wrong_number_of_training_cases_is_refused(root):
    describe(root, numTraining=7)
    with pytest.raises(CohortError, match=r"expected 7 training cases.*found 3"):
        find(root)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"labels": {"background": 0, "WT": [1, 2, 3]}}, "regions", id="regions"),
        pytest.param({"labels": {"background": 0, "a": 1, "ignore": 2}}, "ignore", id="ignore label"),
        pytest.param({"labels": {"a": 1}}, "background", id="no background"),
        pytest.param({"labels": {"background": 0, "a": 2}}, "1 to n", id="gap in values"),
        pytest.param({"file_ending": ".png"}, "png", id="other files"),
        pytest.param({"file_ending": None}, "file_ending", id="no ending"),
        pytest.param({"channel_names": None}, "channel_names", id="no channels"),
        pytest.param({"dataset": {}}, "list of files", id="explicit files"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(root, changes, words):
    describe(root, **changes)
    with pytest.raises(CohortError, match=words):
        find(root)


def test_a_folder_without_dataset_json_needs_configured_names(root):
    (root / "dataset.json").unlink()
    with pytest.raises(CohortError, match=r"dataset\.json"):
        find(root)
    cases = find(root / "imagesTr", channels=("t1c", "t1n", "t2w", "t2f"), labels=LABELS).cases
    assert len(cases) == 3
    assert all(case.label is None for case in cases)

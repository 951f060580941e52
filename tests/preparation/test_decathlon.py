"""Finding Decathlon cases."""

import shutil

import pytest

from medexp.errors import CohortError, ConfigurationError
from medexp.preparation.decathlon import find_cases
from medexp.preparation.mock_hippocampus import LABELS, write_mock


@pytest.fixture
def root(tmp_path):
    write_mock(tmp_path, num_patients=4, shape=(18, 20, 18), seed=0)
    return tmp_path


def find(root, channels=("T1",)):
    return find_cases([root], channels=channels, labels=LABELS, patient_pattern="(?P<patient>.+)").cases


def test_images_and_labels_pair_by_name(root):
    cases = find(root)
    assert [case.case for case in cases] == [f"hippocampus_00{number}" for number in range(1, 5)]
    assert cases[0].images == {"T1": root / "images" / "hippocampus_001.nii.gz"}
    assert cases[0].label == root / "labels" / "hippocampus_001.nii.gz"
    assert {case.role for case in cases} == {"train"}


def test_the_decathlons_own_folder_names_set_test_cases_aside(root):
    (root / "images").rename(root / "imagesTr")
    (root / "labels").rename(root / "labelsTr")
    (root / "imagesTs").mkdir()
    shutil.move(root / "imagesTr" / "hippocampus_004.nii.gz", root / "imagesTs" / "hippocampus_009.nii.gz")
    (root / "labelsTr" / "hippocampus_004.nii.gz").unlink()
    cases = find(root)
    assert [case.role for case in cases] == ["train", "train", "train", "test"]
    assert cases[-1].label is None


def test_a_label_without_an_image_is_a_problem(root):
    (root / "images" / "hippocampus_002.nii.gz").unlink()
    assert "hippocampus_002.nii.gz: expected an image" in find(root)[1].problems[0]


def test_a_folder_of_images_is_enough(root):
    cases = find(root / "images")
    assert len(cases) == 4
    assert all(case.label is None for case in cases)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(CohortError, match="images/"):
        find(tmp_path)


def test_two_channels_do_not_fit_the_layout(root):
    with pytest.raises(ConfigurationError, match=r"dataset\.channels"):
        find(root, channels=("T1", "T2"))


def test_the_real_cohort_is_found(shared_data):
    assert len(find(shared_data / "hippocampus")) == 192

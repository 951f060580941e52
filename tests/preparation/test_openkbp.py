import pytest

from medexp.errors import CohortError, ConfigurationError
from medexp.preparation.cohort import FindCases
from medexp.preparation.openkbp import find_cases, official_side

PATTERN = r"(?P<patient>pt_\d+)"


def make(folder, *names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.csv").write_text(",data\n")


def found_in(root):
    return find_cases([root], channels=None, labels=None, patient_pattern=PATTERN).cases


def test_files_are_named_without_their_ending_and_the_dose_is_the_label(tmp_path):
    make(tmp_path / "train-pats" / "pt_7", "ct", "dose", "voxel_dimensions", "PTV70", "possible_dose_mask")
    (case,) = found_in(tmp_path)
    assert set(case.images) == {"ct", "voxel_dimensions", "PTV70", "possible_dose_mask"}
    assert case.label == tmp_path / "train-pats" / "pt_7" / "dose.csv"
    assert (case.case, case.patient, case.role, case.problems) == ("pt_7", "pt_7", "train", ())


@pytest.mark.parametrize("below", ["train-pats/pt_3", "pt_3", "a/b/pt_3"])
def test_patients_are_found_at_any_depth(tmp_path, below):
    make(tmp_path / below, "ct", "voxel_dimensions")
    assert [case.case for case in found_in(tmp_path)] == ["pt_3"]


def test_a_root_may_be_a_patient(tmp_path):
    make(tmp_path / "pt_3", "ct", "voxel_dimensions")
    assert [case.case for case in found_in(tmp_path / "pt_3")] == ["pt_3"]


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("pt_1", "train"),
        ("pt_200", "train"),
        ("pt_201", "validation"),
        ("pt_240", "validation"),
        ("pt_241", "test"),
        ("pt_340", "test"),
        ("pt_341", None),
        ("pt_0", None),
        ("patient", None),
    ],
)
def test_the_published_split_is_by_number(tmp_path, name, side):
    assert official_side(name) == side
    if name.startswith("pt_"):
        make(tmp_path / name, "ct", "voxel_dimensions")
        assert found_in(tmp_path)[0].notes == {"official": side}


def test_a_patient_without_ct_is_reported_and_the_others_stay(tmp_path):
    make(tmp_path / "pt_1", "dose", "voxel_dimensions")
    make(tmp_path / "pt_2", "ct", "voxel_dimensions")
    bad, good = found_in(tmp_path)
    assert "ct.csv" in bad.problems[0]
    assert not good.problems
    assert good.label is None


def test_an_empty_folder_of_a_patient_is_reported(tmp_path):
    (tmp_path / "pt_5").mkdir()
    assert "ct.csv and voxel_dimensions.csv" in found_in(tmp_path)[0].problems[0]


def test_other_folders_hidden_names_and_predictions_are_not_cases(tmp_path):
    make(tmp_path / "other", "ct")
    make(tmp_path / ".hidden" / "pt_9", "ct")
    make(tmp_path / "predictions", "pt_1")
    assert found_in(tmp_path) == ()


def test_a_link_to_the_folder_above_is_followed_once(tmp_path):
    make(tmp_path / "pt_1", "ct", "voxel_dimensions")
    (tmp_path / "pt_1" / "loop").symlink_to(tmp_path)
    assert len(found_in(tmp_path)) == 1


def test_one_number_twice_is_a_problem_of_both(tmp_path):
    make(tmp_path / "a" / "pt_1", "ct", "voxel_dimensions")
    make(tmp_path / "b" / "pt_1", "ct", "voxel_dimensions")
    assert all("found 2 times" in case.problems[0] for case in found_in(tmp_path))


def test_a_missing_root_and_a_pattern_without_patient_are_refused(tmp_path):
    with pytest.raises(CohortError, match="dataset.roots"):
        found_in(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="patient_pattern"):
        find_cases([tmp_path], channels=None, labels=None, patient_pattern="pt_.*")


def test_it_is_a_way_to_find_cases():
    assert isinstance(find_cases, FindCases)

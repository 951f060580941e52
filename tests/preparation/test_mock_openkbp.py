import numpy as np
import pytest

from medexp.errors import ConfigurationError
from medexp.io.openkbp import read_patient
from medexp.preparation.mock_openkbp import write_mock
from medexp.preparation.openkbp import find_cases


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mock")
    assert write_mock(folder, num_patients=4, seed=0)
    return folder


def test_patients_stand_on_their_side_of_the_published_split(root):
    cases = find_cases([root], channels=None, labels=None, patient_pattern="(?P<patient>.+)").cases
    assert {case.case: case.notes["official"] for case in cases} == {
        "pt_1": "train",
        "pt_2": "train",
        "pt_201": "validation",
        "pt_241": "test",
    }
    assert not any(case.problems for case in cases)
    assert all(case.label is not None for case in cases)


def test_files_look_as_the_published_ones(root):
    for folder in sorted(root.glob("*-pats/pt_*")):
        case = read_patient(folder)
        assert case.warnings == ()
        rows = (folder / "dose.csv").read_bytes().count(b"\n")
        assert rows == (folder / "possible_dose_mask.csv").read_bytes().count(b"\n")  # as many as can have a dose
        assert 40_000 < rows < 120_000
        assert np.array_equal(np.round(case.dose_gy.astype(np.float64), 3).astype(np.float32), case.dose_gy)
        assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6


def test_anatomy_lies_as_in_the_published_files(root):
    case = read_patient(root / "train-pats" / "pt_1")
    middle = {name: np.argwhere(mask).mean(axis=0) for name, mask in case.masks.items()}
    # The means of the ten real patients in shared/data, in voxels: i to the left, j to the back, k to the feet.
    real = {
        "Brainstem": (63.6, 67.4, 37.8),
        "LeftParotid": (77.5, 60.9, 50.9),
        "RightParotid": (50.2, 60.6, 50.5),
        "Mandible": (64.1, 48.6, 56.8),
        "Larynx": (63.5, 58.2, 78.0),
    }
    for name, place in real.items():
        assert np.abs(middle[name] - place).max() < 12.0, name


def test_some_structures_are_missing(root):
    present = {folder.name: set(read_patient(folder).masks) for folder in root.glob("*-pats/pt_*")}
    assert "Esophagus" not in present["pt_2"]
    assert "PTV63" not in present["pt_201"]
    assert all("PTV70" in names for names in present.values())


def test_an_equal_cohort_stays_untouched(root):
    path = root / "train-pats" / "pt_1" / "dose.csv"
    before = path.stat().st_mtime_ns
    assert not write_mock(root, num_patients=4, seed=0)
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changes", "key"), [({"num_patients": 2}, "num_patients"), ({"shape": (64, 64, 64)}, r"mock\.shape")]
)
def test_impossible_cohorts_are_refused(tmp_path, changes, key):
    with pytest.raises(ConfigurationError, match=key):
        write_mock(tmp_path, **({"num_patients": 3, "seed": 0} | changes))


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "mine.csv").write_text("1")
    with pytest.raises(ConfigurationError, match="empty folder"):
        write_mock(tmp_path, num_patients=3, seed=0)

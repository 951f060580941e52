import numpy as np
import pytest

from medexp.errors import CaseError, GridMismatchError
from medexp.io.dose_npz import read_case_npz
from medexp.io.dose_prediction_npz import DosePrediction, read_prediction_npz, write_prediction_npz
from tests.synthetic.corrupt_npz import flip_byte, remove_key, replace_array
from tests.synthetic.doses import VMAT, small_case

SETTINGS = {"ddim_steps": 50, "overlap": 0.5, "checkpoint": "sha256:12"}


def prediction():
    case = small_case()
    return DosePrediction(case.dose_gy * np.float32(0.9), case.affine, 70.0, SETTINGS, {"case": "small_0"}, ("odd",))


def assert_equal(after, before):
    assert np.abs(after.dose_gy - before.dose_gy).max() < 1e-5
    assert np.array_equal(after.affine, before.affine)
    assert after.prescription_gy == before.prescription_gy
    assert (after.inference_settings, after.metadata) == (before.inference_settings, before.metadata)
    assert after.warnings == before.warnings


def test_a_prediction_alone_is_read_back(tmp_path):
    path = tmp_path / "a.npz"
    write_prediction_npz(path, prediction())
    assert_equal(read_prediction_npz(path), prediction())
    with np.load(path, allow_pickle=False) as file:
        assert set(file) == {"pred_dose", "metadata", "inference_settings"}


def test_a_prediction_with_its_case_has_all_documented_keys(tmp_path):
    path = tmp_path / "a.npz"
    write_prediction_npz(path, prediction(), case=small_case(), structures=VMAT)
    assert_equal(read_prediction_npz(path), prediction())
    with np.load(path, allow_pickle=False) as file:
        assert {"pred_dose", "target_dose", "ct", "masks", "masks_sdf", "metadata", "inference_settings"} <= set(file)
        i, j, k = small_case().shape
        assert file["pred_dose"].shape == (j, i, k)
        assert np.allclose(file["target_dose"] * 0.9, file["pred_dose"], atol=1e-6)
    assert list(read_case_npz(path).masks) == list(VMAT)


def test_what_it_was_made_from_is_not_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    write_prediction_npz(path, prediction(), case=small_case(), structures=VMAT)
    for key in ("ct", "masks", "target_dose"):
        flip_byte(path, key)
    assert_equal(read_prediction_npz(path), prediction())


def test_another_grid_than_the_cases_is_refused(tmp_path):
    with pytest.raises(GridMismatchError, match="pred_dose"):
        write_prediction_npz(tmp_path / "a.npz", prediction(), case=small_case(shape=(24, 20, 17)), structures=VMAT)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_a_dose_that_is_none_is_not_written(tmp_path, bad):
    dose = prediction().dose_gy.copy()
    dose[0, 0, 0] = bad
    with pytest.raises(CaseError, match="pred_dose: expected"):
        write_prediction_npz(tmp_path / "a.npz", DosePrediction(dose, np.eye(4), 70.0))


def test_another_programs_prediction_is_read_with_warnings(tmp_path):
    dose = (prediction().dose_gy / 70.0).transpose(1, 0, 2).copy()
    dose[1, 2, 3] = -0.01
    np.savez(tmp_path / "a.npz", pred_dose=dose, metadata=np.array([{}]), inference_settings=np.array([{"a": 1}]))
    found = read_prediction_npz(tmp_path / "a.npz")
    assert found.dose_gy[2, 1, 3] == pytest.approx(-0.7)
    assert found.inference_settings == {}
    for part in ("metadata is pickled", "inference_settings is pickled", "1 predicted doses are negative", "fractions"):
        assert any(part in warning for warning in found.warnings), part


@pytest.mark.parametrize(
    ("key", "array", "reason"),
    [
        ("pred_dose", np.full((20, 24, 16), np.nan), "pred_dose: expected finite"),
        ("pred_dose", np.zeros((20, 24)), "pred_dose with three axes"),
        ("target_dose", np.zeros((20, 24, 15)), "target_dose on the grid of pred_dose"),
        ("inference_settings", np.array(3), "inference_settings: expected JSON"),
        ("inference_settings", np.array("{"), "inference_settings: expected JSON"),
    ],
)
def test_bad_arrays_are_refused_by_name(tmp_path, key, array, reason):
    path = tmp_path / "a.npz"
    write_prediction_npz(path, prediction(), case=small_case(), structures=VMAT)
    replace_array(path, key, array)
    with pytest.raises(CaseError, match=reason):
        read_prediction_npz(path)


def test_a_file_without_a_prediction_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    write_prediction_npz(path, prediction())
    remove_key(path, "pred_dose")
    with pytest.raises(CaseError, match="expected the key 'pred_dose'"):
        read_prediction_npz(path)

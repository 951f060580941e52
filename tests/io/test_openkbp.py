import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medexp.errors import CaseError
from medexp.geometry.affine import orientation
from medexp.io.dose_case import DoseCase
from medexp.io.nifti import RawFile, read_file
from medexp.io.openkbp import (
    SHAPE,
    STRUCTURES,
    centered_affine,
    decode_patient,
    packed_patient,
    read_mask,
    read_patient,
    read_sparse,
    write_patient,
    write_sparse,
)

SPACING_MM = (3.906, 3.906, 2.5)


def case_of(**changes):
    """A box of dose, two parotids and a cord on the format's grid: x to the left, y to the back, z to the feet."""
    ct = np.full(SHAPE, -1000, np.int16)
    ct[38:90, 45:80, 55:72] = 40
    masks = {name: np.zeros(SHAPE, np.bool_) for name in ("PTV70", "LeftParotid", "RightParotid")}
    masks["PTV70"][60:70, 55:65, 60:70] = True
    masks["LeftParotid"][80:84, 60:64, 60:64] = True
    masks["RightParotid"][40:44, 60:64, 60:64] = True
    possible = ct > -1000
    dose = np.zeros(SHAPE, np.float32)
    dose[possible] = np.random.default_rng(0).uniform(0.0, 75.0, int(possible.sum())).astype(np.float32)
    given = {
        "name": "pt_1",
        "ct_hu": ct,
        "affine": centered_affine(SPACING_MM),
        "masks": masks,
        "prescription_gy": 70.0,
        "dose_gy": dose,
        "possible_dose": possible,
    }
    return DoseCase(**(given | changes))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openkbp") / "pt_1"
    write_patient(folder, case_of(), durable=False)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "pt_1")


def test_a_patient_is_read_back_equal(original):
    before, after = case_of(), read_patient(original)
    assert np.array_equal(after.ct_hu, before.ct_hu)
    assert np.array_equal(after.dose_gy, before.dose_gy)
    assert np.array_equal(after.possible_dose, before.possible_dose)
    assert np.array_equal(after.affine, before.affine)
    assert after.masks.keys() == before.masks.keys()
    assert all(np.array_equal(after.masks[name], before.masks[name]) for name in before.masks)
    assert (after.name, after.prescription_gy, after.warnings) == ("pt_1", 70.0, ())


def test_the_flat_index_runs_over_y_x_z_in_c_order(folder):
    i, j, k = 80, 60, 62
    flat = np.ravel_multi_index((j, i, k), SHAPE)
    (folder / "dose.csv").write_text(f",data\n{flat},12.5\n")
    dose = read_patient(folder).dose_gy
    assert dose[i, j, k] == 12.5
    assert np.count_nonzero(dose) == 1


def test_left_is_at_larger_i_and_the_affine_says_so(original):
    case = read_patient(original)
    assert orientation(case.affine) == "LPI"
    left = case.affine @ [*np.argwhere(case.masks["LeftParotid"]).mean(axis=0), 1.0]
    right = case.affine @ [*np.argwhere(case.masks["RightParotid"]).mean(axis=0), 1.0]
    assert left[0] < right[0]  # x grows to the right


def test_the_middle_of_the_volume_is_the_origin(original):
    assert np.allclose(read_patient(original).affine @ [63.5, 63.5, 63.5, 1.0], [0.0, 0.0, 0.0, 1.0])


def test_a_voxel_without_a_row_is_air_and_values_are_hu_plus_1000(folder):
    (folder / "ct.csv").write_text(",data\n0,1040.0\n1,1.0\n")
    ct = read_patient(folder).ct_hu
    assert ct[0, 0, :3].tolist() == [40, -999, -1000]


def test_ct_values_beyond_12_bits_are_clipped_with_a_warning(folder):
    (folder / "ct.csv").write_text(",data\n0,22878.0\n1,4095.0\n")
    case = read_patient(folder)
    assert case.ct_hu[0, 0, :2].tolist() == [3095, 3095]
    assert any("1 CT values above 4095, up to 22878" in warning for warning in case.warnings)


def test_a_missing_structure_is_absent_and_a_missing_dose_is_to_be_predicted(folder):
    (folder / "LeftParotid.csv").unlink()
    (folder / "dose.csv").unlink()
    case = read_patient(folder)
    assert set(case.masks) == {"PTV70", "RightParotid"}
    assert case.dose_gy is None


def test_an_empty_structure_is_absent_with_a_warning(folder):
    (folder / "LeftParotid.csv").write_text(",data\n")
    case = read_patient(folder)
    assert "LeftParotid" not in case.masks
    assert any("LeftParotid" in warning for warning in case.warnings)


@pytest.mark.parametrize(("present", "prescription_gy"), [(["PTV56"], 56.0), (["PTV63", "PTV56"], 63.0)])
def test_the_prescription_is_that_of_the_highest_target(present, prescription_gy):
    mask = case_of().masks["PTV70"]
    files = packed_patient(case_of(masks=dict.fromkeys(present, mask)))
    assert decoded(files).prescription_gy == prescription_gy


def decoded(files):
    return decode_patient({name: RawFile(Path(f"{name}.csv"), data) for name, data in files.items()}, name="pt_1")


def test_bytes_in_memory_give_the_same_patient(original):
    files = {path.stem: read_file(path) for path in original.iterdir()}
    files["something_else"] = files["ct"]
    case = decode_patient(files, name="pt_1")
    assert np.array_equal(case.dose_gy, case_of().dose_gy)
    assert "something_else" not in case.masks


def test_swapped_parotids_are_pointed_out():
    masks = dict(case_of().masks)
    masks["LeftParotid"], masks["RightParotid"] = masks["RightParotid"], masks["LeftParotid"]
    assert any("mirrored" in warning for warning in decoded(packed_patient(case_of(masks=masks))).warnings)


def test_dose_where_none_is_possible_is_pointed_out():
    possible = case_of().possible_dose.copy()
    possible[60, 60, 60] = False
    case = decoded(packed_patient(case_of(possible_dose=possible)))
    assert any(warning.startswith("1 voxels outside") for warning in case.warnings)


def test_all_bad_files_of_a_patient_are_named_at_once(folder):
    (folder / "ct.csv").unlink()
    (folder / "dose.csv").write_text(",data\n5,-0.5\n")
    (folder / "PTV70.csv").write_text(",data\n5,1.0\n")
    (folder / "voxel_dimensions.csv").write_text("1\n2\n")
    with pytest.raises(CaseError) as caught:
        read_patient(folder)
    message = str(caught.value)
    for part in ("ct.csv", "dose.csv: line 2", "-0.5", "PTV70.csv: line 2", "voxel_dimensions.csv"):
        assert part in message
    assert len(message.split("\n")) == 4


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        pytest.param("dose", ",data\n5,-1\n", "dose from 0", id="negative dose"),
        pytest.param("dose", ",data\n5,7000\n", "500 Gy, got 7000", id="dose in cGy"),
        pytest.param("dose", ",data\n5,nan\n", "line 2", id="not a number"),
        pytest.param("ct", ",data\n5,-3\n", "at least 0", id="negative CT"),
        pytest.param("ct", ",data\n2097152,3\n", "below 2,097,152", id="index outside"),
        pytest.param("possible_dose_mask", ",data\n5,\n5,\n", "got 5 again", id="index twice"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(folder, name, content, reason):
    (folder / f"{name}.csv").write_text(content)
    with pytest.raises(CaseError, match=reason) as caught:
        read_patient(folder)
    assert f"{name}.csv" in str(caught.value)


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(CaseError, match=r"ct\.csv"):
        read_patient(tmp_path)


def test_a_predicted_dose_is_read_back_equal(tmp_path):
    dose = case_of().dose_gy
    path = tmp_path / "predictions" / "pt_1.csv"
    write_sparse(path, dose)
    assert path.read_text().startswith(",data\n")
    assert np.array_equal(read_sparse(path), dose)


def test_doses_that_are_none_are_not_written(tmp_path):
    for bad in (np.float32(np.nan), np.float32(-1.0)):
        dose = case_of().dose_gy.copy()
        dose[0, 0, 0] = bad
        with pytest.raises(CaseError, match="finite and not negative"):
            write_sparse(tmp_path / "pt_1.csv", dose)
    with pytest.raises(CaseError, match="grid"):
        write_sparse(tmp_path / "pt_1.csv", np.zeros((4, 4, 4), np.float32))


def test_a_case_in_another_orientation_is_not_written(tmp_path):
    turned = replace(case_of(), affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    with pytest.raises(CaseError, match="LPI"):
        write_patient(tmp_path, turned)


@pytest.fixture(scope="module")
def real(shared_data):
    folders = sorted((shared_data / "openkbp").glob("*-pats/pt_*"))
    assert len(folders) == 10
    return folders


def test_published_patients_lie_as_the_affine_says(real):
    for folder in real[::3]:
        case = read_patient(folder)
        middle = {name: case.affine @ [*np.argwhere(mask).mean(axis=0), 1.0] for name, mask in case.masks.items()}
        assert middle["LeftParotid"][0] < middle["RightParotid"][0]  # x to the right
        assert middle["Brainstem"][2] > middle["SpinalCord"][2]  # z to the head
        if "Mandible" in middle:
            assert middle["Mandible"][1] > middle["SpinalCord"][1]  # y to the front


def test_soft_tissue_of_published_patients_has_its_hounsfield_units(real):
    medians = []
    for folder in real[::2]:
        case = read_patient(folder, structures=())
        medians.append(np.median(case.ct_hu[case.possible_dose & (case.ct_hu > 0) & (case.ct_hu < 100)]))
    assert 33 <= np.mean(medians) <= 60  # muscle is 40 to 60 HU; an offset of 1024 gives 20


def test_published_files_are_written_byte_by_byte(real, tmp_path):
    folder = real[0]
    write_patient(tmp_path, read_patient(folder), durable=False)
    for path in folder.iterdir():
        if path.stem != "ct":  # whose rows of 0 HU offset values are left out
            assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_published_dose_agrees_with_numpys_reader(real):
    for folder in real[:2]:
        rows = np.loadtxt(folder / "dose.csv", delimiter=",", skiprows=1)
        expected = np.zeros(np.prod(SHAPE), np.float32)
        expected[rows[:, 0].astype(int)] = rows[:, 1]
        assert np.array_equal(read_sparse(folder / "dose.csv"), expected.reshape(SHAPE).transpose(1, 0, 2))
        mask = np.genfromtxt(folder / "PTV70.csv", delimiter=",", skip_header=1, usecols=0, dtype=int)
        assert read_mask(folder / "PTV70.csv").sum() == len(mask)


def test_a_published_patient_is_read_in_a_fraction_of_numpys_time(real):
    largest = max((path for folder in real for path in folder.iterdir()), key=lambda path: path.stat().st_size)
    start = time.process_time()
    np.genfromtxt(largest, delimiter=",", skip_header=1)
    numpys_s = time.process_time() - start
    start = time.process_time()
    read_sparse(largest) if largest.stem == "dose" else read_patient(largest.parent, structures=())
    assert time.process_time() - start < numpys_s


def test_all_structures_have_names_that_the_challenge_uses():
    assert len(STRUCTURES) == 10

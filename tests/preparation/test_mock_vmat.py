import numpy as np
import pydicom
import pytest

from medexp.errors import ConfigurationError
from medexp.preparation.dose_phantom import phantom
from medexp.preparation.mock_vmat import write_mock

SMALL = {"num_patients": 2, "seed": 3, "shape": (40, 36, 24), "spacing_mm": (6.0, 6.0, 6.0)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mock")
    assert write_mock(folder, **SMALL)
    return folder


def objects_of(folder):
    found = {}
    for path in folder.iterdir():
        found.setdefault(pydicom.dcmread(path).Modality, []).append(pydicom.dcmread(path))
    return found


def test_a_patient_is_a_ct_series_with_structures_plan_and_dose(root):
    objects = objects_of(root / "patient_001")
    assert {modality: len(some) for modality, some in objects.items()} == {
        "CT": 24,
        "RTSTRUCT": 1,
        "RTPLAN": 1,
        "RTDOSE": 1,
    }


def test_objects_of_a_patient_refer_to_each_other(root):
    objects = objects_of(root / "patient_001")
    plan, structures, dose = (objects[name][0] for name in ("RTPLAN", "RTSTRUCT", "RTDOSE"))
    assert dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
    assert plan.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID == structures.SOPInstanceUID
    frames = {one.FrameOfReferenceUID for one in (*objects["CT"], dose)}
    assert len(frames) == 1
    everything = [one for some in objects.values() for one in some]
    assert len({one.StudyInstanceUID for one in everything}) == 1
    assert len({one.SOPInstanceUID for one in everything}) == len(everything)


def test_patients_share_no_identifier(root):
    first, second = (objects_of(root / f"patient_00{number}") for number in (1, 2))
    assert first["CT"][0].FrameOfReferenceUID != second["CT"][0].FrameOfReferenceUID
    assert first["CT"][0].PatientID != second["CT"][0].PatientID


def test_the_dose_is_the_phantoms(root):
    case = phantom([3, 1], SMALL["shape"], SMALL["spacing_mm"])
    dose = objects_of(root / "patient_001")["RTDOSE"][0]
    gray = dose.pixel_array.astype(np.float64) * float(dose.DoseGridScaling)  # frame, row, column
    assert np.abs(gray.transpose(2, 1, 0) - case.dose_gy).max() < 1e-3
    names = {roi.ROIName for roi in objects_of(root / "patient_001")["RTSTRUCT"][0].StructureSetROISequence}
    assert names == set(case.masks)


def test_equal_arguments_give_equal_bytes_and_another_seed_others(root, tmp_path):
    assert not write_mock(root, **SMALL)
    for seed, same in ((3, True), (4, False)):
        write_mock(tmp_path / str(seed), **{**SMALL, "seed": seed, "num_patients": 1})
        for name in ("RD.dcm", "RS.dcm", "RP.dcm", "CT.010.dcm"):
            ours = (tmp_path / str(seed) / "patient_001" / name).read_bytes()
            assert (ours == (root / "patient_001" / name).read_bytes()) == same, name


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"num_patients": 0}, "num_patients"),
        ({"shape": (40, 36)}, r"mock\.shape"),
        ({"shape": (8, 36, 24)}, r"mock\.shape"),
        ({"spacing_mm": (0.0, 1.0, 1.0)}, "spacing_mm"),
    ],
)
def test_impossible_cohorts_are_refused(tmp_path, changes, key):
    with pytest.raises(ConfigurationError, match=key):
        write_mock(tmp_path, **{**SMALL, **changes})

"""The files of a predicted dose belong to the patient they were predicted for, and say no more about him than asked."""

import gzip
from pathlib import Path
from zipfile import ZipFile

import nibabel
import numpy as np
import pydicom
import pytest

from medexp.errors import ConfigurationError
from medexp.inference.dose_writers import DoseFiles
from medexp.io.dicom_objects import PatientIdentity
from medexp.io.dicom_write import write_patient
from medexp.io.dose_prediction_npz import read_prediction_npz
from medexp.preparation.dose_grid import AsStored
from tests.synthetic.planning import planned, settings_for, write_archives

NAME, ID = "Doe^Jane", "secret-17"


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    """Return the stored case of a DICOM-RT patient, the raw files, and a dose on its grid."""
    root = tmp_path_factory.mktemp("dicom")
    files = {}
    for seed in range(3):
        identity = PatientIdentity(f"{ID}-{seed}", NAME, "19500102", "F")
        files[f"p{seed}"] = write_patient(root / "raw" / f"p{seed}", planned(seed), seed=seed, identity=identity)
    (root / "run").mkdir()
    settings = settings_for(root / "raw", grid=AsStored(), holdout_shares=(0.4, 0.3, 0.3))
    cohort = settings.prepare(folder=root / "run", store=root / "store", num_workers=1)
    case = cohort.case("p1")
    return case, files["p1"], np.ascontiguousarray(case.dose()[0])


def write(folder, patient, *, copy_identity=False, formats=("npz", "nifti", "rtdose")):
    case, _, dose = patient
    return DoseFiles(formats, copy_identity).write(folder, case, dose, {"overlap": 0.25})


def unpacked(path: Path) -> bytes:
    if path.suffix == ".npz":
        with ZipFile(path) as archive:
            return b"".join(archive.read(name) for name in archive.namelist())
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def test_the_rtdose_refers_to_plan_structures_study_and_frame(tmp_path, patient):
    dose = pydicom.dcmread(write(tmp_path, patient)["rtdose"])
    plan, structures = (pydicom.dcmread(patient[1][name]) for name in ("plan", "structures"))
    assert dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
    assert dose.ReferencedRTPlanSequence[0].ReferencedSOPClassUID == plan.SOPClassUID
    assert dose.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID == structures.SOPInstanceUID
    assert dose.StudyInstanceUID == plan.StudyInstanceUID
    assert dose.FrameOfReferenceUID == pydicom.dcmread(patient[1]["ct_000"]).FrameOfReferenceUID
    assert dose.SOPInstanceUID != pydicom.dcmread(patient[1]["dose"]).SOPInstanceUID


def test_without_leave_the_files_do_not_name_the_patient(tmp_path, patient):
    files = write(tmp_path, patient)
    assert set(files) == {"prediction", "nifti", "rtdose"}
    for path in files.values():
        content = unpacked(path).replace(b"\0", b"")  # text in npz arrays has four bytes a character
        assert b"p1" in content or path.suffix == ".gz"  # it is readable text that is looked through
        assert not any(word in content for word in (b"Doe", b"Jane", ID.encode(), b"19500102"))
    assert pydicom.dcmread(files["rtdose"]).PatientID == "p1"


def test_with_leave_the_rtdose_has_the_identity_of_the_plan(tmp_path, patient):
    dose = pydicom.dcmread(write(tmp_path, patient, copy_identity=True)["rtdose"])
    found = (dose.PatientName, dose.PatientID, dose.PatientBirthDate, dose.PatientSex)
    assert found == (NAME, f"{ID}-1", "19500102", "F")


def test_every_format_holds_the_planned_dose_where_it_was(tmp_path, patient):
    """The reference is the dose that pydicom reads from the plan's own RTDOSE, whose grid is the stored one."""
    files = write(tmp_path, patient)
    planned_dose = pydicom.dcmread(patient[1]["dose"])
    ours = pydicom.dcmread(files["rtdose"])
    gray = [one.pixel_array * float(one.DoseGridScaling) for one in (planned_dose, ours)]
    assert np.abs(gray[0] - gray[1]).max() < 0.01
    assert list(ours.ImagePositionPatient) == pytest.approx(list(planned_dose.ImagePositionPatient), abs=1e-6)
    npz = read_prediction_npz(files["prediction"]).dose_gy
    assert npz == pytest.approx(gray[1].transpose(2, 1, 0), abs=1e-4)
    nifti = nibabel.load(files["nifti"])
    assert np.asarray(nifti.dataobj) == pytest.approx(npz, abs=1e-4)
    corner = np.array([*planned_dose.ImagePositionPatient], float) * [-1, -1, 1]  # LPS -> RAS
    assert nifti.affine[:3, 3] == pytest.approx(corner, abs=1e-3)


def test_the_first_format_is_the_one_that_is_evaluated(tmp_path, patient):
    files = write(tmp_path, patient, formats=("rtdose", "npz"))
    assert files["prediction"].suffix == ".dcm"
    assert files["npz"].suffix == ".npz"


def test_a_case_without_a_plan_has_no_identity_to_copy(tmp_path):
    write_archives(tmp_path / "raw", range(3))
    (tmp_path / "run").mkdir()
    settings = settings_for(tmp_path / "raw", format="npz", holdout_shares=(0.4, 0.3, 0.3))
    case = settings.prepare(folder=tmp_path / "run", store=tmp_path / "store", num_workers=1).case("a1")
    dose = np.ascontiguousarray(case.dose()[0])
    with pytest.raises(ConfigurationError, match=r"a1: predict\.copy_identity: expected false .* without an RTPLAN"):
        DoseFiles(["rtdose"], copy_identity=True).write(tmp_path, case, dose, {})


@pytest.mark.parametrize("formats", [[], ["npz", "npz"]], ids=["none", "twice"])
def test_formats_must_be_named_once(formats):
    with pytest.raises(ConfigurationError, match="each once"):
        DoseFiles(formats, copy_identity=False)

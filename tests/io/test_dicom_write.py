"""An RTDOSE that others read: the same numbers, and every attribute that the standard asks for."""

import errno
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from medexp.errors import CaseError, StorageError
from medexp.io.dicom_objects import PatientIdentity
from medexp.io.dicom_rt import RtReferences, read_rtdose
from medexp.io.dicom_write import write_rtdose

REFERENCES = RtReferences("1.2.3", "1.2.4", "1.2.5", "1.2.6", "1.2.7", "1.2.840.10008.5.1.4.1.1.481.5", "1.2.8")
AFFINE = np.diag([-2.0, -3.0, 2.5, 1.0])
AFFINE[:3, 3] = (51.25, 40.125, -812.3)

# RT Dose IOD (PS3.3, A.18.3): type 1 must have a value, type 2 must be there.
TYPE_1 = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "Modality",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
    "NumberOfFrames",
    "FrameIncrementPointer",
    "DoseUnits",
    "DoseType",
    "DoseSummationType",
    "GridFrameOffsetVector",
    "DoseGridScaling",
    "ReferencedRTPlanSequence",
    "SpecificCharacterSet",
]
TYPE_2 = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "SeriesNumber",
    "OperatorsName",
    "PositionReferenceIndicator",
    "Manufacturer",
    "InstanceNumber",
    "SliceThickness",
]


@pytest.fixture
def dose_gy() -> np.ndarray:
    dose = np.random.default_rng(0).random((7, 6, 5), np.float32) * 74.3
    dose[0] = 0.0
    return dose


@pytest.fixture
def path(dose_gy: np.ndarray, tmp_path: Path) -> Path:
    write_rtdose(tmp_path / "case_01.dcm", dose_gy, AFFINE, references=REFERENCES)
    return tmp_path / "case_01.dcm"


@pytest.mark.parametrize(("bits", "within_gy"), [(32, 1e-5), (16, 6e-4)])
def test_a_dose_goes_through_the_file(bits, within_gy: float, dose_gy: np.ndarray, tmp_path: Path) -> None:
    write_rtdose(tmp_path / "dose.dcm", dose_gy, AFFINE, references=REFERENCES, bits=bits)
    found, affine = read_rtdose(tmp_path / "dose.dcm")
    np.testing.assert_allclose(found, dose_gy, rtol=0, atol=within_gy)
    np.testing.assert_allclose(affine, AFFINE, rtol=0, atol=1e-6)


def test_pydicom_reads_the_dose(path: Path, dose_gy: np.ndarray) -> None:
    dataset = pydicom.dcmread(path)
    gray = dataset.pixel_array * float(dataset.DoseGridScaling)
    np.testing.assert_allclose(gray.transpose(2, 1, 0), dose_gy, rtol=0, atol=1e-5)


def test_another_program_reads_the_dose_where_it_lies(path: Path, dose_gy: np.ndarray) -> None:
    image = sitk.ReadImage(str(path))
    gray = sitk.GetArrayFromImage(image) * float(image.GetMetaData("3004|000e"))
    np.testing.assert_allclose(gray.transpose(2, 1, 0), dose_gy, rtol=0, atol=1e-5)
    place = np.array(image.TransformIndexToPhysicalPoint((3, 2, 4))) * [-1, -1, 1]
    np.testing.assert_allclose(place, (AFFINE @ [3, 2, 4, 1])[:3], atol=1e-6)


def test_every_required_attribute_is_there(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    assert [keyword for keyword in TYPE_1 if keyword not in dataset or dataset[keyword].is_empty] == []
    assert [keyword for keyword in TYPE_2 if keyword not in dataset] == []


def test_what_the_dose_module_says(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    said = {word: dataset[word].value for word in ("Modality", "DoseUnits", "DoseType", "DoseSummationType")}
    assert said == {"Modality": "RTDOSE", "DoseUnits": "GY", "DoseType": "PHYSICAL", "DoseSummationType": "PLAN"}
    assert dataset.FrameIncrementPointer == pydicom.tag.Tag("GridFrameOffsetVector")
    assert list(dataset.GridFrameOffsetVector) == [0.0, 2.5, 5.0, 7.5, 10.0]
    assert list(dataset.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    assert list(dataset.PixelSpacing) == [3.0, 2.0]  # rows are 3 mm apart
    assert (dataset.Rows, dataset.Columns, dataset.NumberOfFrames) == (6, 7, 5)
    assert list(dataset.ImagePositionPatient) == [-51.25, -40.125, -812.3]


def test_the_dose_refers_to_plan_structures_study_and_frame(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    [plan], [structures] = dataset.ReferencedRTPlanSequence, dataset.ReferencedStructureSetSequence
    assert (plan.ReferencedSOPClassUID.name, plan.ReferencedSOPInstanceUID) == ("RT Plan Storage", "1.2.7")
    assert structures.ReferencedSOPClassUID.name == "RT Structure Set Storage"
    assert structures.ReferencedSOPInstanceUID == "1.2.6"
    assert (dataset.StudyInstanceUID, dataset.FrameOfReferenceUID) == ("1.2.3", "1.2.4")


def test_uids_are_new_valid_and_those_of_the_content(dose_gy: np.ndarray, path: Path, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(path)
    assert dataset.SOPInstanceUID.is_valid
    assert dataset.SeriesInstanceUID.is_valid
    assert dataset.SOPInstanceUID not in REFERENCES.to_json().values()
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    again = write_rtdose(tmp_path / "again" / path.name, dose_gy, AFFINE, references=REFERENCES)
    other = write_rtdose(tmp_path / "other" / path.name, dose_gy * 0.5, AFFINE, references=REFERENCES)
    elsewhere = AFFINE.copy()
    elsewhere[2, 3] += 1.0
    moved = write_rtdose(tmp_path / "moved" / path.name, dose_gy, elsewhere, references=REFERENCES)
    assert again == dataset.SOPInstanceUID
    assert len({str(dataset.SOPInstanceUID), other, moved}) == 3
    assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_the_file_names_the_case_unless_it_is_told_whom(dose_gy: np.ndarray, path: Path, tmp_path: Path) -> None:
    anonymous = pydicom.dcmread(path)
    assert (anonymous.PatientID, anonymous.PatientName) == ("case_01", "")
    who = PatientIdentity("77", "Müller^Jürgen", "19500101", "M")
    write_rtdose(tmp_path / "named.dcm", dose_gy, AFFINE, references=REFERENCES, identity=who)
    named = pydicom.dcmread(tmp_path / "named.dcm")
    assert (named.PatientID, named.PatientName, named.PatientBirthDate) == ("77", "Müller^Jürgen", "19500101")


def test_a_dose_of_nothing_is_written(tmp_path: Path) -> None:
    write_rtdose(tmp_path / "zero.dcm", np.zeros((3, 3, 3), np.float32), AFFINE, references=RtReferences())
    found, _ = read_rtdose(tmp_path / "zero.dcm")
    assert not found.any()


def test_a_dose_in_other_axis_directions_lies_where_it_did(dose_gy: np.ndarray, tmp_path: Path) -> None:
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    turn[:2, 3] = (6.0, 5.0)
    write_rtdose(tmp_path / "ras.dcm", dose_gy[::-1, ::-1].copy(), AFFINE @ turn, references=REFERENCES)
    found, affine = read_rtdose(tmp_path / "ras.dcm")
    np.testing.assert_allclose(found, dose_gy, rtol=0, atol=1e-5)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf], ids=["negative", "NaN", "infinite"])
def test_an_impossible_dose_is_refused(value: float, dose_gy: np.ndarray, tmp_path: Path) -> None:
    dose_gy[1, 1, 1] = value
    with pytest.raises(CaseError, match="finite dose of 0 or more"):
        write_rtdose(tmp_path / "dose.dcm", dose_gy, AFFINE, references=REFERENCES)
    assert list(tmp_path.iterdir()) == []


def test_an_oblique_grid_is_refused(dose_gy: np.ndarray, tmp_path: Path) -> None:
    oblique = AFFINE.copy()
    oblique[0, 1] = 0.5
    with pytest.raises(CaseError, match="oblique"):
        write_rtdose(tmp_path / "dose.dcm", dose_gy, oblique, references=REFERENCES)


def test_a_full_disk_leaves_the_earlier_file(dose_gy: np.ndarray, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left"):
        write_rtdose(path, dose_gy * 0.5, AFFINE, references=REFERENCES)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]

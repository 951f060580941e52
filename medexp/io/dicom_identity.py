"""Whose an object is: read only where a person has asked for it to be written into another object."""

from pathlib import Path

from medexp.errors import CaseError
from medexp.io.dicom import DicomError, label, parse
from medexp.io.dicom_objects import PatientIdentity
from medexp.io.nifti import read_file


def read_identity(path: Path) -> PatientIdentity:
    """Return what an object says about its patient.

    Raises:
        CaseError: The file is no DICOM object.
    """
    try:
        dataset = parse(read_file(path))
    except DicomError as error:
        raise CaseError(f"{path}: {error}") from error
    keywords = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
    return PatientIdentity(*(label(dataset, keyword) for keyword in keywords))

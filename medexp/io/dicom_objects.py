"""What every DICOM object that medexp writes has in common: its modules' required attributes, its UIDs, its bytes."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Shaped

from medexp.runs.files import atomic_write

if TYPE_CHECKING:
    from pydicom import Dataset

CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
RT_DOSE: Final = "1.2.840.10008.5.1.4.1.1.481.2"
RT_STRUCTURE_SET: Final = "1.2.840.10008.5.1.4.1.1.481.3"
RT_PLAN: Final = "1.2.840.10008.5.1.4.1.1.481.5"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "medexp")
_DECIMAL_CHARACTERS: Final = 16
_AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class PatientIdentity:
    """Who an object says it belongs to. A planning system files it under these; elsewhere only a case's name is used.

    Attributes:
        identifier: PatientID.
        name: PatientName, `Family^Given`.
        birth_date: `YYYYMMDD`.
        sex: `M`, `F` or `O`.
    """

    identifier: str
    name: str = ""
    birth_date: str = ""
    sex: str = ""


def derived_uid(*parts: str | bytes) -> str:
    """Return a UID that depends on nothing but `parts`: the same object written twice is the same object.

    Source:
        PS3.5, B.2: a UUID as a decimal number below 2.25.
    """
    content = "\0".join(part if isinstance(part, str) else part.hex() for part in parts)
    return f"2.25.{uuid.uuid5(_NAMESPACE, content).int}"


def decimal(value: float) -> str:
    """Return a number in the at most 16 characters of a decimal string."""
    from pydicom.valuerep import format_number_as_ds

    shortest = repr(float(value))
    return shortest if len(shortest) <= _DECIMAL_CHARACTERS else format_number_as_ds(float(value))


def decimals(values: Sequence[float] | Shaped[np.ndarray, "..."]) -> list[str]:
    """Return numbers in the at most 16 characters of decimal strings."""
    return [decimal(value) for value in np.asarray(values, dtype=np.float64).ravel()]


def add_decimals(dataset: "Dataset", keyword: str, values: Shaped[np.ndarray, "..."]) -> None:
    """Add many numbers as they will be stored; pydicom would make an object of each."""
    from pydicom.charset import default_encoding
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    content = "\\".join(decimals(values)).encode("ascii")
    content += b" " * (len(content) % 2)
    tag = Tag(keyword)
    dataset[tag] = RawDataElement(tag, "DS", len(content), content, 0, is_implicit_VR=False, is_little_endian=True)
    # Else pydicom takes the numbers for something in another encoding and parses them to write them anew.
    dataset.set_original_encoding(False, True, default_encoding)  # noqa: FBT003 - explicit VR, little endian


def item(**attributes: Any) -> "Dataset":
    """Return a dataset with attributes by keyword; lists of datasets become sequences."""
    from pydicom import Dataset
    from pydicom.sequence import Sequence as DicomSequence

    dataset = Dataset()
    for keyword, value in attributes.items():
        holds_items = isinstance(value, list) and bool(value) and isinstance(value[0], Dataset)
        setattr(dataset, keyword, DicomSequence(value) if holds_items else value)
    return dataset


def reference(class_uid: str, instance_uid: str, **attributes: Any) -> "Dataset":
    """Return an item that refers to another object."""
    return item(ReferencedSOPClassUID=class_uid, ReferencedSOPInstanceUID=instance_uid, **attributes)


@dataclass(frozen=True)
class NewUids:
    """UIDs of one patient's new objects, all derived from one word."""

    seed: str

    def of(self, *parts: str) -> str:
        """Return the UID of what `parts` name."""
        return derived_uid(self.seed, *parts)


def new_object(
    *, class_uid: str, modality: str, identity: PatientIdentity, study_uid: str, series_uid: str, frame_uid: str
) -> "Dataset":
    """Return an object with the attributes of the modules patient, study, series, frame of reference and equipment.

    Attributes of type 2 must be there and may be empty. Dates are left empty: equal objects have equal bytes.
    """
    from medexp import __version__

    return item(
        SpecificCharacterSet="ISO_IR 192",
        SOPClassUID=class_uid,
        StudyDate="",
        StudyTime="",
        AccessionNumber="",
        Modality=modality,
        Manufacturer="medexp",
        ReferringPhysicianName="",
        OperatorsName="",
        PatientName=identity.name,
        PatientID=identity.identifier,
        PatientBirthDate=identity.birth_date,
        PatientSex=identity.sex,
        SoftwareVersions=__version__,
        StudyInstanceUID=study_uid,
        SeriesInstanceUID=series_uid,
        StudyID="",
        SeriesNumber=None,
        FrameOfReferenceUID=frame_uid,
        PositionReferenceIndicator="",
    )


def new_instance(kind: str, class_uid: str, modality: str, *, uids: NewUids, identity: PatientIdentity) -> "Dataset":
    """Return an object of a new patient, named by its kind."""
    dataset = new_object(
        class_uid=class_uid,
        modality=modality,
        identity=identity,
        study_uid=uids.of("study"),
        series_uid=uids.of(f"{kind} series"),
        frame_uid=uids.of("frame"),
    )
    dataset.SOPInstanceUID = uids.of(kind)
    return dataset


def add_image(
    dataset: "Dataset",
    pixels: Shaped[np.ndarray, "*frame row column"],
    *,
    position: Sequence[float] | Shaped[np.ndarray, "3"],
    spacing: Sequence[float] | Shaped[np.ndarray, "3"],
) -> None:
    """Add the modules image plane and image pixel: an axial image of unsigned or signed whole numbers."""
    bits = 8 * pixels.dtype.itemsize
    attributes = {
        "InstanceNumber": 1,
        "SliceThickness": decimal(spacing[2]),
        "ImagePositionPatient": decimals(position),
        "ImageOrientationPatient": decimals(_AXIAL),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "PixelSpacing": decimals((spacing[1], spacing[0])),  # between rows, then between columns
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    content = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
    dataset.add_new(0x7FE00010, "OB" if bits == 8 else "OW", content + bytes(len(content) % 2))


def write_object(path: Path, dataset: "Dataset", *, durable: bool = True) -> None:
    """Write an object that has its SOPInstanceUID, in Explicit VR Little Endian.

    Raises:
        StorageError: The file cannot be written.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    with atomic_write(path, durable=durable) as temporary:
        temporary.write_bytes(buffer.getbuffer())

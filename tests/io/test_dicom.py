"""One bad object is named with its reason, within little memory, and a patient's name never shows."""

import logging
import re
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medexp.errors import CaseError
from medexp.io.dicom import DicomError, label, numbers, parse, shown, texts
from medexp.io.dicom_index import index_folder
from medexp.io.dicom_objects import PatientIdentity
from medexp.io.dicom_rt import RtPatient, read_patient
from medexp.io.dicom_write import write_patient
from medexp.io.nifti import read_file
from tests.synthetic.corrupt_dicom import CORPUS, DEFLATED, deflated, edit
from tests.synthetic.doses import small_case

IDENTITY = PatientIdentity("QX-7741", "Quillfeather^Zebediah", "19481203", "M")
NEEDLES = ("QX-7741", "Quillfeather", "Zebediah", "19481203")
PEAK_BYTES = 48 << 20


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_patient(tmp_path_factory.mktemp("good"), small_case(), identity=IDENTITY)


@pytest.fixture
def files(good: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    copied = {name: tmp_path / path.name for name, path in good.items()}
    for name, path in good.items():
        shutil.copy(path, copied[name])
    return copied


def read_folder(folder: Path) -> RtPatient:
    return read_patient([read_file(path) for path in sorted(folder.iterdir())])


@pytest.mark.parametrize("kind", CORPUS)
def test_a_bad_patient_is_refused_with_the_reason_and_without_a_name(
    kind: str, files: dict[str, Path], capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    spoil, expected = CORPUS[kind]
    spoil(files)
    capfd.readouterr()
    recwarn.clear()
    with pytest.raises(CaseError) as refusal:
        read_folder(files["plan"].parent)
    reasons = str(refusal.value)
    assert re.search(expected, reasons)
    assert "".join(capfd.readouterr()) == ""
    assert [str(one.message) for one in recwarn.list] == []
    assert not any(needle in reasons for needle in NEEDLES)


@pytest.mark.parametrize("kind", ["bomb", "too many rows", "dose with too many frames", "deep nesting"])
def test_what_asks_for_much_memory_does_not_get_it(kind: str, files: dict[str, Path]) -> None:
    CORPUS[kind][0](files)
    tracemalloc.start()
    try:
        with pytest.raises(CaseError, match=CORPUS[kind][1]):
            read_folder(files["plan"].parent)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < PEAK_BYTES


def test_all_reasons_of_a_patient_are_listed(files: dict[str, Path]) -> None:
    for kind in ("dose in percent", "missing slice", "contour with NaN", "prescription in cGy"):
        CORPUS[kind][0](files)
    with pytest.raises(CaseError) as refusal:
        read_folder(files["plan"].parent)
    assert len(str(refusal.value).split("\n")) == 4


@pytest.mark.parametrize(
    "identifier",
    ["../../etc/x", "/etc/passwd", "a\0b", "two\nlines", "x" * 300, "CON", "Müller^Jürgen", "患者", "\x1b[31m"],
)
def test_a_hostile_identifier_becomes_a_plain_key(identifier: str, files: dict[str, Path]) -> None:
    for path in files.values():
        edit(path, lambda dataset: setattr(dataset, "PatientID", identifier))
    index = index_folder(files["plan"].parent)
    assert re.fullmatch(r"patient-[0-9a-f]{12}", index.patient)
    assert index.problems == ()
    assert identifier not in repr(index)


def test_the_key_of_a_patient_is_the_beginning_of_the_hash_of_the_identifier(files: dict[str, Path]) -> None:
    # printf 'QX-7741' | sha256sum
    assert index_folder(files["plan"].parent).patient == "patient-0260d7fb2449"


def test_patients_without_identifier_are_told_apart_by_their_study(tmp_path: Path) -> None:
    keys = set()
    for seed in range(2):
        folder = tmp_path / str(seed)
        write_patient(folder, small_case(), identity=PatientIdentity(""), seed=seed)
        keys.add(index_folder(folder).patient)
    assert len(keys) == 2


def test_a_deflated_object_is_read(files: dict[str, Path]) -> None:
    before = parse(read_file(files["structures"]))
    deflated(files["structures"])
    assert pydicom.dcmread(files["structures"]).file_meta.TransferSyntaxUID == DEFLATED
    after = parse(read_file(files["structures"]))
    assert after.to_json() == before.to_json()


def test_numbers_are_what_pydicom_reads(files: dict[str, Path]) -> None:
    ours, theirs = parse(read_file(files["structures"])), pydicom.dcmread(files["structures"])
    contour = ours.ROIContourSequence[0].ContourSequence[0]
    expected = [float(value) for value in theirs.ROIContourSequence[0].ContourSequence[0].ContourData]
    np.testing.assert_array_equal(numbers(contour, "ContourData"), expected)
    np.testing.assert_array_equal(numbers(contour, "ContourData", count=len(expected)), expected)


def test_values_read_as_stored_and_as_converted_are_the_same(files: dict[str, Path]) -> None:
    dataset = parse(read_file(files["ct_000"]))
    stored = texts(dataset, "ImageType"), tuple(numbers(dataset, "PixelSpacing"))
    assert list(dataset.ImageType) == ["ORIGINAL", "PRIMARY", "AXIAL"]  # converts it
    assert list(dataset.PixelSpacing) == [4.0, 4.0]
    assert (texts(dataset, "ImageType"), tuple(numbers(dataset, "PixelSpacing"))) == stored


def test_a_label_is_decoded_with_the_objects_character_set(files: dict[str, Path]) -> None:
    def rename(dataset: pydicom.Dataset) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.StructureSetROISequence[0].ROIName = "Prostata für später"

    edit(files["structures"], rename)
    region = parse(read_file(files["structures"])).StructureSetROISequence[0]
    assert label(region, "ROIName") == "Prostata für später"


def test_what_is_no_dicom_is_refused_however_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "notes.dcm").write_text("nothing of the kind")
    with pytest.raises(DicomError, match="DICM at byte 128"):
        parse(read_file(tmp_path / "notes.dcm"))


def test_codes_in_messages_are_short_and_on_one_line() -> None:
    assert shown("GY\n\x1b[31m" + "x" * 100) == "'GY??[31m" + "x" * 32 + "...'"


def test_pydicom_says_what_it_says_again_afterwards(files: dict[str, Path]) -> None:
    mode, level = pydicom.config.settings.reading_validation_mode, logging.getLogger("pydicom").level
    parse(read_file(files["plan"]))
    assert pydicom.config.settings.reading_validation_mode == mode
    assert logging.getLogger("pydicom").level == level

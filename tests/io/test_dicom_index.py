"""Files are found by what they are, references decide, and what they do not settle is a problem."""

import os
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from medexp.io.dicom_choice import DicomEntry, choose
from medexp.io.dicom_index import index_folder
from medexp.io.dicom_write import write_patient
from tests.synthetic.corrupt_dicom import edit, empty, random_bytes, second
from tests.synthetic.doses import small_case


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write_patient(tmp_path / "case", small_case(shape=(8, 8, 4)))


def test_objects_are_found_whatever_their_files_are_called(files: dict[str, Path]) -> None:
    folder = files["plan"].parent
    for number, path in enumerate(files.values()):
        place = folder / "deep" / str(number % 3)
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / f"file{number}")
    index = index_folder(folder)
    assert {modality: len(found) for modality, found in index.by_modality.items()} == {
        "CT": 4, "RTDOSE": 1, "RTPLAN": 1, "RTSTRUCT": 1,
    }  # fmt: skip
    assert len(index.files) == 7
    assert index.problems == ()


def test_other_files_are_listed_and_do_no_harm(files: dict[str, Path]) -> None:
    folder = files["plan"].parent
    (folder / "readme.txt").write_text("a note")
    (folder / "Thumbs.db").write_bytes(bytes(300))
    index = index_folder(folder)
    assert [path.name for path in index.others] == ["Thumbs.db", "readme.txt"]
    assert index.problems == ()


@pytest.mark.parametrize("spoil", [random_bytes, empty], ids=["random bytes", "empty"])
def test_a_file_that_claims_to_be_dicom_and_is_not_is_a_problem(spoil, files: dict[str, Path]) -> None:
    spoil(files)
    assert any(str(files["ct_003"]) in problem for problem in index_folder(files["plan"].parent).problems)


def test_a_folder_that_contains_itself_is_searched_once(files: dict[str, Path]) -> None:
    folder = files["plan"].parent
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "nothing").symlink_to(folder / "nowhere")
    assert len(index_folder(folder).entries) == 7


def test_a_pipe_in_the_folder_does_not_hold_the_search(files: dict[str, Path]) -> None:
    os.mkfifo(files["plan"].parent / "pipe.dcm")
    assert len(index_folder(files["plan"].parent).entries) == 7


def test_a_file_without_permission_is_a_problem(files: dict[str, Path]) -> None:
    files["plan"].chmod(0)
    if os.access(files["plan"], os.R_OK):
        pytest.skip("root may read everything")
    assert any("readable" in problem for problem in index_folder(files["plan"].parent).problems)


def test_a_copy_of_a_file_is_left_out_with_a_warning(files: dict[str, Path]) -> None:
    (files["ct_000"].parent / "copy").write_bytes(files["ct_000"].read_bytes())
    choice = index_folder(files["plan"].parent).choice
    assert len(choice.ct) == 4
    assert "1 files are copies" in choice.warnings[0]
    assert choice.problems == ()


def test_of_two_ct_series_the_one_that_the_structures_refer_to_is_used(files: dict[str, Path]) -> None:
    series = generate_uid()
    for number in range(4):
        second(f"ct_{number:03d}", SeriesInstanceUID=series)(files)
        made = files["plan"].with_name(f"second_ct_{number:03d}.dcm")
        made.rename(made.with_name(f"aaa_{number}.dcm"))
    choice = index_folder(files["plan"].parent).choice
    assert {entry.path for entry in choice.ct} == {files[f"ct_{number:03d}"] for number in range(4)}
    assert choice.problems == ()
    assert "of 2 CT series" in choice.warnings[0]


def test_of_two_structure_sets_the_one_of_the_plan_is_used(files: dict[str, Path]) -> None:
    second("structures")(files)
    choice = index_folder(files["plan"].parent).choice
    assert choice.structures is not None
    assert choice.structures.path == files["structures"]
    assert choice.problems == ()


def test_a_dose_of_another_plan_is_left_out(files: dict[str, Path]) -> None:
    def refer_elsewhere(dataset: pydicom.Dataset) -> None:
        dataset.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID = generate_uid()

    second("dose")(files)
    edit(files["plan"].with_name("second_dose.dcm"), refer_elsewhere)
    choice = index_folder(files["plan"].parent).choice
    assert [dose.path for dose in choice.doses] == [files["dose"]]
    assert "RTDOSE of other plans are left out" in choice.warnings[0]


def test_the_dose_of_the_plan_is_preferred_to_those_of_its_beams(files: dict[str, Path]) -> None:
    second("dose", DoseSummationType="BEAM")(files)
    choice = index_folder(files["plan"].parent).choice
    assert [dose.path for dose in choice.doses] == [files["dose"]]


def test_missing_ct_images_that_the_structures_refer_to_are_a_warning(files: dict[str, Path]) -> None:
    files["ct_003"].unlink()
    assert "refers to 1 CT images that are not" in index_folder(files["plan"].parent).choice.warnings[0]


def test_a_scout_view_is_no_slice(files: dict[str, Path]) -> None:
    second("ct_000", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])(files)
    assert len(index_folder(files["plan"].parent).choice.ct) == 4


def test_an_empty_folder_says_what_is_missing(tmp_path: Path) -> None:
    problems = index_folder(tmp_path).problems
    assert [problem.split(",")[0] for problem in problems] == ["expected an RTSTRUCT", "expected a CT series"]


def test_two_ct_series_that_nothing_tells_apart_are_a_problem() -> None:
    images = [
        DicomEntry(Path(f"{series}{n}"), "CT", uid=f"{series}.{n}", series_uid=series, frame_uid="1.2")
        for series in ("1", "2")
        for n in range(2)
    ]
    problems = choose([*images, DicomEntry(Path("rs"), "RTSTRUCT", uid="9", frame_uids=("1.2",))]).problems
    assert problems[0].startswith("expected one CT series, or references that name one, got 2 with 2, 2 images")


def test_the_real_plan_and_structure_set_are_found_with_their_references(shared_data: Path) -> None:
    index = index_folder(shared_data / "rt_phantom")
    assert sorted(index.by_modality) == ["RTIMAGE", "RTPLAN", "RTSTRUCT"]
    plan, structures = index.choice.plan, index.choice.structures
    assert plan is not None
    assert structures is not None
    assert plan.structure_uids == (structures.uid,)
    assert len(structures.image_uids) == 92
    assert index.problems == ("expected a CT series, got none; export the planning CT with the plan",)
    assert "RANDO" not in repr(index)
    assert "PHYS" not in repr(index)

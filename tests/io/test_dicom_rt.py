"""A case written as DICOM and read back is the case; other programs read the same numbers."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import RLELossless, generate_uid

from medexp.errors import CaseError
from medexp.geometry.contours import coverage_of
from medexp.io.dicom_ct import read_ct
from medexp.io.dicom_plan import read_plan
from medexp.io.dicom_rt import RtPatient, RtReferences, read_patient, read_rtdose
from medexp.io.dicom_structures import read_structures
from medexp.io.dicom_write import write_patient
from medexp.io.dose_case import DoseCase
from medexp.io.nifti import read_file
from tests.synthetic.corrupt_dicom import edit, put
from tests.synthetic.doses import small_case

SHAPE = (14, 12, 10)


@pytest.fixture(scope="module")
def case() -> DoseCase:
    return small_case(shape=SHAPE)


@pytest.fixture(scope="module")
def written(case: DoseCase, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_patient(tmp_path_factory.mktemp("written"), case, fractions=35)


@pytest.fixture
def files(written: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    return {name: Path(shutil.copy(path, tmp_path / path.name)) for name, path in written.items()}


def read(files: dict[str, Path]) -> RtPatient:
    return read_patient([read_file(path) for path in sorted(files["plan"].parent.iterdir())])


def test_hounsfield_units_are_the_cases(case: DoseCase, files: dict[str, Path]) -> None:
    np.testing.assert_array_equal(read(files).ct.hu, case.ct_hu)


def test_affines_are_the_cases(case: DoseCase, files: dict[str, Path]) -> None:
    patient = read(files)
    assert patient.dose is not None
    np.testing.assert_allclose(patient.ct.affine, case.affine, rtol=0, atol=1e-6)
    np.testing.assert_allclose(patient.dose.affine, case.affine, rtol=0, atol=1e-6)


def test_the_dose_is_the_cases(case: DoseCase, files: dict[str, Path]) -> None:
    patient = read(files)
    assert patient.dose is not None
    np.testing.assert_allclose(patient.dose.dose_gy, case.dose_gy, rtol=0, atol=1e-5)


def test_masks_are_the_cases(case: DoseCase, files: dict[str, Path]) -> None:
    patient = read(files)
    assert [structure.name for structure in patient.structures] == list(case.masks)
    for structure in patient.structures:
        drawn = coverage_of(structure.contours, patient.ct.affine, SHAPE) >= 128
        np.testing.assert_array_equal(drawn, case.masks[structure.name])


def test_prescription_and_fractions_are_the_plans(files: dict[str, Path]) -> None:
    plan = read(files).plan
    assert (plan.prescription_gy, plan.source, plan.fractions) == (70.0, "target prescription", 35)
    assert plan.targets_gy == (("PTV70", 70.0), ("PTV56", 56.0))


def test_references_go_through_json(files: dict[str, Path]) -> None:
    references = read(files).references
    assert RtReferences.from_json(references.to_json()) == references
    assert references.plan_uid == pydicom.dcmread(files["plan"]).SOPInstanceUID
    assert references.frame_of_reference_uid == pydicom.dcmread(files["dose"]).FrameOfReferenceUID


def test_leaves_of_the_case_come_back(case: DoseCase, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    mlc = {f"beam{k}_mlc_{bank}": random.normal(size=(5, 60)).astype(np.float32) for k in (1, 2) for bank in "ab"}
    files = write_patient(tmp_path / "case", replace(case, mlc=mlc))
    found = read(files).plan.mlc()
    assert sorted(found) == sorted(mlc)
    for name, leaves in mlc.items():
        np.testing.assert_allclose(found[name], leaves, atol=1e-6)


def test_made_arcs_open_their_leaves_over_the_target_only(files: dict[str, Path], case: DoseCase) -> None:
    beam = read(files).plan.beams[0]
    assert beam.leaves_a is not None
    assert beam.leaves_b is not None
    gap = beam.leaves_b - beam.leaves_a
    height = case.masks["PTV70"].any(axis=(0, 1)).sum() * case.spacing_mm[2]
    width_mm = 400.0 / 60
    assert gap.min() >= 0.0
    assert 0 < (gap[0] > 0).sum() * width_mm <= height + 2 * width_mm
    assert beam.meterset_share[[0, -1]].tolist() == [0.0, 1.0]
    assert beam.gantry_deg[[0, -1]].tolist() == [181.0, 179.0]


def test_another_program_reads_the_same_ct(case: DoseCase, files: dict[str, Path]) -> None:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(files[f"ct_{k:03d}"]) for k in range(SHAPE[2])])
    image = reader.Execute()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), case.ct_hu)
    lps = np.array(image.TransformIndexToPhysicalPoint((3, 2, 1)))
    np.testing.assert_allclose(lps * [-1, -1, 1], (case.affine @ [3, 2, 1, 1])[:3], atol=1e-6)


def test_a_case_in_other_axis_directions_is_written_in_the_usual_ones(case: DoseCase, tmp_path: Path) -> None:
    flip = np.diag([-1.0, -1.0, -1.0, 1.0])
    flip[:3, 3] = np.array(SHAPE) - 1.0
    assert case.dose_gy is not None
    turned = replace(
        case,
        affine=case.affine @ flip,
        ct_hu=case.ct_hu[::-1, ::-1, ::-1],
        dose_gy=case.dose_gy[::-1, ::-1, ::-1],
        masks={name: mask[::-1, ::-1, ::-1] for name, mask in case.masks.items()},
        coverage={},
        possible_dose=None,
    )
    patient = read(write_patient(tmp_path / "case", turned))
    np.testing.assert_array_equal(patient.ct.hu, case.ct_hu)
    np.testing.assert_allclose(patient.ct.affine, case.affine, atol=1e-6)


def test_equal_cases_give_equal_files_and_another_seed_other_uids(case: DoseCase, tmp_path: Path) -> None:
    first, again = (write_patient(tmp_path / name, case) for name in ("first", "again"))
    other = write_patient(tmp_path / "other", case, seed=1)
    assert {path.name: path.read_bytes() for path in first.values()} == {
        path.name: path.read_bytes() for path in again.values()
    }
    assert not {path.name for path in first.values()} & {path.name for path in other.values()}


def test_a_patient_without_dose_or_plan_is_read(files: dict[str, Path]) -> None:
    files["dose"].unlink()
    files["plan"].unlink()
    patient = read_patient([read_file(path) for path in sorted(files["structures"].parent.iterdir())])
    assert patient.dose is None
    assert (patient.plan.prescription_gy, patient.plan.fractions, patient.plan.source) == (70.0, 28, "default")
    assert "70 Gy in 28 fractions are assumed" in patient.warnings[0]


def test_a_prone_patient_keeps_his_place(case: DoseCase, files: dict[str, Path]) -> None:
    """The same voxels seen from the other side: the first pixel is the last, rows and columns run against x and y."""
    for k in range(SHAPE[2]):

        def turn(dataset: pydicom.Dataset) -> None:
            x, y, z = dataset.ImagePositionPatient
            dataset.ImagePositionPatient = [x + 4.0 * (SHAPE[0] - 1), y + 4.0 * (SHAPE[1] - 1), z]
            dataset.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
            dataset.PixelData = np.ascontiguousarray(dataset.pixel_array[::-1, ::-1]).tobytes()
            dataset.PatientPosition = "HFP"

        edit(files[f"ct_{k:03d}"], turn)
    patient = read(files)
    np.testing.assert_array_equal(patient.ct.hu[::-1, ::-1], case.ct_hu)
    here, there = patient.ct.affine @ [0, 0, 2, 1], case.affine @ [SHAPE[0] - 1, SHAPE[1] - 1, 2, 1]
    np.testing.assert_allclose(here, there, atol=1e-6)
    assert "HFP" in patient.warnings[0]


def test_bits_above_the_stored_ones_are_no_part_of_the_value(case: DoseCase, files: dict[str, Path]) -> None:
    def overlay(dataset: pydicom.Dataset) -> None:
        stored = dataset.pixel_array | 0xF000
        dataset.PixelData, dataset.BitsStored, dataset.HighBit = stored.tobytes(), 12, 11

    for k in range(SHAPE[2]):
        edit(files[f"ct_{k:03d}"], overlay)
    np.testing.assert_array_equal(read(files).ct.hu, case.ct_hu)


def test_run_length_encoded_slices_are_read(case: DoseCase, files: dict[str, Path]) -> None:
    for k in range(SHAPE[2]):
        dataset = pydicom.dcmread(files[f"ct_{k:03d}"])
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(files[f"ct_{k:03d}"])
    np.testing.assert_array_equal(read(files).ct.hu, case.ct_hu)


def test_positions_rounded_to_a_tenth_of_a_millimeter_are_no_gap(files: dict[str, Path]) -> None:
    for k in range(SHAPE[2]):
        position = [-40.0, -35.0, round(-300.0 + 1.25 * k, 1)]
        put(f"ct_{k:03d}", ImagePositionPatient=position)(files)
    ct = read_ct([read_file(files[f"ct_{k:03d}"]) for k in range(SHAPE[2])])
    assert ct.affine[2, 2] == pytest.approx(1.25, abs=0.01)


@pytest.mark.parametrize("convention", ["relative", "absolute", "falling"])
def test_frames_lie_where_each_convention_says(convention: str, case: DoseCase, files: dict[str, Path]) -> None:
    def rewrite(dataset: pydicom.Dataset) -> None:
        z = float(dataset.ImagePositionPatient[2])
        if convention == "absolute":
            dataset.GridFrameOffsetVector = [z + 5.0 * k for k in range(SHAPE[2])]
        elif convention == "falling":
            dataset.ImagePositionPatient = [*dataset.ImagePositionPatient[:2], z + 5.0 * (SHAPE[2] - 1)]
            dataset.GridFrameOffsetVector = [-5.0 * k for k in range(SHAPE[2])]
            dataset.PixelData = np.ascontiguousarray(dataset.pixel_array[::-1]).tobytes()

    edit(files["dose"], rewrite)
    dose_gy, affine = read_rtdose(files["dose"])
    np.testing.assert_allclose(affine, case.affine, atol=1e-6)
    np.testing.assert_allclose(dose_gy, case.dose_gy, atol=1e-5)


def make_beam_doses(files: dict[str, Path], shares: dict[int, float], **attributes: object) -> None:
    """Put a dose per beam in the place of the plan's: a share of it each."""
    for number, share in shares.items():

        def one(dataset: pydicom.Dataset, number: int = number, share: float = share) -> None:
            dataset.SOPInstanceUID = generate_uid()
            dataset.DoseSummationType = "BEAM"
            dataset.DoseGridScaling = f"{float(dataset.DoseGridScaling) * share:.9e}"
            beam, group = pydicom.Dataset(), pydicom.Dataset()
            beam.ReferencedBeamNumber, group.ReferencedFractionGroupNumber = number, 1
            group.ReferencedBeamSequence = [beam]
            dataset.ReferencedRTPlanSequence[0].ReferencedFractionGroupSequence = [group]
            for keyword, value in attributes.items():
                setattr(dataset, keyword, value)

        edit(files["dose"], one, at=files["dose"].with_name(f"beam{number}.dcm"))
    files["dose"].unlink()


def test_doses_of_beams_are_summed(case: DoseCase, files: dict[str, Path]) -> None:
    make_beam_doses(files, {1: 0.25, 2: 0.75})
    patient = read(files)
    assert patient.dose is not None
    np.testing.assert_allclose(patient.dose.dose_gy, case.dose_gy, atol=1e-4)


def test_a_missing_beam_is_no_smaller_dose(files: dict[str, Path]) -> None:
    make_beam_doses(files, {1: 0.25})
    with pytest.raises(CaseError, match=r"RTDOSE of the beams \[1, 2\], got \[1\]"):
        read(files)


def test_doses_of_beams_on_different_grids_are_refused(files: dict[str, Path]) -> None:
    make_beam_doses(files, {1: 0.25, 2: 0.75})
    put("beam", PixelSpacing=[3.0, 3.0])({"beam": files["dose"].with_name("beam2.dcm")})
    with pytest.raises(CaseError, match="grid of the other beams' doses"):
        read(files)


def change_plan(files: dict[str, Path], *, targets: bool, beams: bool) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        if not targets:
            del dataset.DoseReferenceSequence
        if not beams:
            for beam in dataset.FractionGroupSequence[0].ReferencedBeamSequence:
                del beam.BeamDose

    edit(files["plan"], change)


def test_without_a_target_prescription_the_beams_doses_add_up(files: dict[str, Path]) -> None:
    change_plan(files, targets=False, beams=True)
    plan = read_plan(read_file(files["plan"]))
    assert plan.prescription_gy == pytest.approx(70.0)
    assert (plan.source, plan.fractions) == ("beam doses", 35)
    assert "sum up to 70 Gy" in plan.warnings[0]


def test_without_both_the_usual_prescription_is_assumed_with_a_warning(files: dict[str, Path]) -> None:
    change_plan(files, targets=False, beams=False)
    plan = read_plan(read_file(files["plan"]))
    assert (plan.prescription_gy, plan.source) == (70.0, "default")
    assert "assumed" in plan.warnings[0]


def test_leaves_that_do_not_move_are_carried_on(files: dict[str, Path]) -> None:
    before = read_plan(read_file(files["plan"])).beams[0]

    def change(dataset: pydicom.Dataset) -> None:
        for point in dataset.BeamSequence[0].ControlPointSequence[1:]:
            del point.BeamLimitingDevicePositionSequence

    edit(files["plan"], change)
    after = read_plan(read_file(files["plan"])).beams[0]
    assert before.leaves_a is not None
    assert after.leaves_a is not None
    np.testing.assert_array_equal(after.leaves_a, np.broadcast_to(before.leaves_a[0], before.leaves_a.shape))


def test_points_and_open_lines_are_no_regions(files: dict[str, Path]) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        dataset.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "OPEN_PLANAR"

    frame = read(files).references.frame_of_reference_uid
    before = read_structures(read_file(files["structures"]), frame_of_reference_uid=frame).structures[0]
    edit(files["structures"], change)
    after = read_structures(read_file(files["structures"]), frame_of_reference_uid=frame).structures[0]
    assert len(after.contours) == len(before.contours) - 1


def test_a_structure_of_another_frame_is_left_out_with_a_warning(files: dict[str, Path]) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = generate_uid()

    edit(files["structures"], change)
    patient = read(files)
    assert "PTV70" not in [structure.name for structure in patient.structures]
    assert any("'PTV70' lies in another frame of reference" in warning for warning in patient.warnings)


def test_the_real_structure_set_is_read_as_pydicom_reads_it(shared_data: Path) -> None:
    [path] = (shared_data / "rt_phantom").glob("RS*.dcm")
    found = read_structures(read_file(path), frame_of_reference_uid="").structures
    dataset = pydicom.dcmread(path)
    assert [structure.name for structure in found] == [str(item.ROIName) for item in dataset.StructureSetROISequence]
    ptv = next(structure for structure in found if structure.name == "PTV")
    item = next(item for item in dataset.ROIContourSequence if item.ReferencedROINumber == ptv.number)
    assert len(ptv.contours) == len(item.ContourSequence) == 20
    for contour, source in zip(ptv.contours, item.ContourSequence, strict=True):
        lps = np.array([float(value) for value in source.ContourData]).reshape(-1, 3)
        np.testing.assert_array_equal(contour, lps * [-1, -1, 1])


def test_the_real_plan_says_46_gy_in_23_fractions_and_leaves_out_its_imaging_beam(shared_data: Path) -> None:
    [path] = (shared_data / "rt_phantom").glob("RP*.dcm")
    plan = read_plan(read_file(path))
    assert (plan.prescription_gy, plan.fractions, plan.source) == (46.0, 23, "target prescription")
    assert [beam.gantry_deg[0] for beam in plan.beams] == [0.0, 270.0, 180.0, 90.0]
    assert all(leaves.shape == (2, 60) for leaves in plan.mlc().values())
    assert len(plan.mlc()) == 8

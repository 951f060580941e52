"""DICOM-RT patients from their folders to the store, good ones and all kinds of bad ones."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from medexp.errors import CohortError, LeakageError
from medexp.geometry.grids import Grid, to_canonical
from medexp.io.dicom_objects import PatientIdentity
from medexp.io.dicom_write import write_patient
from medexp.io.dose_npz import read_case_npz
from medexp.metrics.clinical import constraint_vector
from medexp.preparation.dicom_rt import find_cases
from medexp.preparation.dose_grid import FixedGrid, NativeCrop
from medexp.preparation.store import store_case
from tests.synthetic.corrupt_dicom import CORPUS, edit
from tests.synthetic.doses import VMAT
from tests.synthetic.planning import SMALL, planned, settings_for, write_dicom

HOSTILE = "../../etc/DOE^JANE"


def found_in(root):
    return find_cases([root], channels=None, labels=None, patient_pattern=None).cases


def prepare(root, folder, *, skip_bad_cases=False, **changes):
    (folder / "run").mkdir(parents=True, exist_ok=True)
    settings = settings_for(root, **changes)
    return settings.prepare(folder=folder / "run", store=folder / "store", skip_bad_cases=skip_bad_cases, num_workers=1)


def outcome_of(root, folder, **changes):
    [case] = found_in(root)
    return store_case(case, settings_for(root, **changes).transform(), folder / "store")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    write_dicom(root, range(3))
    return root


@pytest.fixture(scope="module")
def cohort(raw, tmp_path_factory):
    return prepare(raw, tmp_path_factory.mktemp("prepared"))


def test_a_folder_is_a_patient_and_its_files_are_told_by_what_they_are(raw):
    cases = found_in(raw)
    assert [case.case for case in cases] == ["p0", "p1", "p2"]
    assert sorted(cases[0].images)[-3:] == ["CT/0016", "RTPLAN", "RTSTRUCT"]
    assert cases[0].label.name.startswith("RTDOSE")
    assert len({case.patient for case in cases}) == 3


def test_a_root_that_holds_the_files_itself_is_one_patient(raw):
    assert [case.case for case in found_in(raw / "p1")] == ["p1"]


def test_files_may_lie_deeper_and_be_called_anything(raw, tmp_path):
    deep = tmp_path / "raw" / "somebody" / "study" / "series"
    deep.mkdir(parents=True)
    for number, path in enumerate(sorted((raw / "p0").iterdir(), key=lambda path: path.name[::-1])):
        (deep / f"IM{number}").write_bytes(path.read_bytes())
    [case] = found_in(tmp_path / "raw")
    assert case.case == "somebody"
    assert case.problems == ()
    assert set(case.images) == set(found_in(raw)[0].images)


def test_the_case_is_what_was_written(cohort):
    case, source = cohort.case("p1"), planned(1)
    grid = Grid.from_json(case.record["grid"])
    window = np.rint(np.linalg.inv(source.affine) @ grid.affine[:, 3])[:3].astype(int)
    assert np.array_equal(window, [0, -2, 0])  # 20 rows become 24
    inner = np.s_[:, 2:22, :]
    turned = to_canonical(source.ct_hu, Grid.native(source.shape, source.affine))
    assert np.array_equal(case.image()[0][inner], turned)
    dose = to_canonical(source.dose_gy, Grid.native(source.shape, source.affine))
    np.testing.assert_allclose(case.dose()[0][inner], dose, atol=1e-3)
    for index, name in enumerate(VMAT):
        mask = to_canonical(source.masks[name], Grid.native(source.shape, source.affine))
        assert np.array_equal(case.distances()[index][inner] < 0, mask)


def test_what_lies_beyond_the_ct_is_air_without_dose(cohort):
    case = cohort.case("p1")
    assert (case.image()[0][:, :2] == -1000).all()
    assert (case.dose()[0][:, 22:] == 0).all()
    assert (case.distances()[:, :, :2] > 0).all()


def test_the_record_holds_what_a_new_dose_must_refer_to(cohort):
    metadata = cohort.case("p0").record["metadata"]
    assert all(metadata["references"][name] for name in ("study_uid", "frame_of_reference_uid", "plan_uid"))
    assert metadata["fractions"] == 28
    assert metadata["dose_interpolation"] == "bspline"
    assert metadata["regions"]["PTV70"] == ["PTV70"]


def test_constraints_are_the_protocols_and_prescription_is_the_plans(cohort):
    case = cohort.case("p0")
    assert case.constraints == pytest.approx(constraint_vector(VMAT))
    assert case.prescription_gy == 70.0


def test_leaf_positions_and_coverage_go_to_the_reference_file(cohort):
    found = read_case_npz(cohort.folder / "cases" / "p0.npz")
    assert {name.split("_")[1] for name in found.mlc} == {"mlc"}
    assert set(found.coverage) == set(found.masks) == set(VMAT)


def test_the_same_files_under_other_names_have_the_same_entry(raw, cohort, tmp_path):
    other = tmp_path / "raw" / "other"
    other.mkdir(parents=True)
    for number, path in enumerate(sorted((raw / "p0").iterdir())):
        (other / f"{number}.dcm").write_bytes(path.read_bytes())
    [case] = settings_for(tmp_path / "raw").prepare_unseen(tmp_path / "raw", prepared=cohort, num_workers=1)
    assert case.folder == cohort.case("p0").folder


def test_two_plans_of_one_patient_stay_together(tmp_path):
    for seed, who in enumerate("aabb"):
        write_patient(tmp_path / "raw" / f"p{seed}", planned(seed), seed=seed, identity=PatientIdentity(who))
    cohort = prepare(tmp_path / "raw", tmp_path, split="folds", num_folds=2)
    assert {val for _, val in cohort.splits} == {("p0", "p1"), ("p2", "p3")}


def test_a_patient_on_both_sides_is_a_leak(tmp_path):
    write_dicom(tmp_path / "raw", range(3))
    write_patient(tmp_path / "test" / "again", planned(7), seed=7, identity=PatientIdentity("id-0"))
    with pytest.raises(LeakageError, match="p0 and again are of patient patient-"):
        prepare(tmp_path / "raw", tmp_path, test_roots=(tmp_path / "test",))


def test_no_name_of_a_patient_is_in_any_output(tmp_path, caplog):
    who = PatientIdentity(HOSTILE, name="Doe^Jane", birth_date="19480229", sex="F")
    for seed in range(4):
        identity = replace(who, identifier=f"{HOSTILE}{seed}")
        files = write_patient(tmp_path / "raw" / f"p{seed}", planned(seed), seed=seed, identity=identity)
    edit(files["dose"], lambda dataset: setattr(dataset, "DoseUnits", "RELATIVE"))
    caplog.set_level("DEBUG")
    prepare(tmp_path / "raw", tmp_path, skip_bad_cases=True)
    outputs = [path for folder in ("run", "store") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert len(outputs) > 20
    secrets = re.compile(rb"doe\^|jane|19480229|etc/", re.IGNORECASE)
    assert [path for path in outputs if secrets.search(path.read_bytes())] == []
    assert not secrets.search(caplog.text.encode())
    assert not (tmp_path.parent / "etc").exists()


@pytest.mark.parametrize("kind", list(CORPUS))
def test_a_bad_patient_is_named_with_its_reason(kind, tmp_path):
    spoil, reason = CORPUS[kind]
    [files] = write_dicom(tmp_path / "raw", [0]).values()
    spoil(files)
    outcome = outcome_of(tmp_path / "raw", tmp_path)
    assert outcome.key is None
    assert re.search(reason, "\n".join(outcome.reasons)), outcome.reasons
    assert len(set(outcome.reasons)) == len(outcome.reasons)


def test_one_bad_patient_among_good_ones_stops_only_itself(tmp_path):
    files = write_dicom(tmp_path / "raw", range(4))
    CORPUS["missing slice"][0](files[2])
    with pytest.raises(CohortError, match=r"expected 4 usable cases, but 1 cannot be used:\n  p2\n.*1 missing"):
        prepare(tmp_path / "raw", tmp_path)
    cohort = prepare(tmp_path / "raw", tmp_path, skip_bad_cases=True)
    assert [case.case for case in cohort.cases] == ["p0", "p1", "p3"]
    summary = json.loads((tmp_path / "run" / "batch_summary.json").read_text())
    assert [one["case_id"] for one in summary["cases"] if not one["success"]] == ["p2"]


def test_a_missing_target_is_named_with_what_was_drawn(tmp_path):
    case = planned(0)
    masks = {name if name != "PTV70" else "Boost": mask for name, mask in case.masks.items()}
    write_patient(tmp_path / "raw" / "p", replace(case, masks=masks))
    [reason] = outcome_of(tmp_path / "raw", tmp_path).reasons
    assert reason.startswith("expected PTV70 among the structures, found PTV56")
    assert "'Boost'" in reason


def test_a_target_in_another_frame_is_refused_for_its_frame(tmp_path):
    [files] = write_dicom(tmp_path / "raw", [0]).values()

    def change(dataset):
        [region] = [item for item in dataset.StructureSetROISequence if item.ROIName == "PTV70"]
        region.ReferencedFrameOfReferenceUID = "1.2.3"

    edit(files["structures"], change)
    [reason] = outcome_of(tmp_path / "raw", tmp_path).reasons
    assert reason.startswith("PTV70: expected contours in the CT's frame of reference, got them in another one")


def test_what_is_wrong_with_every_slice_is_said_once(tmp_path):
    [files] = write_dicom(tmp_path / "raw", [0]).values()
    slices = [path for name, path in files.items() if name.startswith("ct_")]
    for path in slices:
        edit(path, lambda dataset: dataset.__delattr__("RescaleIntercept"))
    [reason] = outcome_of(tmp_path / "raw", tmp_path).reasons
    assert reason.endswith(f" and {len(slices) - 1} other slices: expected RescaleIntercept, got none")


def test_regions_under_other_names_are_united(tmp_path):
    case = planned(0)
    masks = dict(case.masks)
    ptv = masks.pop("PTV70")
    left = ptv.copy()
    left[12:] = False
    write_patient(tmp_path / "raw" / "p", replace(case, masks={**masks, "ptv-HIGH": left, "PTV_70Gy": ptv & ~left}))
    outcome = outcome_of(tmp_path / "raw", tmp_path)
    assert outcome.facts["label_voxels"]["PTV70"] == ptv.sum()
    assert outcome.facts["metadata"]["regions"]["PTV70"] == ["ptv-HIGH", "PTV_70Gy"]


def test_other_regions_are_listed_and_left_out(tmp_path):
    case = planned(0)
    write_patient(tmp_path / "raw" / "p", replace(case, masks={**case.masks, "Couch": case.masks["Rectum"]}))
    assert outcome_of(tmp_path / "raw", tmp_path).facts["unmatched_structures"] == ["Couch"]


def test_a_contour_off_the_ct_is_named(tmp_path):
    [files] = write_dicom(tmp_path / "raw", [0]).values()

    def shift(dataset):
        for region in dataset.ROIContourSequence[0:1]:
            for contour in region.ContourSequence:
                points = np.array(contour.ContourData, float).reshape(-1, 3)
                points[:, 0] += 500.0
                contour.ContourData = [f"{value:.3f}" for value in points.ravel()]

    edit(files["structures"], shift)
    assert re.search(
        "PTV70: expected all contours on the grid", "\n".join(outcome_of(tmp_path / "raw", tmp_path).reasons)
    )


def test_a_dose_that_does_not_cover_the_target_is_named(tmp_path):
    [files] = write_dicom(tmp_path / "raw", [0]).values()

    def shift(dataset):
        x, y, z = (float(value) for value in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y, z + 40.0]

    edit(files["dose"], shift)
    reasons = outcome_of(tmp_path / "raw", tmp_path).reasons
    assert re.search(r"expected the RTDOSE to cover PTV70, but \d+\.\d % of it", "\n".join(reasons))


def test_what_the_crop_cuts_off_is_named(tmp_path):
    write_dicom(tmp_path / "raw", [0])
    reasons = outcome_of(tmp_path / "raw", tmp_path, grid=NativeCrop(14, 10.0, 16)).reasons
    assert re.search(r"expected all of Femur_L on the grid, but \d+\.\d % of it lie outside", "\n".join(reasons))


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "raw" / "nobody").mkdir(parents=True)
    outcome = outcome_of(tmp_path / "raw", tmp_path)
    assert any(reason.startswith("expected a CT series, got none") for reason in outcome.reasons), outcome.reasons


def test_a_patient_who_is_not_planned_yet_can_only_be_predicted(cohort, tmp_path):
    [files] = write_dicom(tmp_path / "raw", [8]).values()
    files["dose"].unlink()
    [case] = settings_for(tmp_path / "raw").prepare_unseen(tmp_path / "raw", prepared=cohort, num_workers=1)
    assert not case.has_dose
    with pytest.raises(CohortError, match="p8\n.*expected a dose, found none; a training case needs one"):
        prepare(tmp_path / "raw", tmp_path)


def test_on_the_fixed_grid_contours_and_dose_stay_together(tmp_path):
    """Version 2.2: where the CT's grid and the new one are shifted by a part of a voxel, D95 must not suffer."""
    write_dicom(tmp_path / "raw", [0])
    outcome = outcome_of(
        tmp_path / "raw",
        tmp_path,
        grid=FixedGrid([48, 40, 44], [2.1, 2.1, 2.0], ["Prostate", "PTV70"]),
        dose_interpolation="linear",
    )
    assert outcome.reasons == ()
    assert outcome.facts["grid"]["shape"] == [48, 40, 44]
    [d95] = [flag["value"] for flag in outcome.facts["flags"] if flag["name"] == "ptv70_d95"]
    assert d95 > 64.0  # it falls to 65 Gy at the surface, halfway to the next voxel's 60 Gy
    case = planned(0)
    volume_cc = case.masks["PTV70"].sum() * np.prod(case.spacing_mm) / 1000
    found_cc = outcome.facts["label_voxels"]["PTV70"] * 2.1 * 2.1 * 2.0 / 1000
    assert found_cc == pytest.approx(volume_cc, rel=0.03)


def test_both_interpolations_agree_with_each_other_and_differ_in_the_key(raw, tmp_path):
    case = found_in(raw)[0]
    outcomes = [
        store_case(case, settings_for(raw, dose_interpolation=one).transform(), tmp_path)
        for one in ("bspline", "linear")
    ]
    assert outcomes[0].key != outcomes[1].key
    assert outcomes[0].facts["label_sha256"] == outcomes[1].facts["label_sha256"]  # the grids are one


def test_the_small_grid_is_what_the_other_tests_think():
    assert (SMALL.inplane_size, SMALL.min_slices) == (24, 16)

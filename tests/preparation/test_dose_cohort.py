"""A whole cohort of doses: what is usable, what is not and why, how it is split, and what lies in the run's folder."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medexp.errors import CohortError, ConfigurationError, LeakageError, ManifestError
from medexp.io.dose_npz import read_case_npz, write_case_npz
from medexp.io.openkbp import STRUCTURES
from medexp.io.prepared import PreparedCohort
from medexp.preparation import openkbp
from medexp.preparation.dose_grid import AsStored
from medexp.runs.files import sha256_of
from tests.synthetic.doses import VMAT
from tests.synthetic.planning import planned, settings_for, write_archives

OPENKBP = Path(__file__).parents[3] / "shared" / "data" / "openkbp"


def prepare(root, folder, *, skip_bad_cases=False, **changes) -> PreparedCohort:
    settings = settings_for(root, **{"format": "npz", **changes})
    (folder / "run").mkdir(parents=True, exist_ok=True)
    return settings.prepare(folder=folder / "run", store=folder / "store", skip_bad_cases=skip_bad_cases, num_workers=1)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    write_archives(root)
    return root


@pytest.fixture(scope="module")
def cohort(raw, tmp_path_factory):
    return prepare(raw, tmp_path_factory.mktemp("prepared"))


def spoil(root, name, change):
    path = root / f"{name}.npz"
    case = change(read_case_npz(path))
    write_case_npz(path, case, structures=tuple(case.masks), distance_clip_mm=50.0)


def test_the_cohort_knows_what_it_holds(cohort):
    assert cohort.kind == "doses"
    assert cohort.structures == VMAT
    assert cohort.channels == ("ct", *VMAT)
    assert cohort.labels == {}
    assert cohort.plan.patch_size == (32, 32, 32)
    assert cohort.plan.spacing_mm == (4.0, 4.0, 5.0)


def test_every_case_can_be_read_by_type(cohort):
    case = cohort.case("a1")
    assert case.has_dose
    assert case.image().shape == (1, 24, 20, 16)
    assert case.distances().shape == (8, 24, 20, 16)
    np.testing.assert_allclose(case.dose()[0], planned(1).dose_gy[::-1, ::-1], rtol=1e-6)
    assert case.possible().shape == case.shape
    assert case.high_dose().shape[1] == 4
    assert case.constraints.shape == (13,)
    assert case.prescription_gy == 70.0


def test_whole_patients_are_held_out(cohort):
    [(train, val)] = cohort.splits
    assert (len(train), len(val), len(cohort.test_cases)) == (3, 1, 1)
    assert {*train, *val, *(case.case for case in cohort.test_cases)} == {f"a{number}" for number in range(5)}


def test_every_case_has_a_reference_file_that_the_manifest_names(cohort):
    for record in cohort.manifest["cases"]:
        path = cohort.folder / record["reference"]["path"]
        assert path == cohort.folder / "cases" / f"{record['case']}.npz"
        assert sha256_of(path) == record["reference"]["sha256"]
        found = read_case_npz(path)
        assert found.name == record["case"]
        np.testing.assert_allclose(found.dose_gy, planned(int(record["case"][1:])).dose_gy, rtol=1e-6)


def test_every_case_has_a_picture(cohort):
    assert len(list((cohort.folder / "cases").glob("*.png"))) == 5
    assert (cohort.folder / "qc.html").read_text().count("data:image/png;base64,iVBOR") == 5


def test_the_quality_report_holds_every_check(cohort):
    rows = json.loads((cohort.folder / "qc.json").read_text())["cases"]
    names = {flag["name"] for flag in rows[0]["flags"]}
    assert {"ct_range", "truncation/PTV70", "ptv70_present", "dose_finite", "ptv70_d95", "registration"} <= names
    with (cohort.folder / "qc.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    inside = planned(0).dose_gy[planned(0).masks["PTV70"]]
    assert float(table[0]["ptv70_d95_gy"]) == pytest.approx(np.percentile(inside, 5), rel=1e-5)
    assert float(table[0]["PTV70_ml"]) == pytest.approx(inside.size * 4 * 4 * 5 / 1000, abs=1e-3)
    assert table[0]["case_type"] == "sib_2level"


def test_the_fingerprint_tells_doses_and_volumes(cohort):
    found = cohort.fingerprint
    assert found["prescriptions_gy"] == {"70": 4}  # training and validation
    assert found["structures"]["Rectum"]["cases"] == 4
    assert found["stored_shape"]["median"] == [24.0, 20.0, 16.0]
    assert 69.0 < found["structures"]["PTV70"]["mean_gy"]["minimum"] <= 70.0


def test_a_repeated_run_changes_nothing_and_writes_no_reference_again(raw, tmp_path):
    first = prepare(raw, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "cases").iterdir()}
    again = prepare(raw, tmp_path)
    assert again.digest == first.digest
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "cases").iterdir()} == before
    assert [case.folder for case in again.cases] == [case.folder for case in first.cases]


def test_a_reference_file_that_was_changed_comes_back(raw, tmp_path):
    first = prepare(raw, tmp_path)
    path = tmp_path / "run" / "cases" / "a0.npz"
    path.unlink()
    path.write_bytes(b"something else")
    prepare(raw, tmp_path)
    assert sha256_of(path) == first.manifest["cases"][0]["reference"]["sha256"]


def test_a_lost_entry_is_made_again_when_it_is_read(raw, tmp_path):
    case = prepare(raw, tmp_path).case("a0")
    expected = np.array(case.dose())
    (case.folder / "dose.npy").unlink()
    assert np.array_equal(case.dose(), expected)


def test_equal_bytes_have_one_entry_whatever_they_are_called(raw, tmp_path):
    other = tmp_path / "raw"
    other.mkdir()
    (other / "x.npz").write_bytes((raw / "a0.npz").read_bytes())
    cohort = prepare(raw, tmp_path)
    [case] = settings_for(raw, format="npz").prepare_unseen(other, prepared=cohort, num_workers=1)
    assert case.folder == cohort.case("a0").folder
    assert case.case == "x"


def test_a_patient_without_a_dose_can_be_predicted(cohort, tmp_path):
    write_case_npz(tmp_path / "new.npz", replace(planned(9), dose_gy=None), structures=VMAT, distance_clip_mm=50.0)
    settings = settings_for(tmp_path, format="npz")
    [case] = settings.prepare_unseen(tmp_path, prepared=cohort, num_workers=1)
    assert not case.has_dose
    assert case.distances().shape == (8, 24, 20, 16)
    with pytest.raises(ManifestError, match="new: expected a dose"):
        case.dose()


def test_bad_cases_are_named_all_at_once_with_their_reasons(tmp_path):
    write_archives(tmp_path / "raw", range(7))
    spoil(tmp_path / "raw", "a1", lambda case: replace(case, dose_gy=None))
    spoil(tmp_path / "raw", "a2", lambda case: replace(case, masks={"Rectum": case.masks["Rectum"]}))
    (tmp_path / "raw" / "a3.npz").write_bytes(b"PK no zip")
    with pytest.raises(CohortError) as caught:
        prepare(tmp_path / "raw", tmp_path)
    message = str(caught.value)
    assert "expected 7 usable cases, but 3 cannot be used" in message
    for reason in ("a training case needs one", "expected PTV70 among the structures, found Rectum", "a3.npz"):
        assert reason in message
    summary = json.loads((tmp_path / "run" / "batch_summary.json").read_text())
    assert (summary["total"], summary["successful"], summary["failed"]) == (7, 4, 3)


def test_the_others_go_on_without_the_bad_cases(tmp_path):
    write_archives(tmp_path / "raw", range(6))
    spoil(tmp_path / "raw", "a1", lambda case: replace(case, dose_gy=None))
    cohort = prepare(tmp_path / "raw", tmp_path, skip_bad_cases=True)
    assert [case.case for case in cohort.cases] == ["a0", "a2", "a3", "a4", "a5"]
    assert [record["case"] for record in cohort.manifest["excluded"]] == ["a1"]


def nan_dose(arrays):
    arrays["dose"][3, 3, 3] = np.nan


def negative_dose(arrays):
    arrays["dose"][3, 3, 3] = -0.01


def other_shape(arrays):
    arrays["dose"] = arrays["dose"][:-1]


def pickled(arrays):
    arrays["dose"] = np.array([{"a": 1}], dtype=object)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (nan_dose, "dose: .*NaN"),
        (negative_dose, "dose: .*at least 0"),
        (other_shape, "expected dose on the"),
        (pickled, "dose"),
    ],
)
def test_hostile_archives_are_named(tmp_path, change, reason):
    write_archives(tmp_path / "raw", range(4))
    path = tmp_path / "raw" / "a1.npz"
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    change(arrays)
    np.savez(path, **arrays)
    with pytest.raises(CohortError, match=rf"1 cannot be used:\n  a1\n    .*a1\.npz: {reason}"):
        prepare(tmp_path / "raw", tmp_path)


def test_the_same_ct_of_two_patients_is_a_leak(tmp_path):
    write_archives(tmp_path / "raw")
    case = planned(0)
    warmer = replace(case, dose_gy=case.dose_gy * np.float32(1.01))
    write_case_npz(tmp_path / "raw" / "b.npz", warmer, structures=VMAT, distance_clip_mm=50.0)
    with pytest.raises(LeakageError, match="a0 and b hold the same voxels"):
        prepare(tmp_path / "raw", tmp_path, split="folds", num_folds=2)


def test_two_cases_of_a_patient_stay_together(tmp_path):
    write_archives(tmp_path / "raw", range(6))
    for number in range(6):
        (tmp_path / "raw" / f"a{number}.npz").rename(tmp_path / "raw" / f"p{number // 2}_{number}.npz")
    cohort = prepare(tmp_path / "raw", tmp_path, patient_pattern=r"(?P<patient>p\d)_", split="folds", num_folds=3)
    assert [sorted(name[:2] for name in val) for _, val in cohort.splits].count(["p0", "p0"]) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": (32, 32, 24)}, "dataset.patch_size: expected multiples of 16"),
        ({"patch_size": (32, 32)}, "dataset.patch_size: expected 3 sides"),
        ({"split": "folds", "num_folds": 9}, "dataset.num_folds"),
    ],
)
def test_settings_that_do_not_fit_the_cohort(raw, tmp_path, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        prepare(raw, tmp_path, **changes)


def openkbp_settings(root, **changes):
    values = {
        "format": "openkbp",
        "find_cases": openkbp.find_cases,
        "structures": STRUCTURES,
        "aliases": {},
        "patient_pattern": "(?P<patient>.+)",
        "split": "official",
        "grid": AsStored(),
        "patch_size": None,
    }
    return settings_for(root, **{**values, **changes})


@pytest.mark.skipif(not OPENKBP.is_dir(), reason="needs ../shared/data/openkbp")
def test_published_patients_are_prepared_and_split_as_published(tmp_path):
    (tmp_path / "run").mkdir()
    chosen = tmp_path / "raw"
    for side, name in (("train", "pt_22"), ("validation", "pt_201")):
        (chosen / f"{side}-pats").mkdir(parents=True)
        (chosen / f"{side}-pats" / name).symlink_to(OPENKBP / f"{side}-pats" / name)
    cohort = openkbp_settings(chosen).prepare(folder=tmp_path / "run", store=tmp_path / "store", num_workers=1)
    assert cohort.splits == ((("pt_22",), ("pt_201",)),)
    assert cohort.plan.patch_size == (128, 128, 128)
    case = cohort.case("pt_22")
    assert case.record["case_type"] == "sib_2level"
    # An independent look at the files: the sum of the dose, and the cord's voxels.
    rows = (OPENKBP / "train-pats/pt_22/dose.csv").read_text().split()[1:]
    assert case.dose().sum(dtype=float) == pytest.approx(sum(float(row.split(",")[1]) for row in rows), rel=1e-6)
    cord = (OPENKBP / "train-pats/pt_22/SpinalCord.csv").read_text().split()[1:]
    inside = case.distances()[STRUCTURES.index("SpinalCord")] < 0
    assert inside.sum() == len(cord)
    # The cord lies behind the mandible: y grows to the front.
    mandible = case.distances()[STRUCTURES.index("Mandible")] < 0
    assert np.argwhere(inside)[:, 1].mean() < np.argwhere(mandible)[:, 1].mean()
    left, right = (
        np.argwhere(case.distances()[STRUCTURES.index(f"{side}Parotid")] < 0)[:, 0] for side in ("Left", "Right")
    )
    assert left.mean() < right.mean()

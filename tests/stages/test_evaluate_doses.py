"""Evaluation of doses from files only: formats, tables, summary, report, and everything that is refused."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medexp.errors import CohortError, ConfigurationError, GridMismatchError, IncompletePredictionsError
from medexp.geometry.grids import Grid
from medexp.io.dicom_rt import RtReferences
from medexp.io.dicom_write import write_rtdose
from medexp.io.nifti import write_nifti
from medexp.io.openkbp import centered_affine, write_patient, write_sparse
from medexp.io.tables import number, read_table
from medexp.metrics.openkbp import pooled_scores, score_patient
from medexp.runs.files import read_json, sha256_of, write_json
from medexp.stages.context import Result
from medexp.stages.recorded_evaluation import Evaluation
from tests.synthetic.doses import OPENKBP, small_case
from tests.synthetic.evaluations import evaluated, fake_run, finish
from tests.synthetic.scoring_doses import SCORING, cases, predicted_dose, write_prediction, write_reference

CASES = cases()
DOSES = {case.name: predicted_dose(case, number) for number, case in enumerate(CASES)}


@pytest.fixture
def folders(tmp_path):
    for case in CASES:
        write_reference(tmp_path / "references", case)
        write_prediction(tmp_path / "predictions", case, DOSES[case.name])
    return tmp_path / "predictions", tmp_path / "references"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("doses")
    for case in CASES:
        write_reference(place / "references", case)
        write_prediction(place / "predictions", case, DOSES[case.name])
    return evaluated(place / "out", place / "predictions", place / "references", doses=SCORING)


def table(run, name):
    return {row["case"]: row for row in read_table(run.folder / name)}


def summary_of(run):
    return read_json(run.folder / "summary.json")["medexp"]


def test_errors_are_those_of_the_arrays(run):
    rows = table(run, "cases.csv")
    for case in CASES:
        error = np.abs(DOSES[case.name] - case.dose_gy)
        row = rows[case.name]
        assert number(row["mae_gy"]) == pytest.approx(error[case.possible_dose].mean(), rel=1e-4)
        assert number(row["mae_gy/whole grid"]) == pytest.approx(error.mean(), rel=1e-4)
        assert number(row["mae_gy/PTV70"]) == pytest.approx(error[case.masks["PTV70"]].mean(), rel=1e-4)


def test_the_objective_is_the_mean_error_in_gray(run):
    rows = table(run, "cases.csv")
    mean = np.mean([number(row["mae_gy"]) for row in rows.values()])
    assert run.result["scores"]["mae_gy"] == pytest.approx(mean)
    assert summary_of(run)["columns"]["mae_gy"]["mean"] == pytest.approx(mean)


def test_points_of_dvhs_are_a_long_table_with_both_sides(run):
    rows = [row for row in read_table(run.folder / "dvh.csv") if row["metric"] == "d95_gy"]
    assert {(row["case"], row["structure"]) for row in rows} == {(c.name, name) for c in CASES for name in c.masks}
    wide = table(run, "cases.csv")
    for row in rows:
        assert number(row["difference"]) == pytest.approx(number(row["prediction"]) - number(row["reference"]))
        assert wide[row["case"]][f"d95_gy/{row['structure']}"] == row["prediction"]
        assert wide[row["case"]][f"reference_d95_gy/{row['structure']}"] == row["reference"]


def test_limits_are_a_long_table_of_both_sides(run):
    rows = read_table(run.folder / "constraints.csv")
    assert len(rows) == len(CASES) * 2 * 20
    missing = {row["structure"] for row in rows if row["outcome"] == "missing"}
    assert missing == {"PTV50.4"}
    assert all(row["value"] == "" for row in rows if row["outcome"] == "missing")


def test_curves_can_be_drawn_from_their_file(run):
    record = json.loads((run.folder / "dvh_curves.json").read_text())
    curves = record["cases"]["A"]["PTV70"]
    assert record["step_gy"] == 0.5
    assert (curves["reference"][0], curves["reference"][-1]) == (100.0, 0.0)
    assert set(record["cases"]) == set(DOSES)


def test_the_report_has_the_layout_of_the_vmat_system(run):
    report = json.loads((run.folder / "dose_report.json").read_text())
    assert {"aggregate_metrics", "per_case_results", "clinical_constraints", "goal_assessment"} <= set(report)
    first = report["per_case_results"][0]
    assert {"case_id", "spacing_mm", "dose_metrics", "gamma", "dvh_metrics", "clinical_constraints"} <= set(first)
    assert {"global_3mm3pct", "ptv_region_3mm3pct", "local_2mm2pct", "local_ptv_region_2mm2pct"} <= set(first["gamma"])
    assert {"overall_pass", "compliance_rate", "structures", "violations", "missing", "summary"} <= set(
        first["clinical_constraints"]
    )
    row = table(run, "cases.csv")[first["case_id"]]
    assert first["gamma"]["ptv_region_3mm3pct"] == number(row["gamma_pass_rate_global_3mm3pct/PTV70"])
    assert first["dvh_metrics"]["PTV70"]["d95_gy"]["prediction"] == number(row["d95_gy/PTV70"])
    assert report["clinical_constraints"]["prediction"]["limits"]["missing"] == 2 * len(CASES)
    goal = report["goal_assessment"]["mae_gy"]
    assert goal == {"value": run.result["scores"]["mae_gy"], "comparison": "<", "goal": 2.0, "met": True}


def test_every_file_is_recorded_with_its_digest(run):
    manifest = read_json(run.folder / "evaluation.json")
    assert set(manifest["files"]) == {"cases", "dvh", "dvh_curves", "summary", "dose_report", "constraints"}
    for entry in manifest["files"].values():
        assert sha256_of(run.folder / entry["path"]) == entry["sha256"]
    for case in manifest["cases"]:
        for side in ("prediction", "reference"):
            assert sha256_of(Path(case[side]["path"])) == case[side]["sha256"]
    assert manifest["settings"]["doses"]["gamma"] == ["3%/3mm", "2%/2mm local"]


def test_the_printed_lines_say_what_a_physicist_asks(run):
    text = "\n".join(run.result["lines"])
    for words in ("MAE ", "gamma 3%/3mm global", "gamma 3%/3mm global near PTV70", "D95 PTV70", "(2/2)"):
        assert words in text
    assert "proxy" not in text


def test_an_evaluation_can_be_read_back(run):
    found = Evaluation.of(run)
    assert found.of_doses
    assert not found.of_images
    errors = [row["mae_gy"] for row in found.cases]
    assert errors == sorted(errors, reverse=True)  # worst first


def test_a_dose_against_itself_is_perfect(tmp_path):
    for case in CASES:
        write_reference(tmp_path / "references", case)
        write_prediction(tmp_path / "predictions", case, case.dose_gy)
    run = evaluated(tmp_path / "out", tmp_path / "predictions", tmp_path / "references", doses=SCORING)
    assert run.result["scores"]["mae_gy"] == 0.0
    assert run.result["scores"]["gamma_pass_rate_global_3mm3pct"] == 100.0
    assert run.result["scores"]["d95_error_gy/PTV70"] == 0.0


def test_a_structure_that_a_case_lacks_is_empty_there_and_counted(tmp_path):
    first, second = CASES
    masks, coverage = ({n: a for n, a in arrays.items() if n != "Bowel"} for arrays in (second.masks, second.coverage))
    for case in (first, replace(second, masks=masks, coverage=coverage)):
        write_reference(tmp_path / "references", case)
        write_prediction(tmp_path / "predictions", case, DOSES[case.name])
    run = evaluated(tmp_path / "out", tmp_path / "predictions", tmp_path / "references", doses=SCORING)
    column = summary_of(run)["columns"]["d95_gy/Bowel"]
    assert (column["n_used"], column["n_undefined"]) == (1, 1)
    assert math.isnan(number(table(run, "cases.csv")["B"]["d95_gy/Bowel"]))
    assert "Bowel" not in {row["structure"] for row in read_table(run.folder / "dvh.csv") if row["case"] == "B"}


def test_a_subsampled_gamma_is_called_a_proxy(tmp_path, folders):
    run = evaluated(tmp_path / "out", *folders, doses=replace(SCORING, gamma_subsample=2))
    assert any("gamma_subsample=2: this gamma is a proxy" in line for line in run.result["lines"])


def test_without_a_protocol_no_limit_is_checked(tmp_path, folders):
    run = evaluated(tmp_path / "out", *folders, doses=replace(SCORING, limits=None))
    assert not (run.folder / "constraints.csv").exists()
    assert read_json(run.folder / "dose_report.json")["clinical_constraints"] is None


def test_the_number_of_processes_changes_nothing(tmp_path, folders):
    runs = [evaluated(tmp_path / str(n), *folders, doses=SCORING, num_workers=n) for n in (1, 2)]
    first, second = ((run.folder / "cases.csv").read_text() for run in runs)
    assert first == second


def test_nifti_in_other_axis_directions_is_turned_and_not_resampled(tmp_path, folders):
    expected = evaluated(tmp_path / "a", *folders, doses=SCORING)
    for case in CASES:
        dose = np.ascontiguousarray(np.flip(DOSES[case.name], (0, 1)).transpose(2, 0, 1))
        affine = np.zeros((4, 4))
        corner = case.affine @ [case.shape[0] - 1, case.shape[1] - 1, 0, 1]
        affine[:, 0], affine[:, 1], affine[:, 2] = case.affine[:, 2], -case.affine[:, 0], -case.affine[:, 1]
        affine[:, 3] = corner
        (tmp_path / "nifti").mkdir(exist_ok=True)
        write_nifti(tmp_path / "nifti" / f"{case.name}.nii.gz", dose, Grid.native(dose.shape, affine))
    run = evaluated(tmp_path / "b", tmp_path / "nifti", folders[1], doses=SCORING)
    for name, value in expected.result["scores"].items():
        assert run.result["scores"][name] == pytest.approx(value, rel=1e-5)


def test_several_formats_of_one_case_are_one_prediction(tmp_path, folders):
    case = CASES[0]
    write_nifti(folders[0] / "A.nii.gz", np.zeros(case.shape, np.float32), Grid.native(case.shape, case.affine))
    run = evaluated(tmp_path / "out", *folders, doses=SCORING)
    assert read_json(run.folder / "evaluation.json")["cases"][0]["prediction"]["path"].endswith("A.npz")


def test_openkbp_patients_are_scored_from_their_folders(tmp_path):
    scored = []
    for number_ in (201, 302):
        case = openkbp_case(number_)
        dose = np.where(case.possible_dose, predicted_dose(case, number_), 0).astype(np.float32)
        write_patient(tmp_path / "references" / case.name, case)
        (tmp_path / "predictions").mkdir(exist_ok=True)
        write_sparse(tmp_path / "predictions" / f"{case.name}.csv", dose)
        scored.append(score_patient(case.dose_gy, dose, case.possible_dose, case.masks, case.spacing_mm))
    scoring = replace(SCORING, structures=OPENKBP, gamma=[], targets={"PTV70": 70.0})
    run = evaluated(tmp_path / "out", tmp_path / "predictions", tmp_path / "references", doses=scoring)
    expected = pooled_scores(scored)
    assert run.result["scores"]["openkbp_dose_score_gy"] == pytest.approx(expected.dose_score_gy, rel=1e-5)
    assert run.result["scores"]["openkbp_dvh_score_gy"] == pytest.approx(expected.dvh_score_gy, rel=1e-5)
    assert summary_of(run)["openkbp"]["num_patients"] == 2
    assert not (run.folder / "constraints.csv").exists()  # of another protocol
    assert any("OpenKBP: dose score" in line for line in run.result["lines"])


def openkbp_case(number_: int):
    """Return a small patient in the middle of OpenKBP's grid, so that the sparse files are short."""
    small = small_case(number_, shape=(24, 20, 16), structures=OPENKBP)

    def padded(array, value):
        return np.pad(array, [((128 - size) // 2,) * 2 for size in small.shape], constant_values=value)

    return replace(
        small,
        name=f"pt_{number_}",
        ct_hu=padded(small.ct_hu, -1000),
        affine=centered_affine((3.9, 3.9, 2.5)),
        masks={name: padded(mask, False) for name, mask in small.masks.items()},
        coverage={},
        dose_gy=padded(small.dose_gy, 0.0),
        possible_dose=padded(small.possible_dose, False),
    )


def predicted_run(tmp_path, *, sha256=None, without=()):
    """Return a finished stage=predict of doses behind a prepared cohort."""
    prepared = fake_run(tmp_path, "prepare", letter="b")
    entries = []
    for case in CASES:
        reference = write_reference(tmp_path / "store" / case.name, case)
        entries.append({"case": case.name, "patient": f"patient of {case.name}", "role": "train", "images": {},
                        "reference": None if case.name in without else str(reference)})  # fmt: skip
    write_json(prepared.folder / "manifest.json", {"dataset": "vmat", "cases": entries})
    finish(prepared, Result(outputs={"manifest": prepared.folder / "manifest.json"}, digest="d" * 64))
    run = fake_run(tmp_path, "predict", upstream={"prepared": [prepared]}, letter="9")
    for entry, case in zip(entries, CASES, strict=True):
        path = write_prediction(run.folder / "predictions", case, DOSES[case.name])
        entry |= {"prediction": path.relative_to(run.folder).as_posix(), "sha256": sha256 or sha256_of(path)}
    write_json(run.folder / "predictions.json", {"cases": entries})
    return finish(run, Result(outputs={"predictions": run.folder / "predictions.json"}))


def test_predictions_of_an_earlier_run_are_compared_with_what_it_names(tmp_path):
    run = evaluated(tmp_path, None, None, upstream={"predicted": [predicted_run(tmp_path)]}, doses=SCORING)
    assert {row["patient"] for row in read_table(run.folder / "cases.csv")} == {"patient of A", "patient of B"}


def test_predicted_cases_without_a_delivered_dose_are_named(tmp_path):
    upstream = {"predicted": [predicted_run(tmp_path, without=("B",))]}
    run = evaluated(tmp_path, None, None, upstream=upstream, doses=SCORING)
    assert read_json(run.folder / "evaluation.json")["without_reference"] == ["B"]
    assert any("(1/1)" in line for line in run.result["lines"])


def test_a_prediction_that_changed_since_it_was_made_is_refused(tmp_path):
    upstream = {"predicted": [predicted_run(tmp_path, sha256="0" * 64)]}
    with pytest.raises(CohortError, match="expected sha256 0000"):
        evaluated(tmp_path, None, None, upstream=upstream, doses=SCORING)


def test_missing_and_extra_predictions_are_named(tmp_path, folders):
    (folders[0] / "B.npz").rename(folders[0] / "stranger.npz")
    with pytest.raises(IncompletePredictionsError, match=r"without a prediction:\n  B(.|\n)*reference:\n  stranger"):
        evaluated(tmp_path / "out", *folders, doses=SCORING)


def test_other_grids_are_refused_all_at_once(tmp_path, folders):
    first, second = CASES
    write_prediction(
        folders[0], replace(small_case(0, shape=(20, 20, 16)), name="A"), np.zeros((20, 20, 16), np.float32)
    )
    moved = second.affine.copy()
    moved[0, 3] += 2.0
    write_prediction(folders[0], replace(second, affine=moved), DOSES["B"])
    with pytest.raises(GridMismatchError, match=r"2 cannot:(.|\n)*A: .*shapes(.|\n)*B: .*corners up to 2 mm"):
        evaluated(tmp_path / "out", *folders, doses=SCORING)
    assert first.name == "A"


@pytest.mark.parametrize("frame", ["", "1.2.3.4", "1.2.3.5"], ids=["not known", "the same", "another"])
def test_an_rtdose_in_another_frame_of_reference_is_refused(tmp_path, folders, frame):
    case = replace(CASES[0], metadata={"references": {"frame_of_reference_uid": "1.2.3.4" if frame else ""}})
    write_reference(folders[1], case)
    (folders[0] / "A.npz").unlink()
    references = RtReferences(frame_of_reference_uid=frame)
    write_rtdose(folders[0] / "A.dcm", DOSES["A"], case.affine, references=references)
    if frame == "1.2.3.5":
        with pytest.raises(GridMismatchError, match="A: .*another frame of reference"):
            evaluated(tmp_path / "out", *folders, doses=SCORING)
    else:
        assert table(evaluated(tmp_path / "out", *folders, doses=SCORING), "cases.csv")["A"]["mae_gy"]


def test_all_bad_cases_are_named_at_once(tmp_path, folders):
    (folders[0] / "A.npz").write_bytes(b"nothing")
    (folders[1] / "B.npz").write_bytes(b"nothing")
    with pytest.raises(CohortError, match=r"2 cannot:(.|\n)*A: .*predictions/A.npz(.|\n)*B: .*references/B.npz"):
        evaluated(tmp_path / "out", *folders, doses=SCORING)


def test_doses_that_are_no_numbers_are_refused(tmp_path, folders):
    broken = DOSES["A"].copy()
    broken[3, 3, 3] = np.nan
    (folders[0] / "A.npz").unlink()
    write_nifti(folders[0] / "A.nii.gz", broken, Grid.native(broken.shape, CASES[0].affine))
    with pytest.raises(CohortError, match="A: .*predicted dose: expected finite values, got 1 NaN"):
        evaluated(tmp_path / "out", *folders, doses=SCORING)


def test_a_reference_without_a_dose_is_refused(tmp_path, folders):
    write_reference(folders[1], replace(CASES[0], dose_gy=None))
    with pytest.raises(CohortError, match="A: .*expected a reference with a dose"):
        evaluated(tmp_path / "out", *folders, doses=SCORING)


def test_two_files_of_one_case_and_format_are_refused(tmp_path, folders):
    write_prediction(folders[0] / "again", CASES[0], DOSES["A"])
    with pytest.raises(CohortError, match=r"several of 1 cases:\n  A: (A.npz, again/A.npz|again/A.npz, A.npz)"):
        evaluated(tmp_path / "out", *folders, doses=SCORING)


def test_folders_without_doses_are_refused_by_key(tmp_path, folders):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CohortError, match=r"evaluate\.predictions: expected doses"):
        evaluated(tmp_path / "out", empty, folders[1], doses=SCORING)
    with pytest.raises(ConfigurationError, match=r"evaluate\.references: expected a folder of doses, found none"):
        evaluated(tmp_path / "out", folders[0], tmp_path / "nowhere", doses=SCORING)


def test_tables_hold_every_digit(run):
    with (run.folder / "cases.csv").open(newline="") as stream:
        row = next(csv.DictReader(stream))
    assert len(row["mae_gy"]) > 10


@pytest.mark.parametrize(
    ("key", "value"), [("lesions", "brats_2024_gli"), ("measure_only", True), ("empty_reference", "one")]
)
def test_a_setting_without_a_meaning_for_doses_is_refused(folders, tmp_path, key, value):
    with pytest.raises(ConfigurationError, match=rf"evaluate\.{key}: expected .* for doses"):
        evaluated(tmp_path / "out", *folders, doses=SCORING, **{key: value})

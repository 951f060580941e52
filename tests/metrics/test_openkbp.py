"""OpenKBP's scores against a plain implementation, hand-worked numbers and the published oracles."""

import csv
import math

import numpy as np
import pytest

from medexp.errors import CaseError, CohortError, GridMismatchError
from medexp.io.openkbp import read_patient
from medexp.metrics.openkbp import (
    OARS,
    TARGETS,
    PatientScores,
    num_voxels_of_tenth_cc,
    pooled_scores,
    score_patient,
    structure_metrics,
)
from tests.synthetic.doses import OPENKBP, small_case

SPACING = (3.9, 3.9, 2.5)


def percentile(values: list[float], percent: float) -> float:
    """Return the linearly interpolated percentile by its definition, without numpy's."""
    ordered = sorted(values)
    place = percent / 100 * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def plain_scores(patients) -> tuple[float, float]:
    """Return both scores, one voxel after the other."""
    dose_errors, differences = [], []
    for reference, prediction, possible, masks, spacing in patients:
        pairs = list(zip(reference.ravel().tolist(), prediction.ravel().tolist(), strict=True))
        dose_errors.append(sum(abs(a - b) for a, b in pairs) / sum(possible.ravel().tolist()))
        for structure, mask in masks.items():
            inside = [pair for pair, is_inside in zip(pairs, mask.ravel().tolist(), strict=True) if is_inside]
            if not inside:
                continue
            sides = list(zip(*inside, strict=True))
            if structure.startswith("PTV"):
                values = [[percentile(side, percent) for percent in (1, 5, 99)] for side in sides]
            else:
                tenth = max(1, round(100 / math.prod(spacing)))
                values = [[percentile(side, 100 - 100 * tenth / len(side)), sum(side) / len(side)] for side in sides]
            differences += [abs(a - b) for a, b in zip(*values, strict=True)]
    return sum(dose_errors) / len(dose_errors), sum(differences) / len(differences)


def patient(seed: int, structures=OPENKBP, spacing=SPACING):
    case = small_case(seed, structures=structures, spacing_mm=spacing)
    noise = np.random.default_rng(seed).normal(0, 3, case.shape).astype(np.float32)
    return case.dose_gy, case.dose_gy + noise, case.possible_dose, dict(case.masks), case.spacing_mm


@pytest.fixture(scope="module")
def patients():
    return [patient(0), patient(1, ("PTV70", "Larynx", "Mandible"), (5.4, 5.4, 3.0)), patient(2, ("PTV63", "PTV56"))]


def test_both_scores_are_those_of_a_plain_implementation(patients):
    scores = pooled_scores(score_patient(*one) for one in patients)
    assert (scores.dose_score_gy, scores.dvh_score_gy) == pytest.approx(plain_scores(patients), rel=1e-6)
    assert (scores.num_patients, scores.num_metrics) == (3, 7 * 2 + 3 * 3 + 2 * 2 + 3 + 2 * 3)


def test_the_dvh_score_pools_metrics_and_not_patients(patients):
    scored = [score_patient(*one) for one in patients]
    pooled = pooled_scores(scored)
    assert pooled.dvh_score_gy != pytest.approx(np.mean([one.dvh_error_gy for one in scored]))
    assert pooled.dose_score_gy == pytest.approx(np.mean([one.dose_error_gy for one in scored]))


def test_a_reference_against_itself_scores_zero(patients):
    dose, _, *rest = patients[0]
    scores = pooled_scores([score_patient(dose, dose, *rest)])
    assert (scores.dose_score_gy, scores.dvh_score_gy) == (0.0, 0.0)


def test_one_gray_too_much_in_every_voxel_is_a_dvh_score_of_one(patients):
    dose, _, possible, masks, spacing = patients[0]
    scores = pooled_scores([score_patient(dose, dose + np.float32(1), possible, masks, spacing)])
    assert scores.dvh_score_gy == pytest.approx(1.0, abs=1e-5)
    assert scores.dose_score_gy == pytest.approx(dose.size / possible.sum(), rel=1e-5)  # outside of the mask, too


def test_a_prediction_counts_outside_of_the_mask_of_possible_dose():
    dose = np.zeros((2, 2, 1), np.float32)
    prediction, possible = dose.copy(), np.zeros(dose.shape, bool)
    prediction[0, 0, 0], possible[1, 1, 0] = 3.0, True
    assert score_patient(dose, prediction, possible, {}, (1.0, 1.0, 1.0)).dose_error_gy == 3.0


@pytest.mark.parametrize(
    ("spacing", "voxels"),
    [((5.422, 5.422, 3.0), 1), ((3.906, 3.906, 2.5), 3), ((20.0, 20.0, 20.0), 1), ((4.0, 5.0, 2.0), 2)],
)
def test_a_tenth_of_a_cc_is_so_many_voxels(spacing, voxels):
    assert num_voxels_of_tenth_cc(math.prod(spacing)) == voxels


def test_the_hottest_tenth_of_a_cc_by_hand():
    doses = np.arange(1, 101, dtype=np.float32)  # 100 voxels of 50 mm3: n = 2, the 98th percentile
    assert dict(structure_metrics("Larynx", doses, 50.0)) == {"D_0.1_cc": pytest.approx(98.02), "mean": 50.5}


def test_target_metrics_are_percentiles_by_hand():
    doses = np.arange(0, 101, dtype=np.float32)
    assert dict(structure_metrics("PTV70", doses, 50.0)) == {"D_99": 1.0, "D_95": 5.0, "D_1": 99.0}


def test_a_structure_below_a_tenth_of_a_cc_has_its_least_dose():
    assert dict(structure_metrics("Larynx", np.array([4.0, 6.0], np.float32), 10.0))["D_0.1_cc"] == 4.0


def test_empty_and_foreign_structures_add_nothing(patients):
    dose, prediction, possible, masks, spacing = patients[0]
    more = {**masks, "Bowel": masks["Larynx"], "Larynx": np.zeros(dose.shape, bool)}
    found = {metric.structure for metric in score_patient(dose, prediction, possible, more, spacing).metrics}
    assert found == {*OARS, *TARGETS} - {"Larynx"}


def test_nothing_is_changed_by_scoring(patients):
    before = [np.copy(array) for array in patients[0][:3]]
    score_patient(*patients[0])
    assert all(np.array_equal(a, b) for a, b in zip(before, patients[0][:3], strict=True))


def test_a_patient_without_possible_dose_is_refused(patients):
    dose, prediction, possible, masks, spacing = patients[0]
    with pytest.raises(CaseError, match="possible dose"):
        score_patient(dose, prediction, np.zeros_like(possible), masks, spacing)


def test_doses_on_different_grids_are_refused(patients):
    dose, prediction, *rest = patients[0]
    with pytest.raises(GridMismatchError):
        score_patient(dose, prediction[1:], *rest)


def test_no_patient_is_no_score():
    with pytest.raises(CohortError, match="at least one patient"):
        pooled_scores([])


def test_a_patient_without_structures_has_a_dose_error_and_no_dvh_score():
    scores = pooled_scores([PatientScores(1.5, ())])
    assert scores.dose_score_gy == 1.5
    assert math.isnan(scores.dvh_score_gy)


def flat(path, *, is_mask: bool = False) -> np.ndarray:
    """Return a sparse CSV as 128^3 values in the file's own order."""
    found = np.zeros(128**3)
    with path.open(newline="") as stream:
        for index, value in list(csv.reader(stream))[1:]:
            found[int(index)] = 1.0 if is_mask else float(value)
    return found


def official(folder, prediction: np.ndarray) -> tuple[float, list[float]]:
    """Return a patient's dose error and DVH errors step by step as the organizers' program takes them."""
    dose, possible = flat(folder / "dose.csv"), flat(folder / "possible_dose_mask.csv", is_mask=True)
    voxel_mm3 = math.prod(map(float, (folder / "voxel_dimensions.csv").read_text().split()))
    errors = []
    for structure in (*OARS, *TARGETS):
        if not (folder / f"{structure}.csv").exists():
            continue
        inside = flat(folder / f"{structure}.csv", is_mask=True).astype(bool)
        sides = []
        for values in (dose[inside], prediction[inside]):
            if structure in TARGETS:
                sides.append([np.percentile(values, percent) for percent in (1, 5, 99)])
            else:
                tenth = np.maximum(1, np.round(100 / voxel_mm3))
                sides.append([np.percentile(values, 100 - tenth / len(values) * 100), values.mean()])
        errors += np.abs(np.subtract(*sides)).tolist()
    return float(np.abs(dose - prediction).sum() / possible.sum()), errors


def test_real_patients_score_as_the_organizers_program_scores_them(shared_data):
    patients = sorted((shared_data / "openkbp" / "test-pats").glob("pt_*"))[:2]
    assert patients
    scored, dose_errors, dvh_errors = [], [], []
    for number, folder in enumerate(patients):
        case = read_patient(folder)
        noise = np.random.default_rng(number).normal(1.02, 0.05, case.shape)
        prediction = (case.dose_gy * noise).astype(np.float32)
        scored.append(score_patient(case.dose_gy, prediction, case.possible_dose, dict(case.masks), case.spacing_mm))
        error, errors = official(folder, prediction.transpose(1, 0, 2).ravel().astype(np.float64))
        dose_errors.append(error)
        dvh_errors += errors
    found = pooled_scores(scored)
    assert found.dose_score_gy == pytest.approx(np.mean(dose_errors), rel=1e-6)
    assert found.dvh_score_gy == pytest.approx(np.mean(dvh_errors), rel=1e-5)

"""The mean dose by distance to the nearest target: what a dose model must beat.

python benchmarks/openkbp_by_distance.py <folder with train-pats, validation-pats, test-pats> <folder for predictions>

Fits the curve on the training patients, writes the other patients' doses as OpenKBP's CSV files and prints their
scores. `stage=evaluate evaluate.predictions=<predictions>/test evaluate.references=<root>/test-pats` scores them in
full.
"""

import argparse
from pathlib import Path

import numpy as np

from medexp.geometry.distances import signed_distance_mm
from medexp.io.dose_case import DoseCase
from medexp.io.openkbp import STRUCTURES, read_patient, write_sparse
from medexp.metrics.openkbp import PatientScores, pooled_scores, score_patient

TARGETS = ("PTV70", "PTV63", "PTV56")
EDGES_MM = np.arange(-60.0, 201.0, 2.0)


def bins(case: DoseCase) -> np.ndarray:
    distances = [
        signed_distance_mm(case.masks[name], case.spacing_mm, clip_mm=200.0) for name in TARGETS if name in case.masks
    ]
    return np.digitize(np.min(distances, axis=0), EDGES_MM)


def fitted(cases: list[DoseCase]) -> np.ndarray:
    total, count = np.zeros(len(EDGES_MM) + 1), np.zeros(len(EDGES_MM) + 1)
    for case in cases:
        inside = case.possible_dose
        total += np.bincount(bins(case)[inside], weights=case.dose_gy[inside], minlength=len(total))
        count += np.bincount(bins(case)[inside], minlength=len(total))
    return total / np.maximum(count, 1)


def show(side: str, scores: list[PatientScores]) -> None:
    found = pooled_scores(scores)
    dose, dvh = found.dose_score_gy, found.dvh_score_gy
    print(f"{side}: dose score {dose:.3f} Gy, DVH score {dvh:.3f} Gy, {len(scores)} patients")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("predictions", type=Path)
    given = parser.parse_args()
    sides = {side: sorted((given.root / f"{side}-pats").glob("pt_*")) for side in ("train", "validation", "test")}
    curve = fitted([read_patient(folder, STRUCTURES) for folder in sides["train"]])
    every = []
    for side in ("validation", "test"):
        scores = []
        (given.predictions / side).mkdir(parents=True, exist_ok=True)
        for folder in sides[side]:
            case = read_patient(folder, STRUCTURES)
            dose_gy = np.where(case.possible_dose, curve[bins(case)], 0.0).astype(np.float32)
            write_sparse(given.predictions / side / f"{folder.name}.csv", dose_gy)
            scores.append(score_patient(case.dose_gy, dose_gy, case.possible_dose, case.masks, case.spacing_mm))
        every += scores
        show(side, scores)
    show("both", every)


if __name__ == "__main__":
    main()

"""What the numbers of a report of doses mean: criteria, cutoffs, normalization, rules."""

from medexp.stages.recorded_doses import DoseEvaluation


def dose_definitions(doses: DoseEvaluation) -> dict[str, str]:
    """Return the definition of every number on the page."""
    scoring = doses.scoring
    found = {
        "Mean absolute error": "Of a case: over the voxels where dose may be (OpenKBP's possible dose; elsewhere every "
        "voxel of the grid), or over a structure's voxels. Then the mean over cases.",
    }
    if scoring.criteria:
        every = "every voxel" if scoring.gamma_subsample == 1 else f"every {scoring.gamma_subsample}th voxel per axis"
        found["Gamma"] = (
            f"Pass rate: share of voxels with gamma up to 1, of {every} of the reference from "
            f"{float(scoring.gamma_cutoff_percent):g} % of its maximum on. {' and '.join(scoring.texts.values())}: "
            "global criteria are percent of the reference's maximum, local ones of its dose at the voxel. The search "
            f"takes steps of a tenth of the distance and ends at gamma {float(scoring.gamma_max):g}. Near a target: "
            f"the same gamma in the target and {float(scoring.ptv_margin_mm):g} mm around it."
        )
    found |= {
        "Dose normalization": "None: prediction and reference are compared in Gy as they are.",
        "DVH": "Voxels weigh by the share of them inside the contours, where contours are known. Dp is the lowest dose "
        "in the hottest p percent of the volume, Vx the volume that receives at least x; D0.1cc the lowest dose in the "
        "hottest 0.1 cc. Below 100 voxels a DVH is marked as unreliable.",
        "Errors of DVH points": "Absolute differences of prediction and reference, averaged over cases.",
        "Intervals": "95 %, percentile bootstrap over cases, 2,000 resamples.",
        "Box plots": "Quartiles and median; whiskers to the last case within 1.5 box lengths; dots are cases.",
    }
    if scoring.limits is not None:
        found["Clinical limits"] = (
            f"{scoring.limits}. Exactly on a bound passes. A structure that is missing is neither kept nor violated. "
            "The maximum of a target is judged outside targets of higher dose."
        )
    if doses.evaluation.summary["openkbp"] is not None:
        found["OpenKBP"] = (
            "Dose score: sum of absolute errors over the number of voxels of possible dose, mean over patients. DVH "
            "score: mean absolute difference over all patients' structures and metrics (D0.1cc and mean of organs, "
            "D1, D95 and D99 of targets)."
        )
    return found

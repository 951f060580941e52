"""Score one predicted dose, read from its file, against its reference; runs in a process of its own."""

from dataclasses import dataclass, replace

from medexp.errors import CaseError
from medexp.io.dose_case import DoseCase
from medexp.io.dose_files import ReadDose, digest_of, read_dose, read_reference, turned_to
from medexp.io.pairing import Pair
from medexp.metrics.dose_scores import DoseScores
from medexp.metrics.dose_scoring import DoseScoring, score_dose
from medexp.preparation.verification import frame_difference
from medexp.stages.outcomes import Refused


@dataclass(frozen=True)
class ScoredDose:
    """A case's scores with the digests of the files that they were computed from."""

    pair: Pair
    prediction_sha256: str
    reference_sha256: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    prescription_gy: float
    scores: DoseScores


def score_dose_pair(pair: Pair, scoring: DoseScoring, threads: int) -> ScoredDose | Refused:
    """Read, check and score one case; what is wrong with it is returned, so that all bad cases can be listed.

    Args:
        pair: Its files.
        scoring: What is computed.
        threads: Of this process's own arithmetic; several processes share the cores.
    """
    try:
        reference = replace(read_reference(pair.reference, structures=scoring.structures or ()), name=pair.case)
        prediction = turned_to(read_dose(pair.prediction), reference.affine)
        digests = digest_of(pair.prediction), digest_of(pair.reference)
    except CaseError as error:
        return Refused(pair.case, (str(error),))
    difference = _grid_difference(prediction, reference)
    if difference is not None:
        reason = f"{pair.prediction} and {pair.reference}: expected one voxel grid, got {difference}"
        return Refused(pair.case, (reason,), is_grid=True)
    if pair.sha256 not in {None, digests[0]}:
        message = f"{pair.prediction}: expected sha256 {pair.sha256} as stage=predict recorded it, got {digests[0]}"
        return Refused(pair.case, (f"{message}; to score another file, name its folder: evaluate.predictions=FOLDER",))
    _use(threads)
    try:
        scores = score_dose(reference, prediction.dose_gy, scoring)
    except CaseError as error:
        return Refused(pair.case, (f"{pair.prediction} and {pair.reference}: {error}",))
    return ScoredDose(
        pair=pair,
        prediction_sha256=digests[0],
        reference_sha256=digests[1],
        shape=reference.shape,
        spacing_mm=reference.spacing_mm,
        prescription_gy=reference.prescription_gy,
        scores=replace(scores, warnings=(*scores.warnings, *prediction.warnings)),
    )


def _grid_difference(prediction: ReadDose, reference: DoseCase) -> str | None:
    """Return how the prediction's voxels lie elsewhere than the reference's, None if they do not."""
    shape, own = prediction.dose_gy.shape, prediction.frame_of_reference_uid
    theirs = reference.metadata.get("references", {}).get("frame_of_reference_uid", "")
    if own and theirs and own != theirs:
        return "an RTDOSE in another frame of reference than the patient's CT"
    if prediction.affine is None:
        return None if shape == reference.shape else f"shapes {shape} and {reference.shape}"
    return frame_difference((shape, prediction.affine), (reference.shape, reference.affine))


def _use(threads: int) -> None:
    import numba  # here, because only gamma needs it, and importing it takes long

    numba.set_num_threads(max(1, min(threads, numba.config.NUMBA_NUM_THREADS)))

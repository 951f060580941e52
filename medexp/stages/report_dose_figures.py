"""The figures of one case in a report of doses, drawn from its files; runs in a process of its own."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Float32

from medexp.errors import CaseError, GridMismatchError
from medexp.io.dose_case import DoseCase
from medexp.io.dose_files import digest_of, read_dose, read_reference, turned_to
from medexp.metrics.dose_scoring import DoseScoring
from medexp.metrics.gamma import GammaCriteria, gamma_map
from medexp.plots.dose_curves import DvhPair, dvh_figure, profile_figure
from medexp.plots.dose_view import DoseView
from medexp.plots.doses import dose_difference, dose_wash, gamma_figure
from medexp.plots.theme import inline_svg, save_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

TITLES = {
    "wash": "Color wash",
    "dvh": "DVH",
    "difference": "Difference",
    "gamma": "Gamma",
    "profile": "Profiles",
}


@dataclass(frozen=True)
class CaseToDraw:
    """What is drawn of a case.

    Attributes:
        case: Its name.
        number: Keeps the figures of a page apart.
        files: As the evaluation recorded them, with their digests.
        curves: Cumulative DVHs by structure and side, as the evaluation computed them.
        step_gy: Between the points of the curves.
    """

    case: str
    number: int
    files: Mapping[str, Any]
    curves: Mapping[str, Mapping[str, list[float]]]
    step_gy: float


@dataclass(frozen=True)
class DrawnCase:
    """SVG elements and PNG files by kind; `note` says why something is not drawn."""

    figures: Mapping[str, str]
    files: Mapping[str, Path]
    note: str = ""


def draw_case(job: CaseToDraw, *, scoring: DoseScoring, colors: Mapping[str, str], folder: Path) -> DrawnCase:
    """Draw a case; a file that is gone or has changed since it was scored costs its pictures, not the report.

    Args:
        job: The case.
        scoring: What was computed; gamma is drawn by its first criteria, at full resolution.
        colors: Of the structures.
        folder: Where a PNG of each figure is written.
    """
    makers: dict[str, Callable[[], Figure]] = {}
    note = ""
    try:
        case, prediction_gy = _as_scored(job, scoring)
        view = DoseView.of(case, prediction_gy, targets_gy=scoring.targets)
        makers = {
            "wash": lambda: dose_wash(view, colors=colors),
            "difference": lambda: dose_difference(view, colors=colors),
            "profile": lambda: profile_figure(view, colors=colors),
        }
        if scoring.criteria:
            criteria = next(iter(scoring.criteria.values()))
            makers["gamma"] = lambda: _gamma(view, case, prediction_gy, criteria, colors)
    except (CaseError, OSError) as error:
        log.warning("no picture: %s", error)
        note = f"No picture: {error}"
    if job.curves:
        makers["dvh"] = lambda: _dvh(job, scoring, colors)
    figures, files = {}, {}
    for kind in (kind for kind in TITLES if kind in makers):
        figure = makers[kind]()
        files[kind] = folder / f"{quote(job.case, safe='')}_{kind}.png"
        save_png(figure, files[kind])
        figures[kind] = inline_svg(figure, name=f"{kind}{job.number}", description=f"{job.case}: {TITLES[kind]}")
    return DrawnCase(figures, files, note)


def _as_scored(job: CaseToDraw, scoring: DoseScoring) -> tuple[DoseCase, Float32[np.ndarray, "i j k"]]:
    """Return the case and the predicted dose on its grid.

    Raises:
        CaseError: A file is gone, damaged or has changed since it was scored.
    """
    paths = {}
    for kind in ("reference", "prediction"):
        path = Path(job.files[kind]["path"])
        if not path.exists():
            raise CaseError(f"expected the {kind} at {path}, found none; put it back, or evaluate again")
        if digest_of(path) != job.files[kind]["sha256"]:
            raise CaseError(f"{path} has changed since it was scored; run stage=evaluate again")
        paths[kind] = path
    case = read_reference(paths["reference"], structures=scoring.structures or ())
    dose_gy = turned_to(read_dose(paths["prediction"]), case.affine).dose_gy
    if dose_gy.shape != case.shape:
        raise GridMismatchError(f"{paths['prediction']}: expected a dose on the grid {case.shape}, got {dose_gy.shape}")
    return case, dose_gy


def _gamma(
    view: DoseView,
    case: DoseCase,
    prediction_gy: Float32[np.ndarray, "i j k"],
    criteria: GammaCriteria,
    colors: Mapping[str, str],
) -> "Figure":
    """Draw gamma as the evaluation computes it: where a prediction is negative it counts as 0."""
    reference_gy = np.zeros(case.shape, np.float32) if case.dose_gy is None else case.dose_gy
    evaluated_gy = np.maximum(prediction_gy, np.float32(0.0))
    gamma = gamma_map(reference_gy, evaluated_gy, case.spacing_mm, criteria)
    shown = view.turned(gamma, case)
    return gamma_figure(view, shown, max_gamma=criteria.max_gamma, criteria=criteria.label, colors=colors)


def _dvh(job: CaseToDraw, scoring: DoseScoring, colors: Mapping[str, str]) -> "Figure":
    curves = {name: DvhPair(pair["reference"], pair["prediction"]) for name, pair in job.curves.items()}
    targets = {name: float(dose) for name, dose in scoring.targets.items()}
    return dvh_figure(curves, step_gy=job.step_gy, targets_gy=targets, colors=colors)

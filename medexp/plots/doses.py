"""A predicted dose on the CT: color wash beside the reference, difference, gamma; three planes with outlines each."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32

from medexp.plots.dose_colors import (
    difference_legend,
    difference_limit_gy,
    differing,
    gamma_legend,
    gamma_painted,
    wash_legend,
    wash_limit_gy,
    washed,
)
from medexp.plots.dose_planes import Painter, Scale, draw_planes
from medexp.plots.dose_view import CUTS, DoseView
from medexp.plots.pages import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COUNTED = 0.1  # of the prescription: differences of lower doses do not set the scale


def dose_wash(view: DoseView, *, colors: Mapping[str, str]) -> "Figure":
    """Draw reference and prediction in colors on the CT, one below the other.

    Args:
        view: The case.
        colors: Of its structures.
    """
    limit = wash_limit_gy(view.prescription_gy)
    scale = Scale(wash_legend(view.prescription_gy), 0.0, limit, "dose (Gy)", "max")

    def painter(dose_gy: Float32[np.ndarray, "i j k"]) -> Painter:
        return lambda cut, gray: washed(gray, view.slice_of(dose_gy, cut), view.prescription_gy)

    rows = {"reference": painter(view.reference_gy), "prediction": painter(view.prediction_gy)}
    return draw_planes(view, rows, scale, colors, title=f"Dose through the {view.center}")


def dose_difference(view: DoseView, *, colors: Mapping[str, str]) -> "Figure":
    """Draw prediction minus reference on the CT; the scale ends where 99 % of the shown voxels with dose lie within.

    Args:
        view: The case.
        colors: Of its structures.
    """
    reference, prediction = (
        {cut.name: view.slice_of(dose, cut) for cut in CUTS} for dose in (view.reference_gy, view.prediction_gy)
    )
    differences = {name: prediction[name] - reference[name] for name in reference}
    counted = [differences[name][plane >= _COUNTED * view.prescription_gy] for name, plane in reference.items()]
    limit = difference_limit_gy(np.concatenate(counted))
    scale = Scale(difference_legend(), -limit, limit, "prediction − reference (Gy)", "both")
    rows = {"difference": lambda cut, gray: differing(gray, differences[cut.name], limit)}
    return draw_planes(view, rows, scale, colors, title=f"Difference through the {view.center}")


def gamma_figure(
    view: DoseView, gamma: Float[np.ndarray, "..."], *, max_gamma: float, criteria: str, colors: Mapping[str, str]
) -> "Figure":
    """Draw gamma on the CT: blue passes, red fails; where nothing was judged the CT is left as it is.

    Args:
        view: The case.
        gamma: Of the whole grid, in the axes of the view, `nan` where there is none.
        max_gamma: Where the search ended.
        criteria: In words, such as "3%/3mm global".
        colors: Of its structures.
    """
    judged = gamma[np.isfinite(gamma)]
    rate = percent(100.0 * float((judged <= 1.0).mean())) if judged.size else ""
    result = f"{rate} % of {judged.size:,} voxels pass" if rate else "nothing to be judged"
    ticks = sorted({0.0, 0.5, 1.0, (1.0 + max_gamma) / 2.0, max_gamma})
    scale = Scale(gamma_legend(max_gamma), 0.0, max_gamma, "gamma", "neither", ticks)
    rows = {"gamma": lambda cut, gray: gamma_painted(gray, view.slice_of(gamma, cut), max_gamma)}
    return draw_planes(view, rows, scale, colors, title=f"Gamma {criteria}: {result}")

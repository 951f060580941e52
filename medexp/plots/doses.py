"""A predicted dose on the CT: color wash beside the reference, difference, gamma; three planes with outlines each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from medexp.plots.dose_colors import (
    difference_legend,
    difference_limit_gy,
    differing,
    gamma_legend,
    gamma_painted,
    gray_of_ct,
    wash_legend,
    wash_limit_gy,
    washed,
)
from medexp.plots.dose_view import CUTS, Cut, DoseView
from medexp.plots.pages import percent
from medexp.plots.theme import INK, MUTED, house_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

_WIDTH_IN = 9.9
_HIGHEST_IN, _GAP_IN = 3.3, 0.06
_LEFT_IN, _RIGHT_IN, _TOP_IN, _TITLE_IN = 0.27, 0.95, 0.24, 0.24  # names of rows, scale, names of planes, title
_LEGEND_IN, _PER_LINE = 0.23, 10
_BAR_IN = (0.16, 0.13)  # distance from the planes, width
_COUNTED = 0.1  # of the prescription: differences of lower doses do not set the scale
_LETTER = "#e6eaee"

Painter = Callable[[Cut, Float32[np.ndarray, "row column"]], UInt8[np.ndarray, "row column 3"]]


@dataclass(frozen=True)
class Scale:
    """The scale beside the planes; `ends` says whether values go on beyond: "min", "max", "both", "neither"."""

    colors: "ListedColormap"
    lowest: float
    highest: float
    label: str
    ends: str
    ticks: Sequence[float] | None = None


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
    return _planes(view, rows, scale, colors, title=f"Dose through the {view.center}")


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
    return _planes(view, rows, scale, colors, title=f"Difference through the {view.center}")


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
    return _planes(view, rows, scale, colors, title=f"Gamma {criteria}: {result}")


def _planes(
    view: DoseView, rows: Mapping[str, Painter], scale: Scale, colors: Mapping[str, str], *, title: str
) -> "Figure":
    """Draw planes side by side in one row per painter; all panels have one height, and true proportions."""
    shapes = [view.size_mm(cut)[0] / view.size_mm(cut)[1] for cut in CUTS]
    room = _WIDTH_IN - _LEFT_IN - _RIGHT_IN - _GAP_IN * (len(CUTS) - 1)
    height = min(room / sum(shapes), _HIGHEST_IN)
    seen = [name for name in view.structures if any(_crosses(view, name, cut) for cut in CUTS)]
    legend_in = _LEGEND_IN * -(-len(seen) // _PER_LINE)
    total = _TITLE_IN + _TOP_IN + height * len(rows) + _GAP_IN * (len(rows) - 1) + legend_in + 0.06
    with house_style():
        figure = new_figure(_WIDTH_IN, total)
        figure.set_layout_engine("none")  # places are given below, in inches
        figure.text(
            _LEFT_IN / _WIDTH_IN,
            1.0 - 0.04 / total,
            title,
            ha="left",
            va="top",
            weight="bold",
            fontsize=9.5,
            parse_math=False,
        )
        left = _LEFT_IN
        for cut, shape in zip(CUTS, shapes, strict=True):
            gray = gray_of_ct(view.slice_of(view.ct_hu, cut))
            for row, (name, painted) in enumerate(rows.items()):
                bottom = total - _TITLE_IN - _TOP_IN - height * (row + 1) - _GAP_IN * row
                box = (left / _WIDTH_IN, bottom / total, height * shape / _WIDTH_IN, height / total)
                axes = figure.add_axes(box)
                _draw_plane(axes, view, cut, painted(cut, gray), colors)
                if row == 0:
                    axes.set_title(view.title(cut), fontsize=8.5, weight="normal", color=MUTED, pad=3, loc="center")
                if cut is CUTS[0] and len(rows) > 1:
                    axes.set_ylabel(name, color=INK, fontsize=9, labelpad=4)
            left += height * shape + _GAP_IN
        low = bottom / total
        high = 1.0 - (_TITLE_IN + _TOP_IN) / total
        bar = figure.add_axes(((left - _GAP_IN + _BAR_IN[0]) / _WIDTH_IN, low, _BAR_IN[1] / _WIDTH_IN, high - low))
        _draw_scale(bar, scale)
        _draw_legend(figure, seen, colors, bottom=0.02 / total)
    return figure


def _crosses(view: DoseView, structure: str, cut: Cut) -> bool:
    return bool((view.share_of(structure, cut) >= 0.5).any())


def _draw_plane(
    axes: "Axes", view: DoseView, cut: Cut, picture: UInt8[np.ndarray, "row column 3"], colors: Mapping[str, str]
) -> None:
    width, height = view.size_mm(cut)
    axes.imshow(picture, extent=(0.0, width, height, 0.0), interpolation="none", aspect="auto")
    axes.set_facecolor("black")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    for name in view.structures:
        _draw_outline(axes, view, cut, name, colors[name])
    style: dict[str, Any] = {"transform": axes.transAxes, "color": _LETTER, "fontsize": 7.5, "parse_math": False}
    first, last, upper = cut.letters
    axes.text(0.015, 0.5, first, ha="left", va="center", **style)
    axes.text(0.985, 0.5, last, ha="right", va="center", **style)
    axes.text(0.5, 0.985, upper, ha="center", va="top", **style)
    axes.set_xlim(0.0, width)
    axes.set_ylim(height, 0.0)


def _draw_outline(axes: "Axes", view: DoseView, cut: Cut, structure: str, color: str) -> None:
    """Draw where half of a voxel is inside; a dark edge keeps the line apart from the wash."""
    from skimage.measure import approximate_polygon, find_contours

    share = np.pad(view.share_of(structure, cut), 1)
    step = np.array([view.spacing_mm[cut.columns], view.spacing_mm[cut.rows]])
    for contour in find_contours(share, 0.5):
        points = (approximate_polygon(contour, 0.1)[:, ::-1] - 0.5) * step  # padding, and voxel centers at halves
        axes.plot(points[:, 0], points[:, 1], color="black", linewidth=2.2, alpha=0.7, solid_joinstyle="round")
        axes.plot(points[:, 0], points[:, 1], color=color, linewidth=1.1, solid_joinstyle="round")


def _draw_scale(axes: "Axes", scale: Scale) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    shown = ScalarMappable(Normalize(scale.lowest, scale.highest), scale.colors)
    bar = axes.figure.colorbar(shown, cax=axes, extend=scale.ends, extendfrac=0.03, ticks=scale.ticks)
    bar.set_label(scale.label, color=MUTED, fontsize=8.5)
    bar.outline.set_linewidth(0.4)
    axes.tick_params(length=2.5, width=0.6, color=MUTED)


def _draw_legend(figure: "Figure", structures: Sequence[str], colors: Mapping[str, str], *, bottom: float) -> None:
    from matplotlib.lines import Line2D

    if not structures:
        return
    handles = [Line2D([], [], color=colors[name], linewidth=2.0, label=name) for name in structures]
    place = (_LEFT_IN / _WIDTH_IN, bottom)
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=place, ncol=_PER_LINE, handlelength=1.0, columnspacing=1.2,
        borderpad=0.0, borderaxespad=0.0, handletextpad=0.4, fontsize=8.5,
    )  # fmt: skip

"""Doses as lines: cumulative dose-volume histograms, and the dose along lines through the target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from medexp.plots.dose_view import DoseView
from medexp.plots.theme import ACCENT, INK, MUTED, house_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_REFERENCE: Any = (0, (4, 2))  # dashes
_LINES = (  # axis, title, letters at both ends, whether it is drawn from high to low
    (0, "right to left", ("R", "L"), True),
    (1, "front to back", ("A", "P"), True),
    (2, "feet to head", ("I", "S"), False),
)


@dataclass(frozen=True, eq=False)
class DvhPair:
    """One structure's cumulative DVHs: percent of its volume at 0, 1, 2, ... steps of dose; 0 beyond the end."""

    reference: Sequence[float] | Float[np.ndarray, " reference"]
    prediction: Sequence[float] | Float[np.ndarray, " prediction"]


def dvh_figure(
    curves: Mapping[str, DvhPair], *, step_gy: float, targets_gy: Mapping[str, float], colors: Mapping[str, str]
) -> "Figure":
    """Draw the DVHs of all structures, the prediction as a line, the reference dashed.

    Args:
        curves: By structure.
        step_gy: Between the points of the curves.
        targets_gy: Prescribed doses, marked at the axis where the target is drawn.
        colors: By structure.
    """
    from matplotlib.lines import Line2D

    with house_style():
        figure = new_figure(9.9, 3.5)
        axes = figure.subplots()
        axes.set_title("Dose-volume histograms")
        axes.grid(axis="both")
        for name, pair in curves.items():
            for values, dashes, width in ((pair.reference, _REFERENCE, 1.3), (pair.prediction, "-", 1.7)):
                doses = np.arange(len(values)) * step_gy
                axes.plot(doses, values, color=colors[name], linestyle=dashes, linewidth=width, alpha=0.95)
        for name in curves:
            if name in targets_gy:
                axes.plot([targets_gy[name]], [0.0], marker="^", markersize=6, color=colors[name], clip_on=False)
        axes.set_xlim(0.0, max([step_gy, *(_end_gy(pair, step_gy) for pair in curves.values())]))
        axes.set_ylim(0.0, 103.0)
        axes.set_xlabel("dose (Gy); ▲ prescribed")
        axes.set_ylabel("volume (%)")
        handles = [Line2D([], [], color=colors[name], linewidth=2.2, label=name) for name in curves]
        handles += [
            Line2D([], [], color=INK, linewidth=1.7, label="prediction"),
            Line2D([], [], color=INK, linewidth=1.3, linestyle=_REFERENCE, label="reference"),
        ]
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=1.8, labelspacing=0.35)
    return figure


def _end_gy(pair: DvhPair, step_gy: float) -> float:
    """Return the dose up to which one of the curves is above 0."""
    last = max(int(np.flatnonzero(np.asarray(one) > 0.0)[-1]) if np.any(one) else 0 for one in _both(pair))
    return (last + 1) * step_gy


def _both(pair: DvhPair) -> tuple[Float[np.ndarray, " reference"], Float[np.ndarray, " prediction"]]:
    return np.asarray(pair.reference, np.float64), np.asarray(pair.prediction, np.float64)


def profile_figure(view: DoseView, *, colors: Mapping[str, str]) -> "Figure":
    """Draw both doses along the patient's three axes through the view's position; the target is shaded.

    Args:
        view: The case.
        colors: Of its structures.
    """
    with house_style():
        figure = new_figure(9.9, 2.7)
        panels = figure.subplots(1, 3, sharey=True)
        figure.suptitle(f"Dose along lines through the {view.center}", x=0.01, ha="left", fontsize=9.5, weight="bold")
        for axes, line in zip(panels, _LINES, strict=True):
            _draw_profile(axes, view, line, colors)
        panels[0].set_ylabel("dose (Gy)")
        panels[0].set_ylim(bottom=0.0)
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="upper right", ncol=len(names), handlelength=1.6)
    return figure


def _draw_profile(
    axes: "Axes", view: DoseView, line: tuple[int, str, tuple[str, str], bool], colors: Mapping[str, str]
) -> None:
    axis, title, (first, last), is_reversed = line
    where = view.world_mm(axis)
    axes.set_title(title, weight="normal", fontsize=8.5, color=MUTED, loc="center")
    axes.grid(axis="y")
    shown = view.box[axis]
    target = next(iter(view.targets), None)
    if target is not None:
        half = view.spacing_mm[axis] / 2
        for number, (low, high) in enumerate(_runs(view.inside_along(target, axis))):
            label = f"_{target}" if number else target  # once in the legend
            style: dict[str, Any] = {"color": colors[target], "alpha": 0.16, "linewidth": 0, "label": label}
            axes.axvspan(where[low] - half, where[high] + half, **style)
    prediction, reference = (view.along(dose, axis)[shown] for dose in (view.prediction_gy, view.reference_gy))
    axes.plot(where[shown], prediction, color=ACCENT, linewidth=1.7, label="prediction")
    axes.plot(where[shown], reference, color=INK, linewidth=1.3, linestyle=_REFERENCE, label="reference")
    ends = float(where[shown].min()), float(where[shown].max())
    axes.set_xlim(*(reversed(ends) if is_reversed else ends))
    axes.set_xlabel(f"{'xyz'[axis]} (mm)")
    for letter, place, side in ((first, 0.01, "left"), (last, 0.99, "right")):
        axes.text(place, 0.97, letter, transform=axes.transAxes, ha=side, va="top", color=MUTED, fontsize=8.5)


def _runs(inside: Bool[np.ndarray, " voxel"]) -> list[tuple[int, int]]:
    """Return the first and last index of every stretch that is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(np.int8), [0]])))
    return [(int(low), int(high) - 1) for low, high in zip(edges[::2], edges[1::2], strict=True)]

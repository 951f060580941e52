"""Methods side by side: what each scored, run by run, and how far each pair is apart on the same cases."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medexp.plots.theme import ACCENT, INK, LINE, MUTED, house_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW_IN = 0.36
_HEAD_IN = 0.85
_WIDTH_IN = 9.9
_LONGEST = 34  # letters of a name beside an axis


@dataclass(frozen=True)
class MethodRow:
    """One method: its mean with interval over cases, and the means of its runs as dots."""

    name: str
    mean: float
    low: float
    high: float
    runs: Sequence[float]


@dataclass(frozen=True)
class DifferenceRow:
    """One pair: mean difference with interval; `is_clear` fills its mark."""

    name: str
    mean: float
    low: float
    high: float
    is_clear: bool


@dataclass(frozen=True)
class ComparisonPanel:
    """One metric: methods, best first, and pairs. `better` is "higher" or "lower"."""

    title: str
    better: str
    methods: Sequence[MethodRow]
    differences: Sequence[DifferenceRow]


def comparison_figure(panels: Sequence[ComparisonPanel], *, note: str = "") -> "Figure":
    """Draw one row of two panels per metric: scores at the left, paired differences, if any, at the right.

    Args:
        panels: At least one.
        note: Said under the figure, for example on which cases the scores were measured.
    """
    rows = [max(len(panel.methods), len(panel.differences)) for panel in panels]
    heights = [_HEAD_IN + _ROW_IN * count for count in rows]
    with house_style():
        figure = new_figure(_WIDTH_IN, sum(heights) + (0.3 if note else 0.0))
        columns = 2 if any(panel.differences for panel in panels) else 1
        grid = figure.subplots(
            len(panels), columns, squeeze=False, gridspec_kw={"height_ratios": heights, "hspace": 0.12}
        )
        for axes, panel in zip(grid, panels, strict=True):
            _draw_methods(axes[0], panel)
            if columns == 2:
                _draw_differences(axes[1], panel)
        if note:
            figure.supxlabel(note, color=MUTED, fontsize=8.5, x=0.01, ha="left")
    return figure


def _draw_methods(axes: "Axes", panel: ComparisonPanel) -> None:
    axes.set_title(f"{panel.title} ({panel.better} is better)", parse_math=False)
    for row, method in enumerate(panel.methods):
        _draw_interval(axes, row, method.low, method.high)
        shown = [run for run in method.runs if math.isfinite(run)]
        axes.scatter(shown, _beside(row, len(shown)), s=16, color=ACCENT, alpha=0.7, linewidths=0, zorder=3)
        axes.plot([method.mean] * 2, [row - 0.28, row + 0.28], color=INK, linewidth=1.8, zorder=4)
    _finish(axes, [method.name for method in panel.methods])
    axes.set_xlabel("dots: runs (fold, seed); line and bar: mean over cases, interval over patients", loc="left")


def _draw_differences(axes: "Axes", panel: ComparisonPanel) -> None:
    axes.set_title("Paired difference", parse_math=False)
    axes.axvline(0.0, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
    for row, pair in enumerate(panel.differences):
        _draw_interval(axes, row, pair.low, pair.high)
        face = INK if pair.is_clear else "white"
        axes.scatter([pair.mean], [row], s=30, facecolors=face, edgecolors=INK, linewidths=1.3, zorder=4)
    _finish(axes, [pair.name for pair in panel.differences])
    axes.set_xlabel("first minus second; filled: clear after Holm's correction", loc="right")


def _draw_interval(axes: "Axes", row: int, low: float, high: float) -> None:
    if math.isfinite(low) and math.isfinite(high):
        axes.barh(row, high - low, left=low, height=0.3, color=LINE, zorder=2)


def _beside(row: int, number: int) -> np.ndarray:
    """Return heights that keep equal dots apart."""
    return row + (np.linspace(-0.16, 0.16, number) if number > 1 else np.zeros(number))


def _finish(axes: "Axes", names: Sequence[str]) -> None:
    short = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]
    axes.set_yticks(range(len(names)), short, color=INK, parse_math=False)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, pad=7)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.margins(x=0.06)
    axes.use_sticky_edges = False  # of bars, which would end where the axis does
    axes.autoscale_view()
    axes.locator_params(axis="x", nbins=5)

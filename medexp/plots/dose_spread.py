"""How the scores of doses spread over cases: a box plot for each structure, with every case as a dot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medexp.plots.theme import INK, LINE, MUTED, REGION_COLOR, house_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_IN = 9.9
_ROW_IN = 0.3
_LEAST_FOR_A_BOX = 3  # cases; quartiles of fewer say nothing


@dataclass(frozen=True)
class BoxPanel:
    """One score: its values by structure, in order. `highest` ends the axis where the score has an end."""

    title: str
    values: Mapping[str, Sequence[float]]
    highest: float | None = None


def box_plots(panels: Sequence[BoxPanel], *, colors: Mapping[str, str]) -> "Figure":
    """Draw one panel per score: quartiles, median, whiskers to the last case within 1.5 box lengths, and all cases.

    Values that are undefined are left out; where there are some, the number of drawn cases and of all stands beside.

    Args:
        panels: At least one.
        colors: By structure; other rows are drawn in the color of regions.
    """
    most = max(len(panel.values) for panel in panels)
    with house_style():
        figure = new_figure(_WIDTH_IN, _ROW_IN * most + 0.65)
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(all_axes, panels, strict=True):
            _draw(axes, panel, colors, rows=most)
    return figure


def _draw(axes: "Axes", panel: BoxPanel, colors: Mapping[str, str], *, rows: int) -> None:
    axes.set_title(panel.title, parse_math=False)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0, pad=6)
    axes.spines["left"].set_visible(False)
    for row, (name, column) in enumerate(panel.values.items()):
        values = np.asarray(column, np.float64)
        shown = values[np.isfinite(values)]
        if shown.size:
            _draw_row(axes, row, shown.tolist(), colors.get(name, REGION_COLOR))
        if shown.size < values.size:
            where = axes.get_yaxis_transform()
            text = f"{shown.size}/{values.size}"
            axes.text(1.01, row, text, transform=where, ha="left", va="center", color=MUTED, fontsize=7.5)
    axes.set_yticks(range(len(panel.values)), list(panel.values), color=INK, parse_math=False)
    axes.set_ylim(rows - 0.5, -0.5)
    _limit(axes, panel.highest)


def _draw_row(axes: "Axes", row: int, values: Sequence[float], color: str) -> None:
    if len(values) >= _LEAST_FOR_A_BOX:
        line: dict[str, Any] = {"color": MUTED, "linewidth": 0.9}
        axes.boxplot(
            [values], positions=[row], orientation="horizontal", widths=0.55, manage_ticks=False, showfliers=False,
            patch_artist=True, boxprops={"facecolor": LINE, "edgecolor": MUTED, "linewidth": 0.6}, whiskerprops=line,
            capprops=line, medianprops={"color": INK, "linewidth": 1.6}, zorder=1.5,
        )  # fmt: skip
    spread = np.linspace(-0.14, 0.14, len(values)) if len(values) > 1 else np.zeros(1)
    style: dict[str, Any] = {"s": 14, "color": color, "alpha": 0.85, "linewidths": 0, "zorder": 3, "clip_on": False}
    axes.scatter(values, row + spread, **style)


def _limit(axes: "Axes", highest: float | None) -> None:
    """Let the axis start at 0; a score with an end is drawn from where its cases are to that end."""
    low, high = axes.get_xlim()
    if highest is None:
        axes.set_xlim(0.0, max(high, 0.1))
    else:
        axes.set_xlim(min(max(0.0, low), 0.9 * highest), highest)
    axes.locator_params(axis="x", nbins=5)

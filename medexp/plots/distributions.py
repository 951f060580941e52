"""How a score spreads over cases: every case as a dot, quartiles and median behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from medexp.plots.theme import INK, LINE, MUTED, REGION_COLOR, house_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW_IN = 0.34
_BOX_HEIGHT = 0.5
_SPREAD = 0.17  # of the dots around their row


@dataclass(frozen=True)
class ScorePanel:
    """One score of all structures; undefined and infinite values are left out of the picture and counted.

    `limits` fix the axis, where the score has ends.
    """

    title: str
    values: Mapping[str, Sequence[float]]
    limits: tuple[float, float] | None = None


def score_strips(panels: Sequence[ScorePanel], *, colors: Mapping[str, str]) -> "Figure":
    """Draw panels side by side with one row per structure, in the order of the first panel.

    Where cases are undefined, the number of drawn ones and of all stands at the right.

    Args:
        panels: At least one; all of the same structures.
        colors: By structure; others are drawn in the color of regions.
    """
    names = list(panels[0].values)
    with house_style():
        figure = new_figure(3.1 * len(panels) + 0.6, _ROW_IN * len(names) + 0.75)
        all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(all_axes, panels, strict=True):
            _draw(axes, panel, names, colors)
        all_axes[0].set_yticks(range(len(names)), names, color=INK, parse_math=False)
        all_axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def _draw(axes: "Axes", panel: ScorePanel, names: Sequence[str], colors: Mapping[str, str]) -> None:
    axes.set_title(panel.title)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0, pad=9)
    axes.spines["left"].set_visible(False)
    for row, name in enumerate(names):
        values = np.asarray(panel.values[name], np.float64)
        shown = values[np.isfinite(values)]
        if shown.size:
            _draw_row(axes, row, shown, colors.get(name, REGION_COLOR))
        if shown.size < values.size:
            known = f"{shown.size}/{values.size}"
            where = axes.get_yaxis_transform()
            axes.text(1.03, row, known, transform=where, ha="left", va="center", color=MUTED, fontsize=7.5)
    axes.set_xlim(*(panel.limits or (0.0, max(1.0, axes.get_xlim()[1]))))


def _draw_row(axes: "Axes", row: int, values: Float64[np.ndarray, " case"], color: str) -> None:
    lower, median, upper = np.percentile(values, [25, 50, 75])
    axes.barh(row, upper - lower, left=lower, height=_BOX_HEIGHT, color=LINE, zorder=1)
    style: dict[str, Any] = {"s": _size(values.size), "color": color, "alpha": 0.75, "linewidths": 0}
    axes.scatter(values, row + _jitter(values.size), zorder=4, clip_on=False, **style)
    half = _BOX_HEIGHT / 2
    axes.plot([median, median], [row - half, row + half], color=INK, linewidth=1.6, zorder=3)


def _size(num_values: int) -> float:
    return float(np.clip(300.0 / max(num_values, 1), 5.0, 20.0))


def _jitter(num_values: int) -> Float64[np.ndarray, " case"]:
    """Return offsets that spread dots evenly and are the same each time (golden ratio sequence)."""
    return ((np.arange(num_values) * 0.6180339887498949) % 1.0 - 0.5) * 2.0 * _SPREAD if num_values > 1 else np.zeros(1)

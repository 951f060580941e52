"""How a training went: loss, validation scores and learning rate over epochs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medexp.plots.theme import ACCENT, INK, MUTED, REGION_COLOR, house_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Curve = tuple[Sequence[float], Sequence[float]]  # epochs, values

_SCORE = "val/dice/"
_DASHES: list[Any] = ["-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2))]


def training_curves(curves: Mapping[str, Curve], *, colors: Mapping[str, str], best_epoch: float | None) -> "Figure":
    """Draw one training stage in three panels.

    Args:
        curves: By metric name: `train/loss`, `val/loss`, `val/dice/<label>`, `val/dice/mean`, `lr`; others are ignored.
        colors: Of the labels; other structures are drawn in the color of regions.
        best_epoch: Marked with a line, if known.
    """
    with house_style():
        figure = new_figure(9.9, 2.3)
        loss, score, rate = figure.subplots(1, 3, sharex=True)
        _draw_losses(loss, curves)
        _draw_scores(score, curves, colors)
        _draw_rate(rate, curves)
        for axes in (loss, score, rate):
            axes.grid(axis="y")
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.margins(x=0.02)
        if best_epoch is not None:
            score.axvline(best_epoch, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    return figure


def _draw_losses(axes: "Axes", curves: Mapping[str, Curve]) -> None:
    axes.set_title("Loss")
    for name, color in (("train/loss", ACCENT), ("val/loss", MUTED)):
        if name in curves:
            _line(axes, curves[name], color=color, label=name.removesuffix("/loss"), linewidth=1.5)
    if axes.lines:
        axes.legend(loc="upper right", handlelength=1.2)


def _draw_scores(axes: "Axes", curves: Mapping[str, Curve], colors: Mapping[str, str]) -> None:
    axes.set_title("Validation Dice")
    names = [name for name in curves if name.startswith(_SCORE)]
    dashes = iter(_DASHES * len(names))
    for name in sorted(names, key=lambda name: name == f"{_SCORE}mean"):
        structure = name.removeprefix(_SCORE)
        is_mean = structure == "mean"
        color = INK if is_mean else colors.get(structure, REGION_COLOR)
        line = _line(axes, curves[name], color=color, label=structure, linewidth=2.0 if is_mean else 1.1)
        if color == REGION_COLOR:  # regions share a color
            line.set_linestyle(next(dashes))
    axes.set_ylim(0.0, 1.0)
    if axes.lines:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.0, labelspacing=0.25)


def _draw_rate(axes: "Axes", curves: Mapping[str, Curve]) -> None:
    axes.set_title("Learning rate")
    if "lr" in curves:
        _line(axes, curves["lr"], color=ACCENT, label="lr", linewidth=1.5)
        axes.set_ylim(bottom=0.0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.6g}")  # no power of ten above the axis


def _line(axes: "Axes", curve: Curve, *, color: str, label: str, linewidth: float) -> "Line2D":
    epochs, values = np.asarray(curve[0], np.float64), np.asarray(curve[1], np.float64)
    known = np.isfinite(values)
    marker = "o" if known.sum() < 12 else None
    # A label with a leading underscore would be left out of the legend.
    style: dict[str, Any] = {"color": color, "linewidth": linewidth, "marker": marker, "markersize": 2.5}
    return axes.plot(epochs[known], values[known], label=label.lstrip("_"), **style)[0]

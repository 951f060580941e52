"""How a training went: loss, validation scores and learning rate over epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from medexp.plots.overlays import LABEL_COLORS
from medexp.plots.theme import ACCENT, INK, MUTED, REGION_COLOR, house_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Curve = tuple[Sequence[float], Sequence[float]]  # epochs, values


@dataclass(frozen=True)
class _Score:
    """What a kind of model is validated by: its overall metric, and the beginning of those of its structures."""

    title: str
    overall: str
    beginning: str
    limits: tuple[float, float] | None = None

    def holds(self, name: str) -> bool:
        return name == self.overall or name.startswith(self.beginning)

    def label(self, name: str) -> str:
        return name.removeprefix(self.beginning) if name.startswith(self.beginning) else "all voxels"


_DICE = _Score("Validation Dice", "val/dice/mean", "val/dice/", (0.0, 1.0))
_DOSE = _Score("Validation MAE (Gy)", "val/mae_gy", "val/mae_gy/")
_TERM = "train/loss/"
_PANELS_IN = {3: 9.9, 4: 12.4}
_DASHES: list[Any] = ["-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2))]


def training_curves(curves: Mapping[str, Curve], *, colors: Mapping[str, str], best_epoch: float | None) -> "Figure":
    """Draw one training stage in three panels: loss, validation score, learning rate; a fourth for terms of the loss.

    Args:
        curves: By metric name: `train/loss`, `val/loss`, `train/loss/<term>`, `lr`, and `val/dice/<label>` with
            `val/dice/mean`, or `val/mae_gy` with `val/mae_gy/<structure>`; others are ignored.
        colors: Of the labels; other structures are drawn in the color of regions.
        best_epoch: Marked with a line, if known.
    """
    terms = [name for name in curves if name.startswith(_TERM)]
    count = 4 if terms else 3
    with house_style():
        figure = new_figure(_PANELS_IN[count], 2.3)
        panels = figure.subplots(1, count, sharex=True)
        loss, score, rate = panels[:3]
        _draw_losses(loss, curves)
        _draw_scores(score, curves, colors)
        _draw_rate(rate, curves)
        if terms:
            _draw_terms(panels[3], {name.removeprefix(_TERM): curves[name] for name in terms})
        for axes in panels:
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
    shown = _DOSE if any(map(_DOSE.holds, curves)) else _DICE
    axes.set_title(shown.title)
    dashes = iter(_DASHES * len(curves))
    for name in sorted(filter(shown.holds, curves), key=lambda name: name == shown.overall):
        is_overall = name == shown.overall
        color = INK if is_overall else colors.get(shown.label(name), REGION_COLOR)
        line = _line(axes, curves[name], color=color, label=shown.label(name), linewidth=2.0 if is_overall else 1.1)
        if color == REGION_COLOR:  # regions share a color
            line.set_linestyle(next(dashes))
    if shown.limits:
        axes.set_ylim(*shown.limits)
    else:
        axes.set_ylim(bottom=0.0)
    if axes.lines:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.0, labelspacing=0.25)


def _draw_terms(axes: "Axes", terms: Mapping[str, Curve]) -> None:
    """Draw the terms that a loss is made of, each as it was logged."""
    axes.set_title("Terms of the loss")
    for (name, curve), color in zip(terms.items(), cycle(LABEL_COLORS), strict=False):
        _line(axes, curve, color=color, label=name, linewidth=1.2)
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

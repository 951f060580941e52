"""Sizes, shapes and numbers of objects as figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from medexp.plots.theme import ACCENT, INK, LINE, MUTED, house_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BINS = 30
_WIDE = 50.0  # largest over smallest value, from which bins grow with the value
# Measure, the same in micrometers, and titles for both.
_DRAWN = (
    ("area", "area_um2", "Area (px)", "Area (µm²)"),
    ("equivalent_diameter", "equivalent_diameter_um", "Diameter (px)", "Diameter (µm)"),
    ("circularity", "circularity", "Circularity", "Circularity"),
)


@dataclass(frozen=True)
class Measure:
    """One measure of all objects; `reference` is None where there is no reference."""

    title: str
    predicted: Sequence[float]
    reference: Sequence[float] | None


def size_and_shape(
    predicted: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]] | None
) -> list[Measure]:
    """Return area, diameter and circularity of tables of objects; in micrometers where every pixel size is known.

    Cells may be numbers or their text; an empty one is undefined.
    """
    everything = [*predicted, *(reference or ())]
    in_um = bool(everything) and all(row["area_um2"] not in (None, "") for row in everything)

    def values(rows: Sequence[Mapping[str, Any]], column: str) -> list[float]:
        return [float("nan") if row[column] in (None, "") else float(row[column]) for row in rows]

    measures = []
    for name, name_um, title, title_um in _DRAWN:
        column = name_um if in_um else name
        other = None if reference is None else values(reference, column)
        measures.append(Measure(title_um if in_um else title, values(predicted, column), other))
    return measures


def object_figure(measures: Sequence[Measure], counts: Mapping[str, tuple[int, int]] | None) -> "Figure":
    """Draw a histogram per measure, and the number of predicted against that of reference objects.

    Bars are the prediction, the line is the reference; values that are not finite are left out.

    Args:
        measures: At least one.
        counts: (predicted, reference) by image; None: no such panel.
    """
    number = len(measures) + (counts is not None)
    with house_style():
        figure = new_figure(2.7 * number + 0.4, 2.5)
        axes = figure.subplots(1, number, squeeze=False)[0]
        for place, measure in zip(axes, measures, strict=False):
            _histogram(place, measure)
        if measures[0].reference is not None and axes[0].get_legend_handles_labels()[0]:
            axes[0].legend(loc="upper right", handlelength=1.2)
        if counts is not None:
            _agreement(axes[-1], counts)
    return figure


def _histogram(axes: "Axes", measure: Measure) -> None:
    axes.set_title(measure.title)
    axes.grid(axis="y")
    predicted, reference = _finite(measure.predicted), _finite(measure.reference or ())
    both = np.concatenate([predicted, reference])
    if both.size == 0:
        axes.text(0.5, 0.5, "no object", transform=axes.transAxes, ha="center", va="center", color=MUTED)
        return
    is_wide = both.min() > 0.0 and both.max() > _WIDE * both.min()
    edges = np.geomspace(both.min(), both.max(), _BINS + 1) if is_wide else np.histogram_bin_edges(both, bins=_BINS)
    if is_wide:
        edges[[0, -1]] = both.min(), both.max()  # nothing is lost to rounding
        axes.set_xscale("log")
    axes.hist(predicted, edges.tolist(), color=ACCENT, alpha=0.75, label="prediction")
    if measure.reference is not None:
        axes.stairs(np.histogram(reference, edges)[0], edges, color=INK, linewidth=1.2, label="reference")
    axes.set_ylabel("objects")


def _agreement(axes: "Axes", counts: Mapping[str, tuple[int, int]]) -> None:
    axes.set_title("Objects per image")
    axes.grid()
    predicted, reference = (np.array([pair[side] for pair in counts.values()], np.float64) for side in (0, 1))
    end = max(1.0, predicted.max(initial=0.0), reference.max(initial=0.0)) * 1.06
    axes.plot([0.0, end], [0.0, end], color=LINE, linewidth=1.2, zorder=1)
    axes.scatter(reference, predicted, s=18, color=ACCENT, alpha=0.75, linewidths=0, zorder=3)
    axes.set_xlim(0.0, end)
    axes.set_ylim(0.0, end)
    axes.set_xlabel("reference")
    axes.set_ylabel("prediction")


def _finite(values: Sequence[float]) -> Float64[np.ndarray, " object"]:
    array = np.asarray(values, np.float64)
    return array[np.isfinite(array)]

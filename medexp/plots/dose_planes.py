"""Three planes of a case side by side, row by row, with outlines of its structures, a scale and a legend."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8

from medexp.plots.dose_colors import gray_of_ct
from medexp.plots.dose_view import CUTS, Cut, DoseView
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
_LETTER = "#e6eaee"

Painter: TypeAlias = Callable[[Cut, Float32[np.ndarray, "row column"]], UInt8[np.ndarray, "row column 3"]]


@dataclass(frozen=True)
class Scale:
    """The scale beside the planes; `ends` says whether values go on beyond: "min", "max", "both", "neither"."""

    colors: "ListedColormap"
    lowest: float
    highest: float
    label: str
    ends: str
    ticks: Sequence[float] | None = None


Box: TypeAlias = tuple[float, float, float, float]  # left, bottom, width, height


@dataclass(frozen=True)
class _Layout:
    """Where things stand: `shapes` are width over height of the planes, all panels have one height."""

    shapes: tuple[float, ...]
    num_rows: int
    num_lines: int  # of the legend

    @property
    def height_in(self) -> float:
        """Of a plane."""
        room = _WIDTH_IN - _LEFT_IN - _RIGHT_IN - _GAP_IN * (len(self.shapes) - 1)
        return min(room / sum(self.shapes), _HIGHEST_IN)

    @property
    def total_in(self) -> float:
        """Height of the figure."""
        below = _GAP_IN + _LEGEND_IN * self.num_lines
        return self._top_in + self.num_rows * (self.height_in + _GAP_IN) - _GAP_IN + below

    @property
    def _top_in(self) -> float:
        return _TITLE_IN + _TOP_IN

    def plane(self, row: int, column: int) -> Box:
        """Return the box of a plane, as shares of the figure."""
        left = _LEFT_IN + sum(shape * self.height_in + _GAP_IN for shape in self.shapes[:column])
        top = self._top_in + row * (self.height_in + _GAP_IN)
        return self._box(left, top, self.shapes[column] * self.height_in, self.height_in)

    def scale(self) -> Box:
        """Return the box of the scale, beside all rows."""
        left = _LEFT_IN + sum(shape * self.height_in + _GAP_IN for shape in self.shapes) - _GAP_IN + _BAR_IN[0]
        return self._box(left, self._top_in, _BAR_IN[1], self.num_rows * (self.height_in + _GAP_IN) - _GAP_IN)

    def _box(self, left: float, top: float, width: float, height: float) -> Box:
        total = self.total_in
        return left / _WIDTH_IN, 1.0 - (top + height) / total, width / _WIDTH_IN, height / total


def draw_planes(
    view: DoseView, rows: Mapping[str, Painter], scale: Scale, colors: Mapping[str, str], *, title: str
) -> "Figure":
    """Draw planes side by side in one row per painter; all panels have one height, and true proportions.

    Args:
        view: The case.
        rows: What makes a plane's colors of its place and of the CT's gray, by the name that stands beside the row.
        scale: Of the colors.
        colors: Of the structures.
        title: Stands above.
    """
    seen = [name for name in view.structures if any(_crosses(view, name, cut) for cut in CUTS)]
    shapes = tuple(view.size_mm(cut)[0] / view.size_mm(cut)[1] for cut in CUTS)
    layout = _Layout(shapes, len(rows), -(-len(seen) // _PER_LINE))
    with house_style():
        figure = new_figure(_WIDTH_IN, layout.total_in)
        figure.set_layout_engine("none")  # places are given, in inches
        place: Any = {"ha": "left", "va": "top", "parse_math": False}
        figure.text(_LEFT_IN / _WIDTH_IN, 1.0 - 0.04 / layout.total_in, title, weight="bold", fontsize=9.5, **place)
        for column, cut in enumerate(CUTS):
            gray = gray_of_ct(view.slice_of(view.ct_hu, cut))
            for row, (name, painted) in enumerate(rows.items()):
                axes = figure.add_axes(layout.plane(row, column))
                _draw_plane(axes, view, cut, painted(cut, gray), colors)
                _name(axes, plane=view.title(cut) if row == 0 else "", row=name if column == 0 < len(rows) - 1 else "")
        _draw_scale(figure.add_axes(layout.scale()), scale)
        _draw_legend(figure, seen, colors, bottom=0.02 / layout.total_in)
    return figure


def _name(axes: "Axes", *, plane: str, row: str) -> None:
    axes.set_title(plane, fontsize=8.5, weight="normal", color=MUTED, pad=3, loc="center")
    axes.set_ylabel(row, color=INK, fontsize=9, labelpad=4)


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
    for name in sorted(view.structures, key=lambda name: view.targets.get(name, 0.0)):  # the highest target on top
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
        axes.plot(points[:, 0], points[:, 1], color="black", linewidth=2.4, alpha=0.6, solid_joinstyle="round")
        axes.plot(points[:, 0], points[:, 1], color=color, linewidth=1.4, solid_joinstyle="round")


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

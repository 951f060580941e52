"""How figures look, and how they become part of a page that is read in a light or a dark window.

A figure is drawn with a few ink colors that stand for roles (`INK`, `MUTED`, `LINE`, `ACCENT`). In a page they
become CSS variables, so that the page decides what ink is; saved as PNG they are what they are.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexp.plots.overlays import LABEL_COLORS
from medexp.runs.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, LINE, ACCENT = "#1b1f24", "#6e7781", "#d8dee4", "#3b6ea5"
_ROLES = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", ACCENT: "var(--accent)"}

REGION_COLOR = MUTED

_DIGITS = re.compile(r"(?<=\d\.\d{2})\d+")  # beyond hundredths of a point

_STYLE: Any = {  # matplotlib types its keys one by one
    "svg.fonttype": "none",
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def colors_of(labels: Mapping[str, int]) -> dict[str, str]:
    """Return each label's color by name; colors repeat after the last."""
    return {name: LABEL_COLORS[(value - 1) % len(LABEL_COLORS)] for name, value in labels.items()}


@contextmanager
def house_style() -> "Iterator[None]":
    """Draw in the house style; figures need no display and leave no state behind."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width_in: float, height_in: float) -> "Figure":
    """Return an empty figure that no window manager knows of; call it within `house_style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def inline_svg(figure: "Figure", *, name: str, description: str) -> str:
    """Return a figure as an SVG element for a page: roles as variables, the page's font, no address in it.

    Args:
        figure: Drawn in the house style.
        name: Plain letters; keeps the element's inner names apart from those of other figures.
        description: What a reader who cannot see it is told; it is escaped.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_a_page(buffer.getvalue(), description)


def save_png(figure: "Figure", path: Path, *, dots_per_inch: int = 200) -> None:
    """Write a figure as a picture for papers and slides: on white, each file whole or not at all."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dots_per_inch, facecolor="white")


def _for_a_page(document: str, description: str) -> str:
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)  # HTML knows these by itself
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # the same in every figure; only definitions are referred to
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)  # the page's
    svg = re.sub(r' (?:d|x|y|transform)="(?!matrix)[^"]*"', lambda match: _DIGITS.sub("", match.group()), svg)
    svg = svg.replace("xlink:href", "href").replace('\n"', '"')
    for color, variable in _ROLES.items():
        svg = svg.replace(color, variable)
    box = re.search(r'viewBox="([^"]*)"', svg)
    view = box.group(1) if box else ""
    opening = f'<svg class="figure" role="img" aria-label="{escape(description)}" viewBox="{view}">'
    return re.sub(r"^<svg[^>]*>", lambda _: opening, svg, count=1)

"""HTML pages that need no network, no other file and no script: templates of this package, everything escaped."""

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

NONE = "–"


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a page from a template of this package.

    Every value is escaped; only what comes as `markupsafe.Markup` is put in as it is. A name that the template
    uses and `values` lacks is an error.
    """
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "score": score,
        "distance": distance,
        "milliliters": milliliters,
        "gray": gray,
        "percent": percent,
    }
    return environment


def score(value: float | None) -> str:
    """Return a share with three decimals; a dash where it is undefined."""
    return NONE if value is None or math.isnan(value) else f"{value:.3f}"


def distance(value: float | None) -> str:
    """Return millimeters with one decimal; a dash where it is undefined, the sign where it is infinite."""
    if value is None or math.isnan(value):
        return NONE
    return "∞" if math.isinf(value) else f"{value:.1f}"


def gray(value: float | None) -> str:
    """Return a dose in Gy with two decimals; a dash where it is undefined."""
    return NONE if value is None or math.isnan(value) else f"{value:.2f}".replace("-", "−")


def percent(value: float | None) -> str:
    """Return percent with one decimal; a dash where it is undefined. Just below 100 does not become 100."""
    if value is None or math.isnan(value):
        return NONE
    return f"{math.floor(100 * value) / 100:.2f}" if 99.95 <= value < 100 else f"{value:.1f}"


def milliliters(value_mm3: float | None) -> str:
    """Return a volume in ml, with enough decimals to tell a small lesion from none."""
    if value_mm3 is None or math.isnan(value_mm3):
        return NONE
    volume = value_mm3 / 1000.0
    return f"{volume:.1f}" if volume >= 1.0 or volume == 0.0 else f"{volume:.2g}"

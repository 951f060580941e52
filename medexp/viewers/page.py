"""The page of a review: one file of HTML with its script and style, nothing from elsewhere."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment


def review_page(names: Sequence[str], *, title: str, interval_s: float, alpha: float, token: str, nonce: str) -> str:
    """Return the page.

    Args:
        names: Of the slides; whatever they hold, they are shown as text.
        title: Of the page.
        interval_s: How long a slide stays.
        alpha: Opacity of the masks.
        token: What the page sends with every change.
        nonce: Marks the page's own script and style; no other may run.
    """
    settings = {"names": list(names), "intervalMs": round(1000 * interval_s), "alpha": alpha, "token": token}
    values = {"title": title, "settings": _as_script(settings), "alpha": alpha, "nonce": nonce}
    return _environment().get_template("review.html.j2").render(values)


def _as_script(value: object) -> Markup:
    """Return JSON that cannot end the script element that it stands in."""
    text = json.dumps(value)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # escaped above


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)

"""Ranges that an annotation states beside its type: `Annotated[int, ">= 1"]`, read as text."""

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_LIMIT = re.compile(r"(>=|<=|>|<) (-?\d+(?:\.\d+)?)")
_HOLDS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def limits_of(annotation: ast.Subscript) -> list[str]:
    """Return the limits of an `Annotated`, as they are written."""
    items = annotation.slice.elts[1:] if isinstance(annotation.slice, ast.Tuple) else []
    texts = [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return [text for text in texts if _LIMIT.fullmatch(text)]


def within(value: object, limits: Sequence[str]) -> bool:
    """Return whether a number keeps all limits; anything else has none to keep, and NaN keeps none."""
    if not isinstance(value, int | float):
        return True
    parts = [_LIMIT.fullmatch(limit) for limit in limits]
    return all(_HOLDS[part[1]](value, float(part[2])) for part in parts if part is not None)

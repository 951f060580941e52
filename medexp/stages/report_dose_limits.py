"""The protocol's limits in a report of doses: in words, for every case and over all of them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from medexp.io.tables import number
from medexp.metrics.dose_scores import PREDICTION, REFERENCE
from medexp.plots.pages import NONE, gray, percent

OUTCOMES = ("passed", "violated", "missing")
_WORDS = {"passed": "✓ pass", "violated": "✗ violation", "missing": "– missing"}
_UNITS = {"percent": "%", "cc": "cc", "gy": "Gy"}

Row = Mapping[str, str]


def limit_in_words(row: Row) -> str:
    """Return a limit as it is written in a protocol, such as "V60Gy ≤ 25 %" or "Dmax ≤ 74.9 Gy"."""
    metric, unit = row["limit"].rsplit("_", 1)
    sign = {"<=": "≤", ">=": "≥"}[row["comparison"]]
    name = "Dmax" if metric == "dmax" else f"V{metric.removeprefix('v').removesuffix('gy')}Gy"
    without = row["region"].split(" - ")[1:]
    outside = f" outside {' and '.join(without)}" if without else ""
    return f"{name} {sign} {float(row['bound']):g} {_UNITS[unit]}{outside}"


def limits_of_case(rows: Sequence[Row], colors: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the limits of one case with what prediction and reference make of them; None where none are known."""
    sides: dict[str, dict[tuple[str, str], Row]] = {side: {} for side in (PREDICTION, REFERENCE)}
    for row in rows:
        sides[row["dose"]][row["structure"], row["limit"]] = row
    if not sides[PREDICTION]:
        return None
    shown = [
        {
            "structure": row["structure"],
            "color": colors.get(row["structure"], ""),
            "limit": limit_in_words(row),
            "cells": [_cell(row), _cell(sides[REFERENCE].get(key))],
        }
        for key, row in sides[PREDICTION].items()
    ]
    counts = Counter(row["outcome"] for row in sides[PREDICTION].values())
    return {"rows": shown, "summary": counted(counts), "counts": {name: counts[name] for name in OUTCOMES}}


def counted(counts: Mapping[str, int]) -> str:
    """Return how many limits are kept, violated and missing, in words."""
    return f"{counts['passed']} passed · {counts['violated']} violated · {counts['missing']} missing"


def _cell(row: Row | None) -> dict[str, str]:
    if row is None:
        return {"value": NONE, "outcome": "missing", "word": _WORDS["missing"]}
    unit = row["limit"].rsplit("_", 1)[1]
    value = number(row["value"])
    text = gray(value) if unit == "gy" else percent(value)
    return {"value": text, "outcome": row["outcome"], "word": _WORDS[row["outcome"]]}


def limits_over_cases(rows: Sequence[Row], colors: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return every limit with the number of cases that keep, violate and lack it, on both sides."""
    found: defaultdict[tuple[str, str], Counter[tuple[str, str]]] = defaultdict(Counter)
    for row in rows:
        found[row["structure"], limit_in_words(row)][row["dose"], row["outcome"]] += 1
    return [
        {
            "structure": structure,
            "color": colors.get(structure, ""),
            "limit": limit,
            "cells": [
                _count(counts[side, outcome], outcome) for side in (PREDICTION, REFERENCE) for outcome in OUTCOMES
            ],
        }
        for (structure, limit), counts in found.items()
    ]


def _count(cases: int, outcome: str) -> dict[str, str]:
    return {"text": str(cases), "outcome": outcome if cases else "none"}

"""What is known of every run in a few words: state, dataset, model, stage, fold, seed, score, age, folder."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medexp.errors import ManifestError
from medexp.runs.filters import Filters
from medexp.runs.identity import short
from medexp.runs.ledger import STATES, Run
from medexp.runs.sweep_records import sweeps_by_run

COLUMNS = ("state", "dataset", "model", "stage", "fold", "seed", "score", "age", "folder")
UNREADABLE = "unreadable"

_RIGHT = frozenset({"score", "age"})
_COLORS = {"finished": "32", "running": "36", "interrupted": "33", "skipped": "33", "failed": "1;31", UNREADABLE: "31"}
_AGES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def listed(output_dir: Path, filters: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the facts of the runs below `output_dir` that match the filters, newest first.

    A run that says `running` while no live process holds its lock is `interrupted`. A folder whose record cannot
    be read is listed, not passed over.

    Raises:
        ConfigurationError: A filter's key or value does not exist; the nearest one is named.
    """
    sweeps = sweeps_by_run(output_dir)
    facts = [facts_of(path.parent, output_dir) for path in output_dir.glob("*/*/run.json")]
    for one in facts:
        one["sweep"] = sweeps.get(str(one["folder"]), [])
    facts.sort(key=lambda one: (str(one["created"]), str(one["folder"])), reverse=True)
    known = {"state": (*STATES, UNREADABLE)}
    places = Filters.parse(filters, where="filter").matching(facts, where="filter", known=known)
    return [facts[place] for place in places]


def facts_of(folder: Path, output_dir: Path) -> dict[str, Any]:
    """Return what is known of the run in `folder`; what does not apply to it is None."""
    where = folder.relative_to(output_dir).as_posix()
    try:
        run = Run.read(folder)
        state, details, result = run.state, run.read_state(), run.result
    except ManifestError as error:
        nothing = dict.fromkeys(("model", "stage", "fold", "seed", "score", "age_s", "run", "name"))
        empty = {"dataset": folder.parent.name, "tag": [], "created": "", "folder": where, "reason": str(error)}
        return {"state": UNREADABLE, **nothing, **empty}
    record = run.record
    tags = record.get("tags") or {}
    time = details.get("time") or record.get("created")
    return {
        "state": state,
        "dataset": record["dataset"],
        "model": tags.get("model"),
        "stage": record["stage"],
        "fold": tags.get("fold"),
        "seed": tags.get("seed"),
        "score": result.get("objective"),
        "age_s": _age_s(time),
        "folder": where,
        "name": folder.name,
        "run": short(run.identity),
        "tag": list(record.get("user_tags") or ()),
        "created": record.get("created", ""),
        "reason": details.get("reason"),
    }


def _age_s(time: str | None) -> float | None:
    """Return the seconds since a run last changed its state; None where that is not recorded."""
    return (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds() if time else None


def lines_of(facts: Sequence[Mapping[str, Any]], *, colored: bool) -> list[str]:
    """Return the table as lines of text, with a heading; tags and why a run failed follow the folder."""
    rows = [[_cell(one, name) for name in COLUMNS] for one in facts]
    widths = [max(len(row[column]) for row in [list(COLUMNS), *rows]) for column in range(len(COLUMNS))]
    lines = [_line(COLUMNS, widths)]
    for row in rows:
        text = _line(row, widths)
        if colored:
            text = f"\033[{_COLORS.get(row[0], '0')}m{text[: widths[0]]}\033[0m{text[widths[0] :]}"
        lines.append(text)
    return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if name in _RIGHT else cell.ljust(width)
        for name, cell, width in zip(COLUMNS, cells, widths, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _cell(facts: Mapping[str, Any], name: str) -> str:
    if name == "score":
        return "" if facts["score"] is None else f"{facts['score']:.4f}"
    if name == "age":
        return _age(facts["age_s"])
    if name == "folder":
        return _place(facts)
    return "" if facts[name] is None else str(facts[name])


def _place(facts: Mapping[str, Any]) -> str:
    tags = "".join(f" #{tag}" for tag in facts["tag"])
    reason = str(facts["reason"] or "").partition("\n")[0]
    return f"{facts['folder']}{tags}{f' ({reason[:100]})' if reason else ''}"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit_s, unit in _AGES:
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"

"""Runs of the ledger chosen by what they are, for a stage that starts from whatever has been evaluated."""

import fnmatch
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medexp.errors import UpstreamMissingError
from medexp.runs.filters import Filters
from medexp.runs.identity import flatten
from medexp.runs.ledger import Run
from medexp.runs.sweep_records import sweeps_by_run

# Of what a stage receives, these arguments are dataset or model keys under another name.
_KEYS = {"datamodule": "dataset", "window": "predict"}
# What a stage receives for its own use; what training, cases and scores depend on is described by other stages.
_LEFT_OUT: Mapping[str, frozenset[str]] = {
    "prepare": frozenset({"store", "skip_bad_cases", "nnunet", "num_workers"}),
    "predict": frozenset({"datamodule", "model", "fold", "accelerator", "num_workers", "save_probabilities"}),
    "evaluate": frozenset({"num_workers"}),
}
_TRAINING = frozenset({"fold", "seed", "num_workers", "curriculum"})
_UNKNOWN = "-"  # what recipes write in place of keys that decide nothing


@dataclass(frozen=True)
class Choice:
    """Finished runs of a stage that match filters (see `medexp.runs.filters`); `key` names these in messages."""

    stage: str
    filters: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class Described:
    """A run with everything behind it, and what that comes to as dotted keys."""

    run: Run
    lineage: Sequence[Run]
    facts: Mapping[str, Any]


def chosen(choice: Choice, runs: Sequence[Run], output_dir: Path) -> list[Run]:
    """Return the newest finished attempts that `choice` asks for, in the order of their folders' names.

    Args:
        choice: What is asked for.
        runs: Every recorded run.
        output_dir: Where they lie; its sweeps' records say which sweeps they belong to.

    Raises:
        UpstreamMissingError: There are none.
        ConfigurationError: A filter's key or value is nowhere to be found.
    """
    by_folder = {os.path.normpath(run.folder): run for run in runs}
    newest: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: str(run.record["created"])):
        if run.record["stage"] == choice.stage and run.state == "finished":
            newest[run.identity] = run
    sweeps = sweeps_by_run(output_dir)
    described = [
        describe(run, by_folder, sweeps.get(os.path.relpath(run.folder, output_dir), ()))
        for run in sorted(newest.values(), key=lambda run: run.folder.name)
    ]
    filters = Filters.parse(choice.filters, where=choice.key)
    names = filters.wanted.get("run", ())
    others = Filters({key: values for key, values in filters.wanted.items() if key != "run"})
    places = others.matching([one.facts for one in described], where=choice.key)
    found = [described[place].run for place in places if not names or _is_named(described[place], names)]
    if not found:
        there = f"{len(described)} others: {_named(described)}" if described else "none at all"
        raise UpstreamMissingError(
            f"{choice.key}: expected finished runs of stage={choice.stage} with {' '.join(choice.filters) or 'any'}, "
            f"found {there}\nList them with\n  python -m medexp.runs stage={choice.stage}"
        )
    return found


def _named(described: Sequence[Described]) -> str:
    names = [one.run.folder.name for one in described]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _is_named(described: Described, names: Sequence[str]) -> bool:
    """Say whether one of the names is the run's or that of a run behind it: identity, its beginning, or folder."""
    return any(
        run.identity.startswith(name) or fnmatch.fnmatchcase(run.folder.name, name)
        for name in names
        for run in described.lineage
    )


def describe(run: Run, by_folder: Mapping[str, Run] | None = None, sweeps: Sequence[str] = ()) -> Described:
    """Return what a run comes from.

    The facts are `dataset`, `model`, `stage` (the training stage that made the model; absent for foreign
    predictions), `fold` and `seed` (of several models joined by commas), `ensemble` (how many models predicted a
    case), `tag`, `name`,
    `sweep`, and the configuration that decided the result, under the keys of the command line.
    """
    lineage = list(_lineage(run, by_folder or {}))
    trained = [one for one in lineage if _is_training(one)]
    last = [one for one in trained if one.record["stage"] == trained[0].record["stage"]]
    tags = dict(run.record.get("tags") or {})
    facts: dict[str, Any] = dict(_settings(lineage))
    facts |= {
        "dataset": run.record["dataset"],
        "model": tags.get("model"),
        "stage": last[0].record["stage"] if last else None,
        "fold": _joined(last, "fold"),
        "seed": _joined(last, "seed"),
        "ensemble": 1 if _is_out_of_fold(lineage) else len(last),
        "tag": list(run.record.get("user_tags") or ()),
        "name": run.folder.name,
        "sweep": list(sweeps),
    }
    return Described(run, lineage, facts)


def _is_out_of_fold(lineage: Sequence[Run]) -> bool:
    """Say whether each case was predicted by one of the models, the one that had not seen it."""
    return any((run.record.get("received") or {}).get("source") == "out_of_fold" for run in lineage)


def _is_training(run: Run) -> bool:
    return str(run.record["stage"]).isdigit()


def _joined(trained: Sequence[Run], key: str) -> str | None:
    values = {str(run.record["tags"][key]) for run in trained if key in (run.record.get("tags") or {})}
    return ",".join(sorted(values, key=lambda text: (len(text), text))) or None


def _lineage(run: Run, by_folder: Mapping[str, Run]) -> Iterator[Run]:
    """Yield a run and everything behind it, nearest first, each once; what was deleted since is passed over."""
    seen: set[str] = set()
    pending = [run]
    while pending:
        one = pending.pop(0)
        place = os.path.normpath(one.folder)
        if place in seen:
            continue
        seen.add(place)
        yield one
        for relative in (path for paths in one.record.get("upstream", {}).values() for path in paths):
            folder = os.path.normpath(one.folder / relative)
            if folder in by_folder:
                pending.append(by_folder[folder])
            elif (Path(folder) / "run.json").exists():
                pending.append(Run.read(Path(folder)))


def _settings(lineage: Sequence[Run]) -> dict[str, Any]:
    """Return what decided a result, keyed as on the command line; where two stages differ, the later one's counts.

    The earlier one's value then stands under its stage, for example `stage 1: model.loss.smooth`.
    """
    found: dict[str, Any] = {}
    for run in lineage:
        stage = str(run.record["stage"])
        for key, value in _received(run, stage):
            if found.setdefault(key, value) != value:
                found[f"stage {stage}: {key}"] = value
    return found


def _received(run: Run, stage: str) -> Iterator[tuple[str, Any]]:
    left_out = _TRAINING if stage.isdigit() else _LEFT_OUT.get(stage, frozenset())
    for name, value in (run.record.get("received") or {}).items():
        if name in left_out or name.startswith("_"):
            continue
        head = _KEYS.get(name, name if name in {"model", "trainer", "callbacks"} else f"{stage}.{name}")
        for key, leaf in flatten(value, head).items():
            if leaf != _UNKNOWN and not key.endswith("._partial_"):
                yield key, tuple(leaf) if isinstance(leaf, list) else leaf

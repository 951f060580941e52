"""Which recorded run a command addresses, and which runs it starts from."""

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from medexp.errors import ResumeError, UpstreamMissingError
from medexp.runs.choice import Choice, chosen
from medexp.runs.files import sha256_of, write_json
from medexp.runs.identity import difference, identity_of, listing_digest, short
from medexp.runs.ledger import Run, now
from medexp.runs.provenance import code_version, git_state, machine, versions

log = logging.getLogger(__name__)

Resume = Literal["auto", "require", "never"]
_MOST_SHOWN = 3  # keys of a run that is almost the one asked for
_RUN_ID = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Recipe:
    """What a composed command asks for, before any data is looked at.

    `received` is the part of the stage's arguments that decides the result. `inputs` are groups of raw files
    and folders whose listing counts; which group a file is in counts as well.
    `upstream` are the recipes of the stages that this one starts from, `chosen` the recorded runs that it looks for.
    `places` say where else the stage writes, which decides no result; None is content with any place.
    `tags` say in a few words which run it is: stage, dataset and, where they matter, model, fold, seed.
    `user_tags` are words to find the run by; they do not decide which run it is. `reopens` says that a finished run
    is opened again instead of reused: somebody sits before it.
    """

    stage: str
    dataset: str
    label: str
    received: Mapping[str, Any]
    config: Mapping[str, Any]
    overrides: tuple[str, ...]
    inputs: tuple[tuple[str, ...], ...] = ()
    tags: Mapping[str, Any] = field(default_factory=dict)
    upstream: Mapping[str, tuple["Recipe", ...]] = field(default_factory=dict)
    places: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, Choice] = field(default_factory=dict)
    user_tags: tuple[str, ...] = ()
    reopens: bool = False

    @cached_property
    def key(self) -> str:
        """Return a hash that equal jobs of a sweep share; known before any of them has run."""
        upstream = {name: [recipe.key for recipe in recipes] for name, recipes in self.upstream.items()}
        upstream |= {name: [choice.stage, *choice.filters] for name, choice in self.chosen.items()}
        return identity_of(
            {"stage": self.stage, "received": self.received, "inputs": self.inputs, "upstream": upstream}
        )

    @property
    def command(self) -> str:
        """Return the single-run command line."""
        return command_line(self.overrides)


def command_line(overrides: Iterable[str], *flags: str) -> str:
    """Return the command with overrides as a shell needs them."""
    quoted = [f"'{text}'" if any(char in text for char in ' ;$(){}[]*?|&<>"') else text for text in overrides]
    return " ".join(["python -m medexp.run", *flags, *quoted])


class Action(Enum):
    """What is to be done with the run that a command addresses."""

    START = "start"
    CONTINUE = "continue"
    REUSE = "reuse"


@dataclass(frozen=True)
class Addressed:
    """A recipe with its identity and the finished runs that it starts from."""

    recipe: Recipe
    identity: str
    upstream: Mapping[str, list[Run]]

    def folder(self, output_dir: Path) -> Path:
        """Return the folder of the first attempt."""
        return output_dir / self.recipe.dataset / f"{self.recipe.label}-{short(self.identity)}"

    def inputs(self) -> dict[str, list[dict[str, str | None]]]:
        """Return what the ledger records of the upstream: whose results, and their digests."""
        return {
            name: [{"folder": run.folder.name, "identity": run.identity, "digest": run.digest} for run in runs]
            for name, runs in self.upstream.items()
        }


def address(recipe: Recipe, output_dir: Path) -> Addressed:
    """Find the finished upstream of `recipe` and compute its identity.

    Raises:
        UpstreamMissingError: An earlier stage has not finished; the message holds the command that makes it.
    """
    upstream = {name: _all_finished(recipes, output_dir) for name, recipes in recipe.upstream.items()}
    upstream |= {name: chosen(choice, all_runs(output_dir), output_dir) for name, choice in recipe.chosen.items()}
    sources = {name: [_contribution(run) for run in runs] for name, runs in upstream.items()}
    listing = [listing_digest(group) for group in recipe.inputs]
    identity = identity_of({"stage": recipe.stage, "received": recipe.received, "inputs": listing, "upstream": sources})
    return Addressed(recipe, identity, upstream)


def _all_finished(recipes: Sequence[Recipe], output_dir: Path) -> list[Run]:
    """Return a finished run for each recipe; the error names every one that is missing, an ensemble's folds say."""
    found, missing = [], []
    for recipe in recipes:
        try:
            found.append(finished(recipe, output_dir))
        except UpstreamMissingError as error:
            missing.append(str(error))
    if missing:
        raise UpstreamMissingError("\n".join(dict.fromkeys(missing)))
    return found


def _contribution(run: Run) -> str:
    """Prepared data count by their content, everything else by what was asked for."""
    return str(run.digest) if run.result.get("by_content") else run.identity


def finished(recipe: Recipe, output_dir: Path) -> Run:
    """Return the newest finished attempt of `recipe` whose own inputs are still what they were.

    Raises:
        UpstreamMissingError: There is none.
    """
    addressed = address(recipe, output_dir)
    for run in reversed(list(attempts(addressed.folder(output_dir)))):
        if run.state == "finished" and not stale_reason(run, addressed):
            return run
    latest = max(attempts(addressed.folder(output_dir)), key=lambda run: run.folder.name, default=None)
    found = f"one that is {latest.state} in {latest.folder}" if latest else f"none{_alike(recipe, output_dir)}"
    what = f"a finished stage {recipe.stage} of this configuration"
    message = f"expected {what}, found {found}; make it with\n  {recipe.command}"
    raise UpstreamMissingError(f"{message}{_earlier(recipe, output_dir)}")


def _alike(recipe: Recipe, output_dir: Path) -> str:
    """Return in which few keys the nearest finished run of the same stage and dataset differs, often forgotten ones."""
    there = [run for run in all_runs(output_dir) if run.state == "finished"]
    same = [run for run in there if (run.record["stage"], run.record["dataset"]) == (recipe.stage, recipe.dataset)]
    if not same:
        return ""
    changes, nearest = _nearest(same, recipe)
    if not 0 < len(changes) <= _MOST_SHOWN:
        return ""
    listed = ", ".join(f"{key}: {old!r} -> {new!r}" for key, (old, new) in changes.items())
    return f" ({nearest.folder.name} is finished, but differs in {listed})"


def _nearest(runs: Iterable[Run], recipe: Recipe) -> tuple[dict[str, tuple[Any, Any]], Run]:
    """Return the run that received almost what a recipe does, and the keys that differ, with both values."""
    changes = [(difference(run.record["received"], recipe.received), run) for run in runs]
    return min(changes, key=lambda pair: len(pair[0]))


def _earlier(recipe: Recipe, output_dir: Path) -> str:
    """Return what to do where a model was trained, but not through all stages of its curriculum."""
    earlier = next((one for ones in recipe.upstream.values() for one in ones if one.stage.isdigit()), None)
    if not recipe.stage.isdigit() or earlier is None:
        return ""
    try:
        finished(earlier, output_dir)
    except UpstreamMissingError:
        return ""
    return f"\nor, as stage {earlier.stage} is finished, predict from that: predict.stage={earlier.stage}"


def attempts(folder: Path) -> Iterator[Run]:
    """Yield the recorded attempts at one identity, oldest first: `<folder>`, `<folder>.2`, ..."""
    number = 1
    while (path := attempt_folder(folder, number)).exists():
        if (path / "run.json").exists():
            yield Run.read(path)
        number += 1


def attempt_folder(folder: Path, number: int) -> Path:
    """Return the folder of the n-th attempt."""
    return folder if number == 1 else folder.with_name(f"{folder.name}.{number}")


def stale_reason(run: Run, addressed: Addressed) -> str | None:
    """Return why a run no longer stands for what it started from, or None if it does.

    Of an output the presence and size are looked at here, and its SHA-256 where it is used.
    """
    if damaged := run.damaged_outputs():
        return f"its outputs {damaged} are missing or of another size"
    if _digests(run.record.get("inputs") or {}) != _digests(addressed.inputs()):
        return "a stage that it started from was made anew since"
    return None


def _digests(inputs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[Any]]:
    """Return what the inputs hold; a new attempt that made the same is the same."""
    return {name: [entry.get("digest") for entry in entries] for name, entries in inputs.items()}


def elsewhere_reason(run: Run, recipe: Recipe) -> str | None:
    """Return why a finished run did not write what is asked for beside its results, or None if it did."""
    written = run.record.get("places") or {}
    asked = {key: place for key, place in recipe.places.items() if place is not None and written.get(key) != place}
    if asked:
        return "it wrote elsewhere: " + ", ".join(f"{key} {written.get(key)} -> {new}" for key, new in asked.items())
    lost = [place for place in run.result.get("places", []) if not Path(place).exists()]
    return f"{lost[0]}, which it wrote, is gone" if lost else None


def open_run(addressed: Addressed, output_dir: Path, *, resume: Resume, run_id: str | None) -> tuple[Run, Action]:
    """Return the run that a command addresses, and what is to be done with it.

    Raises:
        ResumeError: `resume=require` finds nothing to continue, or `run=<id>` names another configuration.
    """
    folder = addressed.folder(output_dir)
    known = list(attempts(folder))
    if run_id is not None:
        _same_run(run_id, addressed, output_dir)
    if resume == "never":
        return _new(addressed, attempt_folder(folder, len(known) + 1)), Action.START
    if not known:
        if resume == "require" or run_id is not None:
            raise ResumeError(_nothing_to_continue(addressed, output_dir))
        return _new(addressed, folder), Action.START
    latest = known[-1]
    _warn_of_other_code(latest)
    reason = stale_reason(latest, addressed)
    if reason is None and latest.state == "finished":
        reason = elsewhere_reason(latest, addressed.recipe)
    if reason is None:
        _add_user_tags(latest, addressed.recipe.user_tags)
        if latest.state == "finished" and not addressed.recipe.reopens:
            return latest, Action.REUSE
        latest.record["places"] = dict(addressed.recipe.places)
        return latest, Action.CONTINUE
    log.warning("%s: a new attempt is made, because %s", latest.folder.name, reason)
    return _new(addressed, attempt_folder(folder, len(known) + 1)), Action.START


def _add_user_tags(run: Run, tags: Sequence[str]) -> None:
    """Add words to a recorded run; those that it has stay."""
    known = list(run.record.get("user_tags") or ())
    if not set(tags) <= set(known):
        run.record["user_tags"] = list(dict.fromkeys([*known, *tags]))
        write_json(run.folder / "run.json", run.record)


def _new(addressed: Addressed, folder: Path) -> Run:
    recipe = addressed.recipe
    record = {
        "identity": addressed.identity,
        "stage": recipe.stage,
        "dataset": recipe.dataset,
        "label": recipe.label,
        "tags": dict(recipe.tags),
        "user_tags": list(recipe.user_tags),
        "command": recipe.command,
        "received": recipe.received,
        "config": recipe.config,
        "inputs": addressed.inputs(),
        "places": dict(recipe.places),
        "upstream": {
            name: [os.path.relpath(run.folder, folder) for run in runs] for name, runs in addressed.upstream.items()
        },
        "code_version": code_version(),
        "git": git_state(),
        "versions": versions(),
        "machine": machine(),
        "created": now(),
    }
    return Run(folder, record)


def _warn_of_other_code(run: Run) -> None:
    if run.record.get("code_version") != code_version():
        log.warning("%s was made by another version of medexp; resume=never makes it anew", run.folder.name)


def _same_run(run_id: str, addressed: Addressed, output_dir: Path) -> None:
    named = find(run_id, output_dir)
    if named.identity == addressed.identity:
        return
    changed = difference(named.record["received"], addressed.recipe.received)
    lines = [f"  {key}: {old!r} -> {new!r}" for key, (old, new) in changed.items()]
    lines = lines or ["  its inputs changed: other raw files or another upstream"]
    message = f"run={run_id}: expected the configuration of {named.folder.name}, got another one:\n"
    raise ResumeError(message + "\n".join(lines) + "\nTake these back, or leave run= out to make a new run.")


def _nothing_to_continue(addressed: Addressed, output_dir: Path) -> str:
    recipe = addressed.recipe
    message = f"resume=require: expected a recorded stage {recipe.stage} of this configuration, found none"
    candidates = [run for run in all_runs(output_dir) if run.record["stage"] == recipe.stage]
    if not candidates:
        return f"{message}; resume=auto starts one"
    nearest, run = _nearest(candidates, recipe)
    lines = [f"  {key}: {old!r} -> {new!r}" for key, (old, new) in nearest.items()]
    return "\n".join([f"{message}; the nearest is {run.folder.name}, which differs in", *lines])


def find(run_id: str, output_dir: Path) -> Run:
    """Return the newest run whose identity or folder name matches `run_id`.

    Raises:
        ResumeError: None does, or several different ones do.
    """
    found = [run for run in all_runs(output_dir) if run.identity.startswith(run_id) or run.folder.name == run_id]
    identities = {run.identity for run in found}
    if len(identities) != 1:
        names = [run.folder.name for run in found] or [run.folder.name for run in all_runs(output_dir)][:10]
        raise ResumeError(f"run={run_id}: expected one recorded run, found {len(identities)}; there are {names}")
    return max(found, key=lambda run: run.record["created"])


def weights_of(source: str, output_dir: Path) -> tuple[str, str]:
    """Return where initial weights lie and what stands for their content.

    A file counts by its SHA-256, a recorded run by that of its best checkpoint, a folder by its listing and
    anything else (a hub's name) by itself.

    Raises:
        ResumeError: It looks like a run's identity, and no such run is recorded.
    """
    path = Path(source)
    if path.is_file():
        return source, sha256_of(path)
    if path.is_dir():
        return source, listing_digest([source])
    if _RUN_ID.fullmatch(source):
        best = find(source, output_dir).output("best")
        return str(best.path), best.sha256
    return source, source


def all_runs(output_dir: Path) -> list[Run]:
    """Return every recorded run below `output_dir`, oldest first."""
    runs = [Run.read(path.parent) for path in output_dir.glob("*/*/run.json")]
    return sorted(runs, key=lambda run: run.record["created"])


def ancestry(runs: Sequence[Run]) -> list[Run]:
    """Return `runs` and everything that they started from, nearest first, each once."""
    seen: dict[str, Run] = {}
    pending = list(runs)
    while pending:
        run = pending.pop(0)
        if str(run.folder) in seen:
            continue
        seen[str(run.folder)] = run
        relative = [path for paths in run.record["upstream"].values() for path in paths]
        pending += [Run.read(Path(os.path.normpath(run.folder / path))) for path in relative]
    return list(seen.values())

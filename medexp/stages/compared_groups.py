"""The evaluations of a comparison: read, checked to measure the same, and put into groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medexp.errors import CohortError, ConfigurationError, UnknownOptionError
from medexp.runs.choice import Described, describe
from medexp.runs.ledger import Run
from medexp.stages.recorded_evaluation import Evaluation
from medexp.suggestions import did_you_mean

# Where the scored cases stand to the choice of the checkpoint that predicted them.
ON_VALIDATION, ON_TEST, ON_OTHERS, UNKNOWN = "validation fold", "test set", "other cases", "unknown"

_SOURCES = {"validation": ON_VALIDATION, "out_of_fold": ON_VALIDATION, "test": ON_TEST}
_REPETITION = ("fold", "seed")
_NO_DIFFERENCE = frozenset({*_REPETITION, "name", "tag", "sweep"})
_PREFERRED = ("model", "evaluate.predictions", "stage", "ensemble", "predict.source", "dataset")
_DEFINITIONS = ("labels", "regions")
_LISTED = 8

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Member:
    """One evaluation: which group it belongs to, and which repetition of it this is."""

    evaluation: Evaluation
    facts: Facts
    group: str
    chosen_on: str

    @property
    def repetition(self) -> tuple[str, str]:
        """Return fold and seed; of an ensemble, of all of its models."""
        fold, seed = (str(self.facts[key]) if self.facts[key] is not None else "-" for key in _REPETITION)
        return fold, seed


@dataclass(frozen=True)
class Groups:
    """Evaluations by group, in the order of the groups' names.

    `keys` is what tells groups apart, `joined` the keys in which evaluations of one group differ. `metrics` are the
    columns to compare.
    """

    members: Mapping[str, Sequence[Member]]
    keys: Sequence[str]
    joined: Sequence[str]
    settings: Mapping[str, Any]
    metrics: Sequence[str]

    @property
    def all_members(self) -> list[Member]:
        """Return the evaluations of all groups."""
        return [member for members in self.members.values() for member in members]

    def chosen_on(self, group: str) -> str:
        """Return where a group's scores come from; the least independent if they differ."""
        found = {member.chosen_on for member in self.members[group]}
        return next(one for one in (ON_VALIDATION, UNKNOWN, ON_OTHERS, ON_TEST) if one in found)


def grouped(runs: Sequence[Run], *, by: Sequence[str] | None, metrics: Sequence[str] | None) -> Groups:
    """Read evaluations and put them into groups.

    Args:
        runs: Finished runs of stage=evaluate.
        by: Keys whose values make a group, as `medexp.runs.choice.describe` names them; None: all in which the runs
            differ, but fold and seed.
        metrics: Columns that every table must have; None: the one that says how good a case is.

    Raises:
        CheckpointMismatchError: A table is not what its evaluation recorded.
        ConfigurationError: There are fewer than two groups, or labels or metric settings differ.
        UnknownOptionError: A key or a column does not exist.
        CohortError: A case has different references in different evaluations.
    """
    described = [describe(run) for run in runs]
    evaluations = [Evaluation.of(run) for run in runs]
    _require_same_settings(evaluations)
    columns = list(dict.fromkeys([evaluations[0].main_column] if metrics is None else metrics))
    _require_columns(evaluations, columns)
    _require_same_references(evaluations)
    facts = [one.facts for one in described]
    keys = differing_keys(facts) if by is None else _known_keys(by, facts)
    names = group_names(facts, keys)
    members = [
        Member(evaluation, one.facts, name, _chosen_on(one))
        for evaluation, one, name in zip(evaluations, described, names, strict=True)
    ]
    members.sort(key=lambda member: (member.repetition, member.evaluation.run.folder.name))
    found = {name: [member for member in members if member.group == name] for name in sorted(set(names))}
    if len(found) < 2 and (by is not None or len(members) < 2):
        raise ConfigurationError(_too_few(members, by))
    joined = [differing_keys([member.facts for member in one]) for one in found.values()]
    return Groups(found, keys, sorted({key for one in joined for key in one}), evaluations[0].settings, columns)


def _require_same_settings(evaluations: Sequence[Evaluation]) -> None:
    first = evaluations[0]
    for other in evaluations[1:]:
        for key in [*_DEFINITIONS, *(key for key in first.settings if key not in _DEFINITIONS)]:
            here, there = first.settings.get(key), other.settings.get(key)
            if here == there:
                continue
            what = "the same definition of labels" if key in _DEFINITIONS else "the same settings of metrics"
            name = f"dataset.{key}" if key in _DEFINITIONS else f"evaluate.{key}"
            raise ConfigurationError(
                f"compare: expected {what} in all evaluations, got {name}={here} in {first.run.folder.name} and "
                f"{there} in {other.run.folder.name}: run stage=evaluate for both with the same, or leave one out, "
                f"for example with 'compare.select=[{_filter(key, here)}]'"
            )


def _filter(key: str, value: Any) -> str:
    simple = isinstance(value, str | int | float | bool) or value is None
    return f"evaluate.{key}={'null' if value is None else str(value).lower()}" if simple else "name=<folder>"


def _require_columns(evaluations: Sequence[Evaluation], metrics: Sequence[str]) -> None:
    if not metrics:
        raise ConfigurationError("compare.metrics: expected at least one column, got none; leave the key out")
    for evaluation in evaluations:
        columns = [name for name in evaluation.cases[0] if name not in {"case", "patient"}]
        for metric in metrics:
            if metric not in columns:
                where = f"{evaluation.run.folder.name} has no column {metric}"
                raise UnknownOptionError(f"compare.metrics: {where}; {did_you_mean(metric, columns)}")


def _require_same_references(evaluations: Sequence[Evaluation]) -> None:
    known: dict[str, tuple[str, str]] = {}
    changed: dict[str, str] = {}
    for evaluation in evaluations:
        for case, files in evaluation.files_of.items():
            digest = str(files["reference"]["sha256"])
            where, first = known.setdefault(case, (evaluation.run.folder.name, digest))
            if first != digest:
                changed[case] = f"{case}: in {where} and in {evaluation.run.folder.name}"
    if changed:
        listing = "".join(f"\n  {text}" for text in list(changed.values())[:_LISTED])
        rest = f"\n  and {len(changed) - _LISTED} more" if len(changed) > _LISTED else ""
        raise CohortError(
            f"expected one reference per case in all evaluations, {len(changed)} cases have different ones:{listing}"
            f"{rest}\nRun stage=evaluate again with the same evaluate.references, or leave one out with compare.select."
        )


def differing_keys(facts: Sequence[Facts]) -> list[str]:
    """Return the keys in which runs differ, but for fold and seed; those that name a method first."""
    keys = dict.fromkeys([*_PREFERRED, *sorted({key for one in facts for key in one})])
    differing = [key for key in keys if len({_hashable(one.get(key)) for one in facts}) > 1]
    return [key for key in differing if key not in _NO_DIFFERENCE and not _is_of_scoring(key)]


def _is_of_scoring(key: str) -> bool:
    """Say whether a key belongs to the evaluation, which is checked to be the same by what it came to."""
    return key.startswith("evaluate.") and key != "evaluate.predictions"


def _hashable(value: Any) -> Any:
    """Return lists as tuples and mappings as sorted pairs, however deep; equal values stay equal."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(key), _hashable(inner)) for key, inner in value.items()))
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _known_keys(by: Sequence[str], facts: Sequence[Facts]) -> list[str]:
    known = {key for one in facts for key in one}
    for key in by:
        if key not in known:
            raise UnknownOptionError(f"compare.by: no evaluation has a key {key}; {did_you_mean(key, known)}")
    if not by:
        raise ConfigurationError("compare.by: expected keys such as [model], got none; null takes all that differ")
    return list(by)


def group_names(facts: Sequence[Facts], keys: Sequence[str]) -> list[str]:
    """Return a short name for each run's group: as few of the keys as tell the groups apart."""
    groups = {_values(one, keys) for one in facts}
    shown: list[str] = []
    for key in keys:
        if len({_values(one, shown) for one in facts}) == len(groups):
            break
        if len({_values(one, [*shown, key]) for one in facts}) > len({_values(one, shown) for one in facts}):
            shown.append(key)
    for key in list(shown):
        fewer = [other for other in shown if other != key]
        if len({_values(one, fewer) for one in facts}) == len(groups):
            shown = fewer
    lasts = [key.rpartition(".")[2] for key in shown]
    titles = {key: last if lasts.count(last) == 1 else key for key, last in zip(shown, lasts, strict=True)}
    return [_name(one, titles) for one in facts]


def _values(facts: Facts, keys: Sequence[str]) -> tuple[Any, ...]:
    return tuple(_hashable(facts.get(key)) for key in keys)


def _name(facts: Facts, titles: Mapping[str, str]) -> str:
    parts = []
    for key, title in titles.items():
        value = facts.get(key)
        if key == "evaluate.predictions":
            parts += [] if value is None else [_place(value)]
        elif key == "model":
            parts += [] if value is None else [str(value)]
        elif key == "ensemble":
            parts.append(f"ensemble of {value}" if value and value > 1 else "single model")
        elif key == "stage":
            parts += [] if value is None else [f"stage {value}"]
        else:
            parts.append(f"{title}={_text(value)}")
    foreign = facts.get("evaluate.predictions")
    return " ".join(parts) or str(facts.get("model") or (_place(foreign) if foreign else facts["dataset"]))


def _place(folder: Any) -> str:
    return "/".join(Path(str(folder)).parts[-2:])


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(_text(one) for one in value)}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _chosen_on(described: Described) -> str:
    predicted = [run for run in described.lineage if run.record["stage"] == "predict"]
    source = str((predicted[0].record.get("received") or {}).get("source")) if predicted else None
    return UNKNOWN if source in {None, "None"} else _SOURCES.get(str(source), ON_OTHERS)


def _too_few(members: Sequence[Member], by: Sequence[str] | None) -> str:
    number = f"{len(members)} evaluation{'s' if len(members) != 1 else ''}"
    repetitions = ", ".join(f"fold {fold} seed {seed}" for fold, seed in (one.repetition for one in members[:_LISTED]))
    how = "they differ in fold and seed at most" if by is None else f"by {', '.join(by)}"
    return (
        f"compare: expected at least two groups, got one, '{members[0].group}', of {number} ({repetitions}): {how}. "
        "Evaluate another model or configuration, let compare.select choose more, or name what to compare, "
        "for example compare.by=[seed]"
    )

"""The numbers of a comparison: spread over folds and seeds, paired differences over cases, ranks."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from medexp.errors import CohortError
from medexp.metrics.paired import clustered_interval, holm, mean_ranks, paired_difference, spread
from medexp.stages.compared_groups import Groups, Member
from medexp.stages.comparison_records import (
    Comparison,
    GroupScore,
    Metric,
    MetricComparison,
    Missing,
    PairScore,
    RunScore,
    Statistics,
)
from medexp.stages.score_tables import policy_of

_LISTED = 8


def compared(groups: Groups, metrics: Sequence[Metric], statistics: Statistics) -> Comparison:
    """Compare groups in every metric.

    Raises:
        CohortError: Two groups have no case in common.
    """
    patients = _patients(groups)
    missing: list[Missing] = []
    scored = [
        (metric, [_group_score(groups, name, metric, patients, statistics, missing) for name in groups.members])
        for metric in metrics
    ]
    pairs = [pair for metric, scores in scored for pair in _pairs(metric, scores, patients, statistics, missing)]
    corrected = holm([pair.difference.p_value for pair in pairs])
    higher = {metric.column: metric.is_higher_better for metric in metrics}
    pairs = [
        _judged(replace(pair, p_holm=p_value), statistics, is_higher_better=higher[pair.metric])
        for pair, p_value in zip(pairs, corrected, strict=True)
    ]
    found = [
        _ranked(metric, scores, [pair for pair in pairs if pair.metric == metric.column]) for metric, scores in scored
    ]
    return Comparison(groups, found, missing, patients, statistics, tuple(_unbalanced(groups)))


def _patients(groups: Groups) -> dict[str, str]:
    """Return whose case each is; a case of nobody known stands for itself."""
    found: dict[str, str] = {}
    for member in groups.all_members:
        for row in member.evaluation.cases:
            if str(row["patient"]) or str(row["case"]) not in found:
                found[str(row["case"])] = str(row["patient"]) or str(row["case"])
    return found


def _group_score(
    groups: Groups,
    name: str,
    metric: Metric,
    patients: Mapping[str, str],
    statistics: Statistics,
    missing: list[Missing],
) -> GroupScore:
    values: defaultdict[str, list[float]] = defaultdict(list)
    runs = []
    policy = policy_of(metric.column, str(groups.settings["empty_reference"]))
    for member in groups.members[name]:
        own = {str(row["case"]): _worth(float(row[metric.column]), metric, policy) for row in member.evaluation.cases}
        finite = [value for value in own.values() if math.isfinite(value)]
        runs.append(RunScore(member, float(np.mean(finite)) if finite else math.nan, len(finite)))
        for case, value in own.items():
            values[case].append(value)
    cases = {}
    for case in sorted(values):
        averaged, reason = _over_repetitions(values[case])
        if reason:
            missing.append(Missing(metric.column, name, case, reason))
        if averaged is not None:
            cases[case] = averaged
    array = np.array(list(cases.values()), np.float64)
    low, high = clustered_interval(
        array,
        [patients[case] for case in cases],
        seed=statistics.seed,
        num_resamples=statistics.num_resamples,
        confidence=statistics.confidence,
    )
    over_runs = spread([run.mean for run in runs if math.isfinite(run.mean)], statistics.confidence)
    mean = float(array.mean()) if array.size else math.nan
    return GroupScore(name, over_runs, mean, low, high, cases, runs)


def _worth(value: float, metric: Metric, policy: str | float) -> float:
    if math.isnan(value):
        return value if policy == "exclude" else float(policy)
    if math.isinf(value) and metric.infinite_as is not None:
        return metric.infinite_as
    return value


def _over_repetitions(values: Sequence[float]) -> tuple[float | None, str]:
    """Return a case's mean over seeds and what is to be said about it; None if it cannot be used.

    An infinite value (a distance to nothing) makes the whole case unusable: without it the mean would be better than
    what was predicted.
    """
    infinite, undefined = sum(map(math.isinf, values)), sum(map(math.isnan, values))
    of = f" in {infinite or undefined} of {len(values)} repetitions" if len(values) > 1 else ""
    if infinite:
        return None, f"infinite{of}: one mask is empty; left out, or say compare.infinite_as"
    if undefined == len(values):
        return None, "undefined: reference and prediction are empty; left out"
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)), f"undefined{of}: reference and prediction are empty" if undefined else ""


def _pairs(
    metric: Metric,
    scores: Sequence[GroupScore],
    patients: Mapping[str, str],
    statistics: Statistics,
    missing: list[Missing],
) -> list[PairScore]:
    known = {(one.metric, one.group, one.case) for one in missing}
    every = sorted({case for score in scores for case in score.cases} | {one.case for one in missing})
    for score in scores:
        missing += [
            Missing(metric.column, score.group, case, "not evaluated in this group")
            for case in every
            if case not in score.cases and (metric.column, score.group, case) not in known
        ]
    return [_pair(metric, first, second, patients, statistics) for first, second in combinations(scores, 2)]


def _pair(
    metric: Metric, first: GroupScore, second: GroupScore, patients: Mapping[str, str], statistics: Statistics
) -> PairScore:
    common = [case for case in first.cases if case in second.cases]
    if not common:
        raise CohortError(
            f"compare: expected cases that '{first.group}' and '{second.group}' both have {metric.column} of, got "
            f"none: {_some(first.cases)} there, {_some(second.cases)} here. Evaluate both on the same cases, for "
            "example with predict.source=test or the same folds, or choose other evaluations with compare.select"
        )
    difference = paired_difference(
        np.array([first.cases[case] - second.cases[case] for case in common], np.float64),
        [patients[case] for case in common],
        seed=statistics.seed,
        num_resamples=statistics.num_resamples,
        confidence=statistics.confidence,
    )
    return PairScore(metric.column, first.group, second.group, difference)


def _some(cases: Mapping[str, float]) -> str:
    names = list(cases)
    return (", ".join(names[:_LISTED]) or "none") + (
        f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    )


def _judged(pair: PairScore, statistics: Statistics, *, is_higher_better: bool) -> PairScore:
    effect = pair.difference.rank_biserial  # what the test is about; the mean may point elsewhere
    if pair.p_holm >= 1.0 - statistics.confidence or effect == 0.0:
        return pair
    return replace(pair, better=pair.first if (effect > 0.0) == is_higher_better else pair.second)


def _ranked(metric: Metric, scores: Sequence[GroupScore], pairs: Sequence[PairScore]) -> MetricComparison:
    common = [case for case in scores[0].cases if all(case in score.cases for score in scores)]
    values = np.array([[score.cases[case] for score in scores] for case in common], np.float64).reshape(-1, len(scores))
    ranks = mean_ranks(values, higher_is_better=metric.is_higher_better) if common else [math.nan] * len(scores)
    means = values.mean(axis=0) if common else np.array([score.mean for score in scores])
    signed = -means if metric.is_higher_better else means
    placed = [
        replace(
            score,
            rank=1 + int((signed < signed[index]).sum()),
            mean_rank=float(ranks[index]),
            wins=sum(pair.better == score.group for pair in pairs),
        )
        for index, score in enumerate(scores)
    ]
    best_first = sorted(placed, key=lambda score: (score.rank, score.group))
    return MetricComparison(metric, best_first, pairs, len(common))


def _unbalanced(groups: Groups) -> list[str]:
    """Return what a reader must know about folds and seeds that not every group has, and about mixed groups."""
    notes = []
    if len(groups.members) == 1:
        notes.append(
            "There is one group, hence no difference: its evaluations differ in fold and seed at most. To compare, "
            "evaluate another model or configuration, let compare.select choose more, or say compare.by=[seed]."
        )
    if groups.joined:
        more = f" and {len(groups.joined) - _LISTED} more" if len(groups.joined) > _LISTED else ""
        notes.append(f"Evaluations of one group differ in {', '.join(groups.joined[:_LISTED])}{more}.")
    repetitions = {
        name: [_without(member, groups.keys) for member in members] for name, members in groups.members.items()
    }
    every = sorted({one for found in repetitions.values() for one in found})
    for name, found in repetitions.items():
        lacking = [one for one in every if one not in found]
        if lacking:
            notes.append(f"{name} has no evaluation of {', '.join(lacking)}, which others have.")
        twice = sorted({one for one in found if found.count(one) > 1})
        if twice:
            notes.append(f"{name} joins several configurations with {', '.join(twice)}; a case's value is their mean.")
    return notes


def _without(member: Member, keys: Sequence[str]) -> str:
    """Return fold and seed in words, but for what makes the groups."""
    parts = zip(("fold", "seed"), member.repetition, strict=True)
    return " ".join(f"{key} {value}" for key, value in parts if key not in keys)

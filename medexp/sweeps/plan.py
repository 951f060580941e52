"""Which jobs a sweep line means: composed and checked before any starts, in the order in which they can run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medexp.composition.composer import checked
from medexp.composition.overrides import key_of
from medexp.composition.recipes import composed_recipe, stage_rank
from medexp.runs.lineage import Recipe
from medexp.sweeps.job import Outcome


@dataclass
class SweepJob:
    """One combination of a sweep's choices and what became of it.

    Attributes:
        number: Its place in the sweep, from 0.
        overrides: Its single-run command line.
        recipe: What it asks for.
        varying: Its values of the keys that differ between jobs.
        state: waiting, running, finished, failed, skipped or interrupted.
        reason: Why it did not finish.
        outcome: Its result, once finished.
        attempts: How often it was started in this sweep's process.
        started: When its last attempt started, ISO 8601; empty before.
        ended: When its end was known.
        log: Where its process wrote, if it had a file of its own.
        folder: Where its run lies or will lie; known once its upstream has finished.
        twins: Combinations that ask for the same and are not run again.
    """

    number: int
    overrides: list[str]
    recipe: Recipe
    varying: Mapping[str, str]
    state: str = "waiting"
    reason: str = ""
    outcome: Outcome | None = None
    attempts: int = 0
    started: str = ""
    ended: str = ""
    log: Path | None = None
    folder: Path | None = None
    twins: list["SweepJob"] = field(default_factory=list)

    @property
    def stage(self) -> str:
        """The stage that this job runs."""
        return self.recipe.stage

    @property
    def is_reused(self) -> bool:
        """Whether it had finished before."""
        return self.outcome is not None and self.outcome.reused

    @property
    def values(self) -> dict[str, str]:
        """Its values of the varying keys beside the stage; `all` where it stands for jobs with other values, too."""
        found = {}
        for key in self.varying:
            values = {one.varying.get(key, "") for one in (self, *self.twins)}
            found[key] = values.pop() if len(values) == 1 else "all"
        return {key: value for key, value in found.items() if key != "stage" and value}

    @property
    def title(self) -> str:
        """Its stage and values in a few words, for example `stage 1 fold=0 seed=1`."""
        return " ".join([f"stage {self.stage}", *(f"{key}={value}" for key, value in self.values.items())])


def plan(arguments: Sequence[str], config_dirs: Sequence[Path]) -> list[SweepJob]:
    """Compose and check every job before any starts; return them in the order in which they can run.

    Jobs that receive the same are one job; the others are its twins.
    """
    line = checked(arguments, config_dirs=config_dirs, multirun=True)
    combinations = line.jobs or (line.overrides,)  # one choice of each key is a sweep of one job
    varying = _varying(combinations)
    jobs: dict[str, SweepJob] = {}
    for overrides in combinations:
        recipe = composed_recipe(overrides, tuple(config_dirs))
        job = SweepJob(0, list(overrides), recipe, {key: _value(overrides, key) for key in varying})
        if recipe.key in jobs:
            jobs[recipe.key].twins.append(job)
        else:
            jobs[recipe.key] = job
    ordered = sorted(jobs.values(), key=lambda job: stage_rank(job.stage))
    for number, job in enumerate(ordered):
        job.number = number
    return ordered


def waves(jobs: Sequence[SweepJob]) -> Iterator[list[SweepJob]]:
    """Yield the jobs of one stage after the other; those of a wave do not depend on each other."""
    for rank in sorted({stage_rank(job.stage) for job in jobs}):
        yield [job for job in jobs if stage_rank(job.stage) == rank]


def direct_keys(recipe: Recipe) -> set[str]:
    """Return the keys of what a recipe starts from at once."""
    return {one.key for recipes in recipe.upstream.values() for one in recipes}


def upstream_keys(recipe: Recipe) -> set[str]:
    """Return the keys of everything that a recipe starts from, directly or not."""
    direct = [one for recipes in recipe.upstream.values() for one in recipes]
    return direct_keys(recipe).union(*(upstream_keys(one) for one in direct))


def _varying(combinations: Sequence[Sequence[str]]) -> list[str]:
    """Return the keys whose values differ between jobs, in the order of the line."""
    values: dict[str, set[str]] = {}
    for overrides in combinations:
        for text in overrides:
            values.setdefault(key_of(text), set()).add(text)
    return [key for key, texts in values.items() if len(texts) > 1]


def _value(overrides: Sequence[str], key: str) -> str:
    for text in overrides:
        if key_of(text) == key:
            return text.partition("=")[2].strip("'\"")
    return ""

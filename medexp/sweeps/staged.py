"""A sweep: expand the choices, check every job, order them by stage, run the waves, tell the truth."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from medexp.composition.composer import checked
from medexp.composition.overrides import key_of
from medexp.composition.recipes import composed_recipe, stage_rank
from medexp.errors import SweepFailedError
from medexp.runs.lineage import Recipe
from medexp.sweeps.logs import log_to_console
from medexp.sweeps.table import show_table

log = logging.getLogger(__name__)


@dataclass
class SweepJob:
    """One combination of a sweep's choices and what became of it."""

    number: int
    overrides: list[str]
    recipe: Recipe
    varying: Mapping[str, str]
    state: str = "waiting"
    reason: str = ""
    outcome: Any = None
    twins: list["SweepJob"] = field(default_factory=list)

    @property
    def stage(self) -> str:
        """The stage that this job runs."""
        return self.recipe.stage


def plan(arguments: Sequence[str], config_dirs: Sequence[Path]) -> list[SweepJob]:
    """Compose and check every job before any starts; return them in the order in which they can run.

    Jobs that receive the same are one job; the others are its twins.
    """
    combinations = checked(arguments, config_dirs=config_dirs, multirun=True).jobs
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


def _varying(combinations: Sequence[Sequence[str]]) -> list[str]:
    """Return the keys whose values differ between jobs, in the order of the line."""
    values: dict[str, set[str]] = {}
    for overrides in combinations:
        for text in overrides:
            values.setdefault(key_of(text), set()).add(text)
    return [key for key, texts in values.items() if len(texts) > 1]


def _value(overrides: Sequence[str], key: str) -> str:
    return next((text.split("=", 1)[1].strip("'") for text in overrides if key_of(text) == key), "")


def run_sweep(
    jobs: Sequence[SweepJob],
    launcher: Launcher,
    *,
    title: str,
    output_dir: Path,
    tracking_uri: str | None,
    fail_fast: bool = False,
) -> list[JobReturn]:
    """Run the waves of a planned sweep, show the table, what the last stages say, and where to look next.

    Raises:
        SweepFailedError: A job failed or was skipped.
    """
    log_to_console()
    returns: list[JobReturn] = []
    for _, group in itertools.groupby(jobs, key=lambda job: stage_rank(job.stage)):
        wave = [job for job in group if not _skip(job, jobs, fail_fast=fail_fast)]
        if not wave:
            continue
        names = ", ".join(_named(job) for job in wave)
        log.info(
            "── stage %s: %d job%s%s", wave[0].stage, len(wave), "s" * (len(wave) > 1), f" ({names})" if names else ""
        )
        results = launcher.launch([job.overrides for job in wave], initial_job_idx=wave[0].number)
        returns += results
        for job, result in zip(wave, results, strict=True):
            _note(job, result)
    show_table(jobs, title=title, output_dir=output_dir)
    _show_next(jobs, output_dir, tracking_uri)
    bad = [job for job in jobs if job.state != "finished"]
    if bad:
        first = next((job for job in bad if job.state == "failed"), bad[0])
        message = f"{len(bad)} of {len(jobs)} jobs did not finish; the first: job {first.number}, {first.reason}"
        raise SweepFailedError(f"{message}\nRun the same line again: finished jobs are not redone.")
    return returns


def _show_next(jobs: Sequence[SweepJob], output_dir: Path, tracking_uri: str | None) -> None:
    """Repeat what the scoring and reporting jobs said, if it is one of each, and say how to open MLflow."""
    for stage in ("evaluate", "report"):
        said = [job.outcome.lines for job in jobs if job.stage == stage and job.outcome is not None]
        for line in said[0] if len(said) == 1 else ():
            log.info(line)
    uri = tracking_uri or f"sqlite:///{output_dir}/mlflow.db"
    log.info("MLflow: mlflow ui --host 127.0.0.1 --backend-store-uri %s", uri)


def _named(job: SweepJob) -> str:
    return " ".join(f"{key}={value}" for key, value in job.varying.items() if key != "stage" and value)


def _skip(job: SweepJob, jobs: Sequence[SweepJob], *, fail_fast: bool) -> bool:
    """Say whether a job that this one starts from did not finish (any job, with `fail_fast`); note it as skipped."""
    needed = _upstream_keys(job.recipe)
    bad = [other for other in jobs if other.state in {"failed", "skipped"}]
    missing = [other for other in bad if fail_fast or other.recipe.key in needed]
    if missing:
        job.state, job.reason = "skipped", f"job {missing[0].number} (stage {missing[0].stage}) {missing[0].state}"
    return bool(missing)


def _upstream_keys(recipe: Recipe) -> set[str]:
    direct = [one for recipes in recipe.upstream.values() for one in recipes]
    return {one.key for one in direct}.union(*(_upstream_keys(one) for one in direct))


def _note(job: SweepJob, result: JobReturn) -> None:
    if result.status is JobStatus.COMPLETED:
        job.state, job.outcome = "finished", result.return_value
        return
    job.state = "failed"
    job.reason = str(result._return_value)

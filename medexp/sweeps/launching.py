"""Start the jobs of a wave with whichever launcher was chosen, and bring back an end for each."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from medexp.errors import JobRefusedError
from medexp.runs.ledger import now
from medexp.runs.lineage import attempts
from medexp.sweeps.isolated import Events
from medexp.sweeps.outcomes import found_now, result_of, take
from medexp.sweeps.plan import SweepJob
from medexp.sweeps.worker import Job

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.5


Tell = Callable[[SweepJob], None]


@runtime_checkable
class Supervising(Protocol):
    """A launcher that looks after its jobs itself: tells of starts and ends, and tries again."""

    def supervise(
        self,
        jobs: Sequence[SweepJob],
        *,
        events: Events,
        log_path: Callable[[SweepJob], Path],
        environment: Mapping[str, str],
    ) -> list[JobReturn]:
        """Run the jobs and return how each ended, in order."""


def launched(
    jobs: Sequence[SweepJob],
    launcher: Launcher,
    tell: Tell,
    *,
    log_path: Callable[[SweepJob], Path],
    environment: Mapping[str, str],
    output_dir: Path,
    retry: int,
) -> list[JobReturn]:
    """Run jobs that do not depend on each other; their states are noted, and `tell` is told of changes."""
    if isinstance(launcher, Supervising):
        told = _Told(jobs, tell)
        return launcher.supervise(jobs, events=told, log_path=log_path, environment=environment)
    with _exported(environment):
        _launched_plainly(jobs, launcher, tell, output_dir, retry)
    return [result_of(job) for job in jobs]


class _Told(Events):
    """Translates what happens to processes into states of jobs."""

    def __init__(self, jobs: Sequence[SweepJob], tell: Tell) -> None:
        self._jobs = {job.number: job for job in jobs}
        self._tell = tell

    def started(self, job: Job, attempt: int, slot: str | None) -> None:
        one = self._jobs[job.number]
        _begin(one, attempt)
        one.log = job.log_path
        self._tell(one)

    def ended(self, job: Job, result: JobReturn, *, is_last: bool) -> None:
        one = self._jobs[job.number]
        take(one, result)
        one.ended = now()
        if not is_last:
            log.warning("job %d (%s) is tried again: %s", one.number, one.title, one.reason.splitlines()[0])
            one.state = "waiting"
        self._tell(one)


def _begin(job: SweepJob, attempt: int) -> None:
    job.state, job.reason, job.attempts, job.started, job.ended = "running", "", attempt, now(), ""


def _launched_plainly(jobs: Sequence[SweepJob], launcher: Launcher, tell: Tell, output_dir: Path, retry: int) -> None:
    """Use a launcher that answers when all of its jobs have ended, or not at all when one died."""
    left = list(jobs)
    for attempt in range(retry + 1):
        for job in left:
            _begin(job, attempt + 1)
            tell(job)
        refused = _one_round(left, launcher, output_dir)
        for job in left:
            job.ended = now()
            tell(job)
        left = [job for job in left if job.state != "finished" and job.number not in refused]
        if not left:
            return


def _one_round(jobs: Sequence[SweepJob], launcher: Launcher, output_dir: Path) -> set[int]:
    """Note how each job ended; return the numbers of those that need not be tried again."""
    try:
        results = launcher.launch([job.overrides for job in jobs], initial_job_idx=jobs[0].number)
    except Exception as error:  # noqa: BLE001 - a job's process died and its launcher with it; the ledger knows the rest
        log.warning("the launcher ended without an answer (%s: %s); asking the ledger", type(error).__name__, error)
        _await_quiet(jobs)
        reason = f"no answer came from its process ({type(error).__name__}: {error})"
        for job in jobs:
            found_now(job, output_dir, state="failed", reason=reason)
        return set()
    for job, result in zip(jobs, results, strict=True):
        take(job, result)
    pairs = zip(jobs, results, strict=True)
    return {job.number for job, result in pairs if isinstance(result._return_value, JobRefusedError)}


def _await_quiet(jobs: Sequence[SweepJob]) -> None:
    """Wait for jobs that a launcher left behind and that still work."""
    folders = [job.folder for job in jobs if job.folder is not None]
    while any(run.is_held() for folder in folders for run in attempts(folder)):
        time.sleep(_LOOK_EVERY_S)


@contextmanager
def _exported(variables: Mapping[str, str]) -> Iterator[None]:
    before: dict[str, Any] = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})

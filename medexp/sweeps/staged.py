"""A sweep: run the waves of a plan, each job once, and tell the truth about every one."""

import logging
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from medexp.errors import SweepFailedError, UpstreamMissingError
from medexp.runs.lineage import finished
from medexp.sweeps.board import Board
from medexp.sweeps.job import EXIT_TERMINATED
from medexp.sweeps.launching import Supervising, launched
from medexp.sweeps.logs import log_to_console
from medexp.sweeps.outcomes import found_before, found_now
from medexp.sweeps.plan import SweepJob, direct_keys, upstream_keys, waves
from medexp.sweeps.preload import announce
from medexp.sweeps.record import SweepRecord
from medexp.sweeps.table import show_end, show_next
from medexp.sweeps.tracked import Parent

log = logging.getLogger(__name__)

_OPEN = frozenset({"waiting", "running"})


@dataclass(frozen=True)
class Settings:
    """What a sweep is told beside its jobs.

    Attributes:
        title: The sweep's name and MLflow's experiment.
        output_dir: Where runs and the sweep's record lie.
        command: The line that was given.
        fail_fast: Start nothing more once a job has failed for good.
        retry: How often a failed job is tried again.
        tracking: The keys below `tracking`.
    """

    title: str
    output_dir: Path
    command: str = ""
    fail_fast: bool = False
    retry: int = 0
    tracking: Mapping[str, Any] = field(default_factory=dict)


def run_sweep(jobs: Sequence[SweepJob], launcher: Launcher, settings: Settings) -> list[JobReturn]:
    """Run a planned sweep, show what became of it, and return how the jobs that were started ended.

    Raises:
        SweepFailedError: A job failed or was skipped.
        RunBusyError: Another live process runs the same sweep.
        SystemExit: SIGTERM (143): jobs have saved their step, the record says `interrupted`.
        KeyboardInterrupt: The same by Ctrl-C.
    """
    log_to_console()
    record = SweepRecord(jobs, output_dir=settings.output_dir, command=settings.command)
    earlier = record.begin()
    parent = Parent(record, settings.title, settings.output_dir, settings.tracking, is_over=earlier == "finished")
    conductor = _Conductor(jobs, launcher, settings, record, parent)
    with _terminable():
        try:
            returns = conductor.run()
        except BaseException:
            conductor.close("interrupted")
            raise
        bad = [job for job in jobs if job.state != "finished"]
        conductor.close("failed" if bad else "finished")
    if bad:
        first = next((job for job in bad if job.state == "failed"), bad[0])
        message = f"{len(bad)} of {len(jobs)} jobs did not finish; the first: job {first.number}, {first.reason}"
        raise SweepFailedError(f"{message}\nMend that and run the same line again: finished jobs are not redone.")
    return returns


class _Conductor:
    """Goes through the waves."""

    def __init__(
        self,
        jobs: Sequence[SweepJob],
        launcher: Launcher,
        settings: Settings,
        record: SweepRecord,
        parent: Parent,
    ) -> None:
        self._jobs, self._launcher, self._settings = jobs, launcher, settings
        self._record, self._parent = record, parent
        self._is_warm = False

    def run(self) -> list[JobReturn]:
        returns: list[JobReturn] = []
        is_shared = not isinstance(self._launcher, Supervising)
        self._warn_of_hopeless()
        with Board(self._jobs, self._settings.title, self._record, is_shared=is_shared) as board:
            for wave in waves(self._jobs):
                started = [job for job in wave if not self._is_settled(job, board)]
                self._record.write("running")
                if started:
                    returns += self._launch(started, board)
        return returns

    def _warn_of_hopeless(self) -> None:
        """Say of jobs that start from what is not there and what no job makes, before hours go into the others."""
        made = {one.recipe.key for job in self._jobs for one in (job, *job.twins)}
        needed = {one.key: one for job in self._jobs for ones in job.recipe.upstream.values() for one in ones}
        for key, recipe in needed.items():
            if key in made:
                continue
            try:
                finished(recipe, self._settings.output_dir)
            except UpstreamMissingError as error:
                stuck = [job for job in self._jobs if key in direct_keys(job.recipe)]
                names = ", ".join(f"job {job.number} ({job.title})" for job in stuck)
                log.warning("%s will fail, for no job makes what that starts from: %s", names, error)

    def _is_settled(self, job: SweepJob, board: Board) -> bool:
        """Say whether a job needs no process: skipped, finished before, or known to fail."""
        settled = self._is_skipped(job) or found_before(job, self._settings.output_dir)
        if settled:
            board.tell(job)
        return settled

    def _is_skipped(self, job: SweepJob) -> bool:
        """Say whether a job that this one starts from did not finish (any job, with `fail_fast`)."""
        needed = upstream_keys(job.recipe)
        bad = [other for other in self._jobs if other.state in {"failed", "skipped"}]
        missing = [other for other in bad if self._settings.fail_fast or other.recipe.key in needed]
        if missing:
            job.state = "skipped"
            job.reason = f"job {missing[0].number} (stage {missing[0].stage}) {missing[0].state}"
        return bool(missing)

    def _launch(self, wave: list[SweepJob], board: Board) -> list[JobReturn]:
        self._warm([job for job in self._jobs if job.state in _OPEN])
        with self._parent.environment() as environment:
            return launched(
                wave,
                self._launcher,
                board.tell,
                log_path=self._record.log_path,
                environment=environment,
                output_dir=self._settings.output_dir,
                retry=self._settings.retry,
            )

    def _warm(self, jobs: list[SweepJob]) -> None:
        """Say what the fork server imports, before it starts: what all jobs need, not only those of the first wave."""
        if not self._is_warm:
            own = jobs if isinstance(self._launcher, Supervising) else []
            announce([job.recipe for job in own], is_tracked=bool(self._settings.tracking.get("enabled")))
        self._is_warm = True

    def close(self, state: str) -> None:
        """Write the end, show the table, close MLflow's run."""
        for job in self._jobs:
            if job.state == "running":
                found_now(job, self._settings.output_dir, state="interrupted", reason="it ended with the sweep")
        self._record.end(state)
        given = self._settings
        show_end(self._jobs, title=given.title, output_dir=given.output_dir, record=self._record.path)
        self._warm([])
        self._parent.close(state, self._jobs)
        show_next(
            self._jobs, output_dir=given.output_dir, tracking_uri=given.tracking.get("uri"), command=given.command
        )


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an orderly end."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(EXIT_TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""Run jobs in processes of their own, forked from a server that has imported the heavy libraries once.

A job's death, whatever its kind, leaves the others alone; a job that hangs is ended; nothing outlives the sweep.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from medexp.errors import JobDiedError, JobNotStartedError, JobRefusedError
from medexp.sweeps.guard import Guard, kill_group
from medexp.sweeps.slots import VARIABLE
from medexp.sweeps.worker import Failure, Job, Success, describe_exit, work

# Of a process that has sent its result and only has to leave.
_LEAVE_S = 10.0


@dataclass(frozen=True)
class Limits:
    """How many jobs, how often, how long; the keys below `sweep` in conf/config.yaml."""

    max_parallel: int = 1
    fail_fast: bool = False
    retry: int = 0
    timeout_s: float | None = None
    grace_s: float = 30.0
    slots: tuple[str, ...] = ()


class Events:
    """What somebody who watches is told; overridden where it matters."""

    def started(self, job: Job, attempt: int, slot: str | None) -> None:
        """A process was started."""

    def ended(self, job: Job, result: JobReturn, *, is_last: bool) -> None:
        """A process ended; if it was not the last attempt, the job is tried again."""


@dataclass
class _Running:
    job: Job
    process: Any
    receiver: Connection
    slot: str | None
    deadline_s: float
    asked_at_s: float | None = None


@dataclass(frozen=True)
class _Ready:
    """A job that is composed."""

    job: Job

    def __call__(self) -> Job:
        return self.job


@dataclass
class _Pool:
    """The jobs that wait and run, and the rules that they are under."""

    limits: Limits
    events: Events
    guard: Guard
    context: Any
    waiting: deque[Callable[[], Job]]
    running: list[_Running] = field(default_factory=list)
    done: dict[int, JobReturn] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    stopped: bool = False
    free: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.free = list(self.limits.slots)

    def run(self) -> dict[int, JobReturn]:
        """Bring every job to its end."""
        try:
            while self.waiting or self.running:
                self._fill()
                self._prepare()
                self._collect()
        except BaseException:
            self._abandon()
            raise
        return self.done

    def _fill(self) -> None:
        while self.waiting and self._has_room() and not self.stopped:
            self._start(self.waiting.popleft()(), self.free.pop(0) if self.free else None)
        if self.stopped:
            for waiting in self.waiting:
                self._end(waiting(), JobNotStartedError("an earlier job failed (sweep.fail_fast)"), is_last=True)
            self.waiting.clear()

    def _prepare(self) -> None:
        """Compose the next job while others work, so that a free slot need not wait for it."""
        if self.waiting and not isinstance(self.waiting[0], _Ready):
            self.waiting[0] = _Ready(self.waiting[0]())

    def _has_room(self) -> bool:
        return len(self.running) < self.limits.max_parallel and bool(self.free or not self.limits.slots)

    def _start(self, job: Job, slot: str | None) -> None:
        if slot is not None:
            job = dataclasses.replace(job, environment={**job.environment, VARIABLE: slot})
        receiver, sender = self.context.Pipe(duplex=False)
        process = self.context.Process(target=work, args=(job, sender), name=f"medexp-job-{job.number}")
        process.start()
        self.guard.watch(process.pid)
        sender.close()
        limit = self.limits.timeout_s
        deadline_s = float("inf") if limit is None else time.monotonic() + limit
        self.running.append(_Running(job, process, receiver, slot, deadline_s))
        self.attempts[job.number] = self.attempts.get(job.number, 0) + 1
        self.events.started(job, self.attempts[job.number], slot)

    def _collect(self) -> None:
        if not self.running:
            return
        handles = [handle for one in self.running for handle in (one.receiver, one.process.sentinel)]
        next_s = min(one.deadline_s for one in self.running)
        ready = wait(handles, None if next_s == float("inf") else max(0.0, next_s - time.monotonic()))
        for one in list(self.running):
            if one.receiver in ready or one.process.sentinel in ready:
                self.running.remove(one)
                self._judge(one.job, self._answer(one))
            elif time.monotonic() >= one.deadline_s:
                self._press(one)

    def _press(self, one: _Running) -> None:
        """End a job whose time is over: first ask, so that it saves its step, then kill."""
        if one.asked_at_s is None:
            one.asked_at_s = time.monotonic()
            one.deadline_s = one.asked_at_s + self.limits.grace_s
            _ask(one)
        else:
            one.deadline_s = float("inf")
            kill_group(one.process.pid)
            one.process.kill()

    def _answer(self, one: _Running) -> Any:
        """Return what a process that is through sent, or why it sent nothing; then whatever it left is killed."""
        value: Any = None
        with contextlib.suppress(EOFError, OSError):
            if one.receiver.poll():
                value = one.receiver.recv()
        one.process.join(_LEAVE_S)
        if one.process.is_alive():
            one.process.kill()
            one.process.join()
        self._clear(one)
        if isinstance(value, Success):
            return value.value
        if value is None:
            value = Failure(describe_exit(one.process.exitcode))
        if one.asked_at_s is not None:
            limit = f"timeout: not done after {self.limits.timeout_s:g} s (sweep.timeout_s)"
            value = Failure(f"{limit}; {value.text}")
        return JobRefusedError(value.text) if value.is_refusal else JobDiedError(value.text)

    def _clear(self, one: _Running) -> None:
        kill_group(one.process.pid)
        self.guard.forget(one.process.pid)
        one.receiver.close()
        if one.slot is not None:
            self.free.append(one.slot)

    def _judge(self, job: Job, value: Any) -> None:
        failed = isinstance(value, BaseException)
        again = failed and not isinstance(value, JobRefusedError) and self.attempts[job.number] <= self.limits.retry
        self._end(job, value, is_last=not again)
        if again:
            self.waiting.append(_Ready(job))
        elif failed and self.limits.fail_fast:
            self.stopped = True

    def _end(self, job: Job, value: Any, *, is_last: bool) -> None:
        status = JobStatus.FAILED if isinstance(value, BaseException) else JobStatus.COMPLETED
        result = JobReturn(overrides=list(job.overrides), cfg=job.config, status=status)
        result.return_value = value
        self.done[job.number] = result
        self.events.ended(job, result, is_last=is_last)

    def _abandon(self) -> None:
        """The sweep itself is ended: let every job save its step, then leave none."""
        for one in self.running:
            _ask(one)
        deadline_s = time.monotonic() + self.limits.grace_s
        try:
            for one in self.running:
                one.process.join(max(0.0, deadline_s - time.monotonic()))
        finally:  # also by a second Ctrl-C
            for one in self.running:
                one.process.kill()
                self._clear(one)


def run_isolated(
    jobs: Sequence[Job | Callable[[], Job]],
    *,
    limits: Limits,
    events: Events | None = None,
) -> list[JobReturn]:
    """Run every job and return how each ended, in order.

    Args:
        jobs: The jobs, or functions that compose them when their turn has come.
        limits: The rules.
        events: Who is told.
    """
    context = multiprocessing.get_context("forkserver")
    composers = deque(job if callable(job) else _Ready(job) for job in jobs)
    with Guard() as guard:
        done = _Pool(limits, events or Events(), guard, context, composers).run()
    return [done[number] for number in sorted(done)]


def _ask(one: _Running) -> None:
    """Send SIGTERM to the job's own process: its helpers must live until it has saved its step."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(one.process.pid, signal.SIGTERM)

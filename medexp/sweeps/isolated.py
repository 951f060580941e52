"""Run jobs in processes of their own, forked from a server that has imported the heavy libraries once."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.types import TaskFunction
from omegaconf import DictConfig

from medexp.errors import MedexpError

log = logging.getLogger(__name__)

# Enough to write a checkpoint of the current step.
_GRACE_S = 8.0


class JobDiedError(MedexpError, RuntimeError):
    """A job's process ended without a result: killed, crashed or left by itself."""


@dataclass(frozen=True)
class Job:
    """One composed job. Its output goes to `log_path`, or to the terminal if that is None."""

    number: int
    config: DictConfig
    overrides: tuple[str, ...]
    log_path: Path | None


@dataclass
class _Running:
    job: Job
    process: Any
    receiver: Connection
    started: float


def run_isolated(
    jobs: Sequence[Job], task: TaskFunction, *, max_parallel: int, preload: Iterable[str], fail_fast: bool = False
) -> list[JobReturn]:
    """Run every job, at most `max_parallel` at a time, and return how each ended, in order.

    A job's death, whatever its kind, leaves the others alone. With `fail_fast` no job starts after a failure.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted(preload))
    waiting = list(jobs)
    running: list[_Running] = []
    done: dict[int, JobReturn] = {}
    while waiting or running:
        stopped = fail_fast and any(one.status is JobStatus.FAILED for one in done.values())
        while waiting and len(running) < max_parallel and not stopped:
            running.append(_start(context, waiting.pop(0), task))
        if stopped:
            done |= {job.number: _failed(job, JobDiedError("not started: an earlier job failed")) for job in waiting}
            waiting = []
        if running:
            wait([one.receiver for one in running])
        for one in [one for one in running if one.receiver.poll()]:
            running.remove(one)
            done[one.job.number] = _collected(one)
    return [done[job.number] for job in jobs]


def _start(context: Any, job: Job, task: TaskFunction) -> _Running:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, task, sender), name=f"medexp-job-{job.number}")
    process.start()
    sender.close()
    return _Running(job, process, receiver, time.monotonic())


def _collected(one: _Running) -> JobReturn:
    try:
        value = one.receiver.recv()
    except EOFError:
        value = None
    one.process.join()
    one.receiver.close()
    if value is None:
        return _failed(one.job, JobDiedError(_reason(one.process.exitcode)))
    return _failed(one.job, value) if isinstance(value, BaseException) else _completed(one.job, value)


def _reason(exitcode: int) -> str:
    if exitcode >= 0:
        return f"its process left with exit status {exitcode} before it had a result"
    name = signal.Signals(-exitcode).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{hint}"


def _completed(job: Job, value: Any) -> JobReturn:
    return _returned(job, JobStatus.COMPLETED, value)


def _failed(job: Job, error: BaseException) -> JobReturn:
    return _returned(job, JobStatus.FAILED, error)


def _returned(job: Job, status: JobStatus, value: Any) -> JobReturn:
    result = JobReturn(overrides=list(job.overrides), cfg=job.config, status=status)
    result.return_value = value
    return result


def _work(job: Job, task: TaskFunction, sender: Connection) -> None:
    """The life of a job's process: answer with the outcome, or with an error that can be sent."""
    _end_with_parent()
    if job.log_path is not None:
        _redirect(job.log_path)
    setup_globals()
    HydraConfig.instance().set_config(job.config)
    plain = job.config.copy()
    plain._set_flag(["readonly", "struct"], [False, False])
    plain.pop("hydra")
    try:
        sender.send(task(plain))
    except Exception as error:  # noqa: BLE001 - the process's outermost frame: every error is reported
        if not isinstance(error, MedexpError):
            sys.stderr.write(traceback.format_exc())
        sender.send(_portable(error))
    finally:
        sender.close()
        sys.stdout.flush()


def _portable(error: Exception) -> JobDiedError:
    """Errors of other libraries may not survive the way to the parent; their text does."""
    return JobDiedError(str(error) if isinstance(error, MedexpError) else f"{type(error).__name__}: {error}")


def _redirect(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def _end_with_parent() -> None:
    """Ask this process to end when the sweep's process is gone, even by -9; then insist."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a job's process is started by multiprocessing"

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()

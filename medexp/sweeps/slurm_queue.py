"""What Slurm says about jobs, by its own commands; accounting may be off."""

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hydra.types import RunMode

from medexp.errors import ConfigurationError
from medexp.sweeps.worker import describe_exit

_TIMEOUT_S = 60.0
_FIELD = re.compile(r"(\w+)=(\S*)")
# Of a process that left when it was told to.
EXIT_TERMINATED = 143
# What `ExitCode` says above this is 128 plus the signal that ended the process.
_SIGNAL_BASE = 128


def refuse_outside_queue(hydra_config: Any) -> None:
    """Refuse a single run with `hardware=slurm` outside of a Slurm job: it would run where it was typed.

    Raises:
        ConfigurationError: It is one.
    """
    is_single = hydra_config.mode == RunMode.RUN and hydra_config.runtime.choices.get("hydra/launcher") == "slurm"
    if is_single and "SLURM_JOB_ID" not in os.environ:
        raise ConfigurationError("hardware=slurm: expected -m, which puts the job into Slurm's queue; add it")


@dataclass(frozen=True)
class Queued:
    """A job that Slurm has not finished with: its state, and why it waits."""

    state: str
    reason: str


def queue() -> dict[str, Queued] | None:
    """Return this user's unfinished jobs by number; None if Slurm does not answer."""
    answer = _answer("squeue", "--me", "--noheader", "--array", "--format", "%i|%T|%r")
    if answer is None:
        return None
    rows = [line.split("|", 2) for line in answer.splitlines() if line.count("|") >= 2]
    return {number: Queued(state, reason) for number, state, reason in rows}


def end_of(job: str) -> str | None:
    """Return how a job without a result ended, in words; None if Slurm knows it no longer."""
    answer = _answer("scontrol", "--oneliner", "show", "job", job)
    found = dict(_FIELD.findall(answer or ""))
    state = found.get("JobState")
    if state is None:
        answer = _answer("sacct", "--noheader", "--parsable2", "--allocations", "-j", job, "-o", "State,ExitCode")
        state, _, code = (answer or "").strip().partition("|")
        found = {"ExitCode": code}
    if not state:
        return None
    why = found.get("Reason", "None")
    details = [] if why in {"None", ""} else [why]
    return f"Slurm job {job}: {state}" + "".join(f", {text}" for text in [*details, *_exit(found.get("ExitCode", ""))])


def _exit(code: str) -> list[str]:
    """Return what `status:signal` means."""
    status, _, number = code.partition(":")
    if not status.isdigit():
        return []
    if int(status) == EXIT_TERMINATED:
        return ["it was asked to end, most likely because its time was over (hardware.time_min)"]
    if int(status) > _SIGNAL_BASE:
        return [describe_exit(_SIGNAL_BASE - int(status))]
    if number.isdigit() and int(number):
        return [describe_exit(-int(number))]
    return [describe_exit(int(status))] if int(status) else []


def cancel(jobs: Iterable[str]) -> None:
    """Cancel jobs; those that have ended are left alone."""
    if numbers := list(jobs):
        _answer("scancel", "--quiet", *numbers)


def _answer(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None

"""What Slurm says about jobs, by its own commands; accounting may be off."""

import logging
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from medexp.sweeps.worker import describe_exit

log = logging.getLogger(__name__)

_TIMEOUT_S = 60.0
_FIELD = re.compile(r"(\w+)=(\S*)")
# What `ExitCode` says above this is 128 plus the signal that ended the process.
_SIGNAL_BASE = 128


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


def end_of(job: str) -> str:
    """Return how a job without a result ended, in words."""
    answer = _answer("scontrol", "--oneliner", "show", "job", job)
    found = dict(_FIELD.findall(answer or ""))
    state = found.get("JobState")
    if state is None:
        answer = _answer("sacct", "--noheader", "--parsable2", "--allocations", "-j", job, "-o", "State,ExitCode")
        state, _, code = (answer or "").strip().partition("|")
        found = {"ExitCode": code}
    if not state:
        return f"Slurm job {job}: no longer known, and it left no result"
    why = found.get("Reason", "None")
    details = [] if why in {"None", ""} else [why]
    return f"Slurm job {job}: {state}" + "".join(f", {text}" for text in [*details, *_exit(found.get("ExitCode", ""))])


def _exit(code: str) -> list[str]:
    """Return what `status:signal` means."""
    status, _, number = code.partition(":")
    if not status.isdigit():
        return []
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

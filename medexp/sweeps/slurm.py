"""Run the jobs of a wave on Slurm, wait for them, and say how each ended."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from medexp.errors import JobDiedError, JobRefusedError
from medexp.sweeps.slurm_node import NodeJob
from medexp.sweeps.slurm_queue import Queued, cancel, end_of, queue
from medexp.sweeps.slurm_submit import Submitted, submit
from medexp.sweeps.worker import Failure, Success

log = logging.getLogger(__name__)

_POLL_S = 1.0
# How long a result may take to appear on this machine's view of the shared folder after its job has ended.
_SETTLE_S = 10.0
_WAITING = frozenset({"PENDING", "SUSPENDED", "REQUEUE_HOLD", "REQUEUED", "SPECIAL_EXIT", "STOPPED"})


def run_on_slurm(jobs: Sequence[NodeJob], *, parameters: Mapping[str, Any], output_dir: Path) -> list[JobReturn]:
    """Submit the jobs and return how each ended, in order.

    Whatever ends the waiting, Ctrl-C for instance, cancels what is left. After a kill -9 the jobs go on; the same
    sweep finds them in the queue and waits for them.

    Raises:
        MissingDependencyError: submitit is not installed.
        ConfigurationError: There is no Slurm on this machine, or it refuses what was asked for.
    """
    waiting = [_Waiting(one) for one in submit(jobs, parameters, output_dir)]
    try:
        while any(one.result is None for one in waiting):
            time.sleep(_POLL_S)
            _look(waiting)
    finally:
        cancel(one.job.number for one in waiting if one.result is None)
        for one in waiting:
            one.job.mark.unlink(missing_ok=True)
    return [_returned(one.job.job, one.result) for one in waiting if one.result is not None]


@dataclass
class _Waiting:
    """A submitted job, what it answered, and what was last told about it."""

    job: Submitted
    result: Success | Failure | None = None
    told: str = ""
    gone_s: float | None = None


def _look(waiting: Sequence[_Waiting]) -> None:
    """Collect results, tell why jobs wait, and give up on those that Slurm has ended."""
    queued = queue()
    for one in (one for one in waiting if one.result is None):
        one.result = _result(one.job.handle)
        if one.result is not None or queued is None:  # Slurm's controller is away: jobs go on without it
            continue
        if one.job.number in queued:
            one.gone_s = None
            _tell(one, queued[one.job.number])
        else:
            _give_up(one)


def _result(handle: Any) -> Success | Failure | None:
    if not handle.paths.result_pickle.exists():
        return None
    error = handle.exception()
    if error is None:
        return handle.result()
    # The job could not be started: submitit shows the trace between two rules.
    parts = [part.strip() for part in str(error).split("----------------------") if part.strip()]
    return Failure(parts[min(1, len(parts) - 1)].splitlines()[-1])


def _tell(one: _Waiting, found: Queued) -> None:
    text = found.state.lower() + (f" ({found.reason})" if found.reason not in {"None", ""} else "")
    if text != one.told and found.state in _WAITING:
        log.info("job %d, Slurm job %s: %s", one.job.job.number, one.job.number, text)
    one.told = text


def _give_up(one: _Waiting) -> None:
    now = time.monotonic()
    one.gone_s = now if one.gone_s is None else one.gone_s
    if now - one.gone_s > _SETTLE_S:
        # Slurm forgets an element of an array that is cancelled before it starts.
        known = end_of(one.job.number) or f"Slurm job {one.job.number}: CANCELLED while it was {one.told or 'pending'}"
        log_path = one.job.handle.paths.stdout
        one.result = Failure(f"{known}; its log: {log_path}" if log_path.exists() else known)


def _returned(job: NodeJob, result: Success | Failure) -> JobReturn:
    answer = JobReturn(overrides=list(job.overrides), cfg=job.config)
    if isinstance(result, Success):
        answer.status, answer.return_value = JobStatus.COMPLETED, result.value
    else:
        answer.status = JobStatus.FAILED
        answer.return_value = (JobRefusedError if result.is_refusal else JobDiedError)(result.text)
    return answer

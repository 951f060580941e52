"""Run the jobs of a wave on Slurm through submitit, wait for them, and say how each ended."""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from medexp.errors import ConfigurationError, JobDiedError, JobRefusedError, MissingDependencyError
from medexp.sweeps.slurm_node import NodeJob
from medexp.sweeps.slurm_queue import Queued, cancel, end_of, queue
from medexp.sweeps.worker import Failure, Success

log = logging.getLogger(__name__)

_POLL_S = 1.0
# How long a result may take to appear on this machine's view of the shared folder after its job has ended.
_SETTLE_S = 10.0


def run_on_slurm(jobs: Sequence[NodeJob], *, parameters: Mapping[str, Any], output_dir: Path) -> list[JobReturn]:
    """Submit the jobs as one array and return how each ended, in order.

    Whatever ends the waiting, Ctrl-C for instance, cancels what is left; a kill -9 leaves the jobs to Slurm.

    Raises:
        MissingDependencyError: submitit is not installed.
        ConfigurationError: There is no Slurm on this machine, or it refuses what was asked for.
    """
    waiting = [_Waiting(job, handle) for job, handle in zip(jobs, _submit(jobs, parameters, output_dir), strict=True)]
    try:
        while any(one.result is None for one in waiting):
            time.sleep(_POLL_S)
            _look(waiting)
    finally:
        cancel(one.number for one in waiting if one.result is None)
    return [one.returned() for one in waiting]


def _submit(jobs: Sequence[NodeJob], parameters: Mapping[str, Any], output_dir: Path) -> list[Any]:
    try:
        import submitit
    except ImportError as error:
        raise MissingDependencyError("slurm") from error
    if shutil.which("sbatch") is None:
        raise ConfigurationError("hardware=slurm: expected Slurm's commands on this machine, found no sbatch")
    given = {name: value for name, value in parameters.items() if value is not None}
    executor = submitit.AutoExecutor(folder=output_dir / ".submitit" / "%j", cluster="slurm")
    # Slurm writes what the process says into one file; --requeue lets it start a job again after preemption.
    executor.update_parameters(
        name="medexp",
        stderr_to_stdout=True,
        slurm_additional_parameters={"requeue": True},
        **given,
    )
    try:
        with executor.batch():
            handles = [executor.submit(job) for job in jobs]
    except submitit.core.utils.FailedJobError as error:
        message = str(error).strip().splitlines()
        raise ConfigurationError(f"hardware=slurm: sbatch refused the jobs: {message[-1]}") from error
    log.info("submitted to Slurm: %s", ", ".join(handle.job_id for handle in handles))
    return handles


@dataclass
class _Waiting:
    """A submitted job."""

    job: NodeJob
    handle: Any
    result: Success | Failure | None = None
    told: str = ""
    gone_s: float | None = field(default=None)

    @property
    def number(self) -> str:
        return str(self.handle.job_id)

    def returned(self) -> JobReturn:
        answer = JobReturn(overrides=list(self.job.overrides), cfg=self.job.config)
        if isinstance(self.result, Success):
            answer.status, answer.return_value = JobStatus.COMPLETED, self.result.value
            return answer
        assert self.result is not None
        answer.status = JobStatus.FAILED
        answer.return_value = (JobRefusedError if self.result.is_refusal else JobDiedError)(self.result.text)
        return answer


def _look(waiting: Sequence[_Waiting]) -> None:
    """Collect results, tell why jobs wait, and give up on those that Slurm has ended."""
    queued = queue()
    for one in waiting:
        if one.result is not None:
            continue
        one.result = _result(one.handle)
        if one.result is None and queued is not None:
            if one.number in queued:
                one.gone_s = None
                _tell(one, queued[one.number])
            else:
                _give_up(one)


def _result(handle: Any) -> Success | Failure | None:
    if not handle.paths.result_pickle.exists():
        return None
    error = handle.exception()
    return handle.result() if error is None else Failure(str(error).strip().splitlines()[-1])


def _tell(one: _Waiting, found: Queued) -> None:
    text = f"{found.state.lower()} ({found.reason})" if found.reason not in {"None", ""} else found.state.lower()
    if text != one.told and found.state in {"PENDING", "SUSPENDED", "REQUEUE_HOLD", "SPECIAL_EXIT"}:
        log.info("job %d, Slurm job %s: %s", one.job.number, one.number, text)
    one.told = text


def _give_up(one: _Waiting) -> None:
    now = time.monotonic()
    one.gone_s = one.gone_s or now
    if now - one.gone_s > _SETTLE_S:
        one.result = Failure(f"{end_of(one.number)}; its log: {one.handle.paths.stdout}")

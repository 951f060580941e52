"""Hand jobs to Slurm through submitit, and find again those that an earlier process of the same sweep has submitted."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medexp.errors import ConfigurationError, MissingDependencyError
from medexp.runs.files import read_json, write_json
from medexp.runs.identity import identity_of, short
from medexp.sweeps.slurm_node import NodeJob
from medexp.sweeps.slurm_queue import queue

log = logging.getLogger(__name__)

_FOLDER = ".submitit"


@dataclass(frozen=True)
class Submitted:
    """A job of the sweep that Slurm has.

    `handle` is submitit's; `mark` is the file by which a restarted sweep finds the job again.
    """

    job: NodeJob
    handle: Any
    mark: Path

    @property
    def number(self) -> str:
        """Slurm's number, for example 12 or 12_3."""
        return str(self.handle.job_id)


def submit(jobs: Sequence[NodeJob], parameters: Mapping[str, Any], output_dir: Path) -> list[Submitted]:
    """Submit the jobs as one array, except those that are in Slurm's queue already, and return all in order.

    Raises:
        MissingDependencyError: submitit is not installed.
        ConfigurationError: There is no Slurm on this machine, or it refuses what was asked for.
    """
    try:
        import submitit
    except ImportError as error:
        raise MissingDependencyError("slurm") from error
    if shutil.which("sbatch") is None:
        raise ConfigurationError("hardware=slurm: expected Slurm's commands on this machine, found no sbatch")
    folder = output_dir / _FOLDER
    known = queue() or {}
    found = {job.number: _find(job, folder, known) for job in jobs}
    new = [job for job in jobs if found[job.number] is None]
    if new:
        executor = submitit.AutoExecutor(folder=folder / "%j", cluster="slurm")
        given = {name: value for name, value in parameters.items() if value is not None}
        # One file for all that a job says; Slurm may start it again after preemption.
        executor.update_parameters(
            name="medexp", stderr_to_stdout=True, slurm_additional_parameters={"requeue": True}, **given
        )
        found |= dict(zip((job.number for job in new), _handed_over(executor, new, folder), strict=True))
    return [one for job in jobs if (one := found[job.number]) is not None]


def _handed_over(executor: Any, jobs: Sequence[NodeJob], folder: Path) -> list[Submitted]:
    try:
        with executor.batch():
            handles = [executor.submit(job) for job in jobs]
    except RuntimeError as error:  # submitit's own error for a command that failed, with what the command said
        message = str(error).strip().splitlines()
        raise ConfigurationError(f"hardware=slurm: Slurm refused the jobs: {message[-1]}") from error
    log.info("submitted to Slurm: %s", ", ".join(handle.job_id for handle in handles))
    submitted = [Submitted(job, handle, _mark(job, folder)) for job, handle in zip(jobs, handles, strict=True)]
    for one in submitted:
        write_json(one.mark, {"slurm_job": one.number}, durable=False)
    return submitted


def _find(job: NodeJob, folder: Path, known: Mapping[str, object]) -> Submitted | None:
    import submitit

    mark = _mark(job, folder)
    number = str(read_json(mark)["slurm_job"]) if mark.exists() else ""
    if number not in known:
        return None
    log.info("job %d is in Slurm's queue already, as %s", job.number, number)
    return Submitted(job, submitit.SlurmJob(folder=folder / "%j", job_id=number), mark)


def _mark(job: NodeJob, folder: Path) -> Path:
    return folder / "open" / f"{short(identity_of({'line': list(job.overrides)}))}.json"

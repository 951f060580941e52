"""A job on a node of the cluster: let Slurm's signals through, run, and go back into the queue when told to leave.

Imported by the process that submitit starts there, and by nothing before.
"""

import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from types import FrameType
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from medexp.sweeps.job import EXIT_TERMINATED
from medexp.sweeps.worker import Failure, Success, failure_of

log = logging.getLogger(__name__)

# Slurm warns with SIGTERM, submitit asks for a warning with SIGUSR2 before the time is over.
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_COMMAND_S = 60.0


@dataclass(frozen=True)
class NodeJob:
    """What is sent to a node: a job of the sweep, and everything that composes it there.

    Attributes:
        hydra_context: Holds the configuration's sources.
        config: The sweep's configuration.
        task: What is called with the job's.
        overrides: The job's line.
        number: Its place in the sweep.
        requeues: How often it may go back into the queue.
        singletons: Hydra's own state.
    """

    hydra_context: HydraContext
    config: DictConfig
    task: TaskFunction
    overrides: tuple[str, ...]
    number: int
    requeues: int
    singletons: Any

    def __call__(self) -> Success | Failure:
        """Run the job; leaving because of a signal, ask Slurm to start it again."""
        for number in _SIGNALS:
            signal.signal(number, _leave)
        try:
            return self._run()
        except SystemExit as leaving:
            if leaving.code == EXIT_TERMINATED:
                go_back(self.requeues)
            raise
        except Exception as error:  # noqa: BLE001 - the job's outermost frame: every error is reported
            sys.stderr.write(traceback.format_exc())
            return failure_of(error)

    def _run(self) -> Success | Failure:
        Singleton.set_state(self.singletons)
        setup_globals()
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(self.overrides))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = slurm_job(), self.number
        returned = run_job(
            hydra_context=self.hydra_context,
            task_function=self.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if returned.status is JobStatus.COMPLETED:
            return Success(returned.return_value)
        return failure_of(returned._return_value)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(EXIT_TERMINATED)


def slurm_job() -> str:
    """Return this job's number as Slurm's commands take it."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def go_back(requeues: int) -> None:
    """Put this job back into the queue, unless it was cancelled, Slurm does so itself, or it did so too often.

    A job that is being cancelled, requeued or preempted is not RUNNING any more: then Slurm knows what comes next.
    """
    job, done = slurm_job(), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    state = _output("squeue", "--noheader", "--jobs", job, "--format", "%T")
    if state != "RUNNING":
        return
    if done >= requeues:
        log.warning("Slurm job %s: was in the queue %d times already (hardware.requeues); it ends here", job, done)
        return
    log.info("Slurm job %s goes back into the queue; it continues from the saved step", job)
    _output("scontrol", "requeue", job)
    time.sleep(_COMMAND_S)  # Slurm ends this process


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("%s: %s", " ".join(command), error)
        return ""
    return done.stdout.strip()

"""A job's process, seen from inside: set up, do the task, answer, leave nothing behind."""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import TextIOWrapper
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from hydra.types import TaskFunction
from omegaconf import DictConfig

from medexp.errors import ConfigurationError, JobRefusedError, MedexpError
from medexp.sweeps.guard import GRACE_S, kill_group


@dataclass(frozen=True)
class Job:
    """One composed job.

    Attributes:
        number: Its place in the sweep.
        config: Its configuration with Hydra's node.
        overrides: Its single-run command line.
        task: What is called with the configuration; a module's function or a partial of one.
        log_path: Where its output goes; the terminal if None.
        environment: Variables that it gets.
    """

    number: int
    config: DictConfig
    overrides: tuple[str, ...]
    task: TaskFunction
    log_path: Path | None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Success:
    """What the task returned."""

    value: Any


@dataclass(frozen=True)
class Failure:
    """An error in words: errors of other libraries may not survive the way to the sweep's process."""

    text: str
    is_refusal: bool = False


def work(job: Job, sender: Connection) -> None:
    """Do the job and send a Success or a Failure."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the fork server ignores it
    os.setpgid(0, 0)  # whatever it starts can be ended with it, and the terminal's Ctrl-C goes to the sweep alone
    os.environ.update(job.environment)
    _end_with_parent()
    if job.log_path is not None:
        _redirect(job.log_path)
    setup_globals()
    HydraConfig.instance().set_config(job.config)
    plain = job.config.copy()
    plain._set_flag(["readonly", "struct"], [False, False])
    plain.pop("hydra")
    try:
        sender.send(Success(job.task(plain)))
    except Exception as error:  # noqa: BLE001 - the process's outermost frame: every error is reported
        if not isinstance(error, MedexpError):
            sys.stderr.write(traceback.format_exc())
        sender.send(failure_of(error))
    finally:
        sender.close()
        sys.stdout.flush()


def failure_of(error: BaseException) -> Failure:
    """Return an error in words; of errors that are not medexp's own, also the kind."""
    is_refusal = isinstance(error, ConfigurationError | JobRefusedError)
    return Failure(str(error) if isinstance(error, MedexpError) else f"{type(error).__name__}: {error}", is_refusal)


def _redirect(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def _end_with_parent() -> None:
    """Ask this process to end when the sweep's process is gone, then insist: a second line behind the guard."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a job's process is started by multiprocessing"

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        kill_group(os.getpid())

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def describe_exit(exitcode: int) -> str:
    """Return why a process that sent nothing has ended, from its exit status."""
    if exitcode >= 0:
        return f"its process left with exit status {exitcode} before it had a result"
    name = signal.Signals(-exitcode).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{hint}"

"""The sweep's own record: a folder of plain files that says what was asked for and what became of every job.

sweep.json  the line, the sweep's state, every job with state, reason, run folder, log, score and time
<job>.log   what a job's process wrote

It is found from what the jobs ask for, so the same line continues the same record, also after a kill -9.
"""

import fcntl
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from medexp.errors import RunBusyError
from medexp.runs.files import read_json, write_json
from medexp.runs.identity import identity_of, short
from medexp.runs.ledger import now
from medexp.sweeps.plan import SweepJob

FILE, FOLDER = "sweep.json", "sweeps"


class SweepRecord:
    """The record of one sweep; one process at a time holds it.

    Args:
        jobs: The planned jobs; what they ask for is the sweep's identity.
        output_dir: Below it lies the folder `sweeps`.
        command: The line that was given.
    """

    def __init__(self, jobs: Sequence[SweepJob], *, output_dir: Path, command: str) -> None:
        self._jobs, self._output_dir, self._command = jobs, output_dir, command
        self.identity = identity_of({"jobs": sorted(job.recipe.key for job in jobs)})
        stages = "-".join(dict.fromkeys(job.stage for job in jobs))
        self.folder = output_dir / FOLDER / f"{stages}-{short(self.identity)}"
        self._facts: dict[str, Any] = {}
        self._lock: IO[str] | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / FILE

    @property
    def parent_run(self) -> str | None:
        """MLflow's run over the sweep, if an earlier start made one."""
        return self._facts.get("mlflow_run")

    def begin(self) -> str | None:
        """Take the record and return the state in which an earlier start left it; None: there was none.

        Raises:
            RunBusyError: Another live process runs this sweep.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("a+")
        earlier = read_json(self.path) if self.path.exists() else {}
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            self._lock = None
            holder = f"process {earlier.get('pid')} on {earlier.get('host')}"
            raise RunBusyError(f"{self.folder}: {holder} is running this sweep; wait for it or stop it") from error
        state = earlier.get("state")
        self._facts = {
            "identity": self.identity,
            "mlflow_run": earlier.get("mlflow_run"),
            "starts": int(earlier.get("starts", 0)) + 1,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "created": earlier.get("created", now()),
            "started": now(),
        }
        self.write("running")
        return "interrupted" if state == "running" else state

    def note(self, **facts: Any) -> None:
        """Add facts to the record's head; they are written with the next state."""
        self._facts |= facts

    def write(self, state: str) -> None:
        """Write the sweep's state and those of its jobs."""
        jobs = [_described(job, self._output_dir) for job in self._jobs]
        write_json(self.path, {**self._facts, "command": self._command, "state": state, "time": now(), "jobs": jobs})

    def end(self, state: str) -> None:
        """Write the final state and give the record back."""
        self.write(state)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def log_path(self, job: SweepJob) -> Path:
        """Return where a job's process writes."""
        values = "".join(f"-{key.rpartition('.')[2]}{value}" for key, value in job.values.items())
        name = re.sub(r"[^\w.+=,-]+", "_", f"{job.number:03d}-{job.stage}{values}")[:100]
        return self.folder / f"{name}.log"


def read_record(folder: Path) -> Mapping[str, Any]:
    """Return a sweep's record; a `running` that nobody holds is `interrupted`."""
    record = dict(read_json(folder / FILE))
    if record["state"] == "running" and not _is_held(folder / "lock"):
        record["state"] = "interrupted"
    return record


def _is_held(path: Path) -> bool:
    with path.open("a+") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _described(job: SweepJob, output_dir: Path) -> dict[str, Any]:
    outcome = job.outcome
    folder = Path(outcome.folder) if outcome is not None else job.folder
    return {
        "number": job.number,
        "stage": job.stage,
        "values": job.values,
        "state": job.state,
        "reused": job.is_reused,
        "reason": job.reason,
        "attempts": job.attempts,
        "started": job.started or None,
        "ended": job.ended or None,
        "score": None if outcome is None else outcome.objective,
        "elapsed_s": None if outcome is None else outcome.elapsed_s,
        "run": None if folder is None else os.path.relpath(folder, output_dir),
        "log": None if job.log is None else os.path.relpath(job.log, output_dir),
        "command": job.recipe.command,
    }

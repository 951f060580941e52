"""The ledger: every run's record as plain files in the run's folder. It is the source of truth; MLflow is a view.

run.json      identity, what was hashed, configuration, upstream, versions, git, machine (written at the start)
state.json    running, finished, failed or interrupted; pid, host, times, reason, score
outputs.json  what the run made: relative path, size and SHA-256 of each file, one digest over all
metrics.jsonl one line per logged step
sessions.jsonl one line per process that worked on it: time, code, versions, machine
"""

import fcntl
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from weakref import WeakValueDictionary

from medexp.errors import CheckpointMismatchError, ManifestError, RunBusyError
from medexp.runs.files import read_json, sha256_of, write_json
from medexp.runs.identity import identity_of
from medexp.runs.provenance import code_version, git_state, machine, versions

# Files that this process holds a lock on: asking the kernel about them would open and close them, and closing any
# handle of a file gives back a POSIX lock on it. A handle that is gone holds nothing.
_HELD: WeakValueDictionary[tuple[int, int], IO[str]] = WeakValueDictionary()

SESSIONS = "sessions.jsonl"
STATES = ("running", "finished", "failed", "interrupted", "skipped")


@dataclass(frozen=True)
class Output:
    """A file or folder that a run made. A folder's digest is that of the manifest file inside it."""

    name: str
    path: Path
    sha256: str
    size: int

    def verified(self) -> Path:
        """Return the path after comparing the file with what was recorded.

        Raises:
            CheckpointMismatchError: The file is missing or its bytes have changed.
        """
        if not self.path.exists():
            raise CheckpointMismatchError(f"{self.path}: expected the recorded output '{self.name}', found no file")
        found = sha256_of(self.path)
        if found != self.sha256:
            message = f"{self.path}: expected sha256 {self.sha256}, got {found}; the file changed after its run ended"
            raise CheckpointMismatchError(message)
        return self.path

    def seems_intact(self) -> bool:
        """Say whether the file is there with its recorded size; reads no content."""
        return self.path.exists() and self.path.stat().st_size == self.size


@dataclass
class Run:
    """One attempt at one identity, and its folder.

    A process that writes to it holds its lock; a killed process loses the lock, so a folder that says
    `running` while nobody holds the lock belongs to an interrupted run.
    """

    folder: Path
    record: dict[str, Any]
    _lock: IO[str] | None = field(default=None, repr=False)
    _metrics: IO[str] | None = field(default=None, repr=False)

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Return the recorded run in `folder`.

        Raises:
            ManifestError: The folder holds no run.
        """
        return cls(folder, read_json(folder / "run.json"))

    @property
    def identity(self) -> str:
        """The full hash that addresses this run."""
        return str(self.record["identity"])

    @property
    def name(self) -> str:
        """The folder's name, which is unique below the output folder's dataset."""
        return self.folder.name

    @property
    def state(self) -> str:
        """Return one of `STATES`; a `running` that nobody holds is `interrupted`."""
        recorded = str(self.read_state().get("state", "interrupted"))
        if recorded == "running" and self._lock is None and not self.is_held():
            return "interrupted"
        return recorded

    def read_state(self) -> dict[str, Any]:
        """Return state.json as it is, empty if it is missing."""
        path = self.folder / "state.json"
        return dict(read_json(path)) if path.exists() else {}

    def write_state(self, state: str, **details: Any) -> None:
        """Replace the state; times are ISO 8601 in UTC."""
        if state not in STATES:
            raise ValueError(f"expected a state of {STATES}, got {state!r}")
        kept = {key: value for key, value in self.read_state().items() if key in {"started"}}
        write_json(self.folder / "state.json", {**kept, "state": state, "time": now(), **details})

    def begin(self) -> None:
        """Take the lock and say `running`.

        Raises:
            RunBusyError: Another live process holds this run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._is_held_here():
            raise self._busy()
        self._lock = (self.folder / "lock").open("a+")
        try:
            # POSIX record locks are not inherited by forked loader processes, so they cannot outlive the run.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            self._lock = None
            raise self._busy() from error
        _HELD[_file_id(self.folder / "lock")] = self._lock
        write_json(self.folder / "run.json", self.record)
        self._note_session()
        self.write_state("running", pid=os.getpid(), host=socket.gethostname(), started=now())

    def _busy(self) -> RunBusyError:
        state = self.read_state()
        holder = f"process {state.get('pid')} on {state.get('host')}"
        return RunBusyError(f"{self.folder}: {holder} is working on this run; wait for it or stop it")

    def _note_session(self) -> None:
        """Append with what this process works on the run: a run that resumes may meet other code or another machine."""
        session = {"time": now(), "code_version": code_version(), "git": git_state(), "versions": versions()}
        with (self.folder / SESSIONS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**session, "machine": machine()}) + "\n")

    def sessions(self) -> list[dict[str, Any]]:
        """Return with what each process worked on the run, the first one first; a line cut by a kill is left out."""
        path = self.folder / SESSIONS
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def _is_held_here(self) -> bool:
        path = self.folder / "lock"
        holder = _HELD.get(_file_id(path)) if path.exists() else None
        return holder is not None and not holder.closed

    def is_held(self) -> bool:
        """Say whether a live process holds the lock, this one included."""
        path = self.folder / "lock"
        if not path.exists():
            return False
        if self._is_held_here():
            return True
        with path.open("a+") as stream:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def end(self, state: str, **details: Any) -> None:
        """Write the final state and give the lock back."""
        self.write_state(state, **details)
        self.release()

    def release(self) -> None:
        """Close what is open; the state stays as it is."""
        for stream in (self._metrics, self._lock):
            if stream is not None:
                stream.close()
        self._metrics = self._lock = None

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Append one line to metrics.jsonl; it reaches the operating system before the call returns."""
        if self._metrics is None:
            self._metrics = (self.folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._metrics.write(json.dumps({"step": step, **metrics}) + "\n")
        self._metrics.flush()

    def write_outputs(self, outputs: Mapping[str, Path], *, digest: str | None, **details: Any) -> None:
        """Record what the run made. `digest` stands for the result; by default it covers all outputs."""
        described = {name: _described(path, self.folder) for name, path in outputs.items()}
        result = digest if digest is not None else identity_of({k: v["sha256"] for k, v in described.items()})
        record = {"outputs": described, "digest": result, "by_content": digest is not None, **details}
        write_json(self.folder / "outputs.json", record)

    def outputs(self) -> dict[str, Output]:
        """Return what the run made, by name; empty before it has ended."""
        path = self.folder / "outputs.json"
        recorded = read_json(path)["outputs"] if path.exists() else {}
        return {
            name: Output(name, self.folder / entry["path"], entry["sha256"], entry["size"])
            for name, entry in recorded.items()
        }

    def output(self, name: str) -> Output:
        """Return one recorded output.

        Raises:
            ManifestError: The run recorded no such output.
        """
        outputs = self.outputs()
        if name not in outputs:
            raise ManifestError(f"{self.folder}: expected an output '{name}', got {sorted(outputs)}")
        return outputs[name]

    @property
    def result(self) -> dict[str, Any]:
        """Return outputs.json as it is, empty if the run has not ended."""
        path = self.folder / "outputs.json"
        return dict(read_json(path)) if path.exists() else {}

    @property
    def digest(self) -> str | None:
        """Return the hash of what the run made, or None before it has ended."""
        return self.result.get("digest")

    def damaged_outputs(self) -> list[str]:
        """Return the names of outputs that are missing or of another size."""
        return [name for name, output in self.outputs().items() if not output.seems_intact()]


def _described(path: Path, folder: Path) -> dict[str, Any]:
    relative = os.path.relpath(path, folder)
    return {"path": relative, "size": path.stat().st_size, "sha256": sha256_of(path)}


def _file_id(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def now() -> str:
    """Return the present time, UTC, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")

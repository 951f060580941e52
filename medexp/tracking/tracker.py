"""What stages and callbacks log to."""

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from medexp.errors import TrackingError
from medexp.runs.files import write_json
from medexp.runs.identity import flatten
from medexp.runs.ledger import Run
from medexp.tracking.event_log import EventLog
from medexp.tracking.mirror import KEY_TAG, METRICS, RECORD, Mirror, catch_up, database_uri, forgive, owe
from medexp.tracking.redaction import redact
from medexp.types import Positive

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]
# By which a sweep's jobs find the sweep and its MLflow run.
SWEEP_VARIABLE, PARENT_VARIABLE = "MEDEXP_SWEEP_ID", "MEDEXP_MLFLOW_PARENT"
PARENT_TAG = "mlflow.parentRunId"
_MAX_PARAM = 250  # a longer parameter is cut or refused, depending on the store
_MAX_TAG = 5000
# How long the end of a run waits for what is being sent: to a server, and to a database on this machine, whose makers
# wait for each other when many runs start at once. A database that fails says so by itself, and earlier.
_JOIN_S, _LOCAL_JOIN_S = 30.0, 300.0


class Tracker:
    """Log to the run's folder at once, and to MLflow from a background thread every `flush_every_s` seconds.

    The thread starts with the first metrics, so that importing MLflow delays no first step; a run that logs
    none is sent when it finishes. A lost server or database never ends a run unless `strict`: one loud warning,
    and what MLflow lacks is sent when it comes back, at the end, or by `sync`.

    Args:
        run: The ledger's run; a resumed run finds its MLflow run through its folder.
        output_dir: Where the database and the artifacts lie when `uri` is null.
        uri: Address of an MLflow server or database; null: `mlflow.db` in `output_dir`.
        experiment: MLflow's experiment.
        enabled: False: only the folder is written.
        strict: MLflow must answer at the start, and its loss ends the run.
        flush_every_s: Time between two transfers.
        tensorboard: Write a TensorBoard log into the run's folder as well, whether MLflow is enabled or not.
        tags: For example stage, dataset, model, fold and seed; written with the prefix `medexp.`.

    Raises:
        TrackingError: `strict`, and MLflow cannot be reached.
    """

    def __init__(
        self,
        run: Run,
        *,
        output_dir: Path,
        uri: str | None,
        experiment: str,
        enabled: bool,
        strict: bool,
        flush_every_s: Positive,
        tensorboard: bool = False,
        tags: Mapping[str, object] | None = None,
    ) -> None:
        self._run, self._output_dir = run, output_dir
        self._enabled, self._strict, self._flush_every_s = enabled, strict, flush_every_s
        self._mirror = Mirror(run.folder)
        self._events = EventLog(run.folder) if tensorboard else None
        self._thread: threading.Thread | None = None
        self._wake, self._stop = threading.Event(), threading.Event()
        self._failure: Exception | None = None
        self._record: dict[str, Any] = {
            "uri": uri or database_uri(output_dir),
            "artifact_root": None if uri else (output_dir / "mlartifacts").resolve().as_uri(),
            "experiment": experiment,
            "run_name": run.name,
            "tags": _tags(run, tags or {}),
            "params": {},
            "artifacts": [],
            "status": None,
            "start_ms": int(time.time() * 1000),
            "end_ms": None,
        }
        if enabled:
            forgive(output_dir, run.folder)
            self._write_record()
            if strict:
                self._push()
                self._check()

    def log_metrics(self, metrics: Mapping[str, float | int], step: int) -> None:
        """Append one line to the run's metrics.jsonl; costs microseconds.

        Raises:
            TrackingError: `strict`, and the last transfer failed.
        """
        self._run.log_metrics({"time": round(time.time(), 3), **metrics}, step)
        if self._events is not None:
            self._events.log(metrics, step)
        if self._enabled:
            self._check()
            if self._thread is None:
                self._start()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Add parameters: nested keys become dotted, secrets are hidden, long values go to an artifact."""
        flat = {key: _text(value) for key, value in flatten(redact(params)).items()}
        long = {key: text for key, text in flat.items() if max(len(text), len(key)) > _MAX_PARAM}
        self._record["params"].update({key: text for key, text in flat.items() if key not in long})
        if long:
            write_json(self._run.folder / "long_parameters.json", long)
            self.log_artifact(self._run.folder / "long_parameters.json")
        self._write_record()

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Add a file, a figure for instance; it is copied with the next transfer."""
        entry = [str(path), folder]
        if entry not in self._record["artifacts"]:
            self._record["artifacts"].append(entry)
        self._write_record()

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Add or replace tags; keys stay as they are."""
        self._record["tags"].update({key: str(redact(str(value)))[:_MAX_TAG] for key, value in tags.items()})
        self._write_record()

    def rewind(self, step: int) -> int:
        """Forget the logged lines behind `step`, from which a resumed run goes on; return their number."""
        path = self._run.folder / METRICS
        if self._events is not None:
            self._events.rewind(step)
        if not path.exists():
            return 0
        kept = dropped = 0
        with path.open("rb+") as stream:
            for line in stream:
                if dropped or not line.endswith(b"\n") or int(json.loads(line)["step"]) > step:
                    dropped += 1
                else:
                    kept += len(line)
            stream.truncate(kept)
        return dropped

    def finish(self, status: Status) -> None:
        """Send everything that is left and close MLflow's run.

        Raises:
            TrackingError: `strict`, and MLflow cannot be reached.
        """
        if self._events is not None:
            self._events.close()
        if not self._enabled:
            return
        self._record.update(status=status, end_ms=int(time.time() * 1000))
        self._write_record()
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            limit_s = _LOCAL_JOIN_S if self._record["uri"].startswith("sqlite:///") else _JOIN_S
            self._thread.join(limit_s)
            if self._thread.is_alive():
                self._failure = TimeoutError(f"no answer within {limit_s:.0f} s")
                self._owe()
                return
        self._push()
        if self._failure is not None:
            self._owe()
        else:
            catch_up(self._output_dir)
        self._check()

    def _owe(self) -> None:
        owe(self._output_dir, self._run.folder)
        self._warn("the end of the run was not sent")

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._keep_sending, name="mlflow", daemon=True)
        self._thread.start()

    def _keep_sending(self) -> None:
        while not self._stop.is_set():
            self._push()
            self._wake.wait(self._flush_every_s)

    def _push(self) -> None:
        lost = self._failure is not None
        try:
            self._mirror.push()
        except Exception as error:  # noqa: BLE001 - its store's, its server's, the network's
            self._failure = error
            if not lost:
                self._warn("training goes on")
            return
        self._failure = None
        if lost:
            log.warning("MLflow at %s answers again; nothing is missing there", redact(self._record["uri"]))

    def _warn(self, consequence: str) -> None:
        log.warning(
            "TRACKING LOST: MLflow at %s: %s. %s; every metric is in %s and is sent when MLflow answers again, at the "
            "latest with the next run",
            redact(self._record["uri"]),
            redact((str(self._failure).strip() or repr(self._failure)).splitlines()[0][:300]),
            consequence.capitalize(),
            self._run.folder / METRICS,
        )

    def _check(self) -> None:
        if self._strict and self._failure is not None:
            message = f"MLflow at {redact(self._record['uri'])}: expected an answer, got '{redact(str(self._failure))}'"
            raise TrackingError(f"{message}; restart it, or set tracking.strict=false") from self._failure

    def _write_record(self) -> None:
        if self._enabled:
            write_json(self._run.folder / RECORD, self._record, durable=False)


def _tags(run: Run, tags: Mapping[str, object]) -> dict[str, str]:
    found = {f"medexp.{key}": str(value)[:_MAX_TAG] for key, value in tags.items()}
    found |= {"mlflow.source.name": "medexp", "mlflow.source.type": "LOCAL", "medexp.identity": run.identity}
    found[KEY_TAG] = f"{run.identity}/{run.name}"
    git = run.record.get("git") or {}
    if git.get("commit"):
        found["mlflow.source.git.commit"] = str(git["commit"])
    if sweep := os.environ.get(SWEEP_VARIABLE):
        found["medexp.sweep"] = sweep
    if parent := os.environ.get(PARENT_VARIABLE):
        found[PARENT_TAG] = parent
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)

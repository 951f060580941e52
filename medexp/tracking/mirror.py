"""Bring an MLflow run to equality with a run's folder.

Two files of the folder say everything that MLflow is to hold: `tracking.json` (address, names, parameters,
tags, artifacts, status, MLflow's run id) and `metrics.jsonl`. A mirror can therefore be interrupted at any
moment and repeated at any time: what MLflow has already got is not sent again.
"""

import fcntl
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexp.runs.files import read_json, write_json

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

RECORD, METRICS, RUN_ID = "tracking.json", "metrics.jsonl", "mlflow_run.json"
DEBTS = ".mlflow_lacks"
KEY_TAG = "medexp.key"  # tells runs apart: identity and attempt
NOT_METRICS = frozenset({"step", "time"})
_BATCH = 1000  # MLflow's limit for one request
_PARAM_BATCH = 100
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the mirror itself tries again
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "GIT_PYTHON_REFRESH": "quiet",
}


class Mirror:
    """The link between one run's folder and MLflow. Not thread-safe: one caller at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._client: MlflowClient | None = None
        self._run_id: str | None = None
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._artifacts: set[tuple[str, str, int]] = set()
        self._sent: dict[str, set[int]] = {}
        self._half_sent: set[tuple[str, int]] = set()  # of lines that are read again if a later request fails
        self._offset = 0
        self._status: str | None = None

    def push(self) -> str:
        """Send what MLflow lacks and return its run id.

        Raises:
            Exception: Whatever MLflow, its database or the network raise; a later call goes on from there.
        """
        record = read_json(self._folder / RECORD)
        if self._run_id is None:
            self._attach(record)
        assert self._client is not None
        assert self._run_id is not None
        self._push_metrics()
        self._push_params(record["params"])
        self._push_tags(record["tags"])
        self._push_artifacts(record["artifacts"])
        if record["status"] != self._status:
            self._client.set_terminated(self._run_id, record["status"], record["end_ms"])
            self._status = record["status"]
        return self._run_id

    def _attach(self, record: dict[str, Any]) -> None:
        """Find the folder's MLflow run and what it holds, or create it."""
        self._client = open_client(record["uri"])
        experiment = experiment_id(self._client, record["experiment"], record["artifact_root"])
        found = self._existing(experiment, record["tags"][KEY_TAG])
        if found is None:
            created = self._client.create_run(
                experiment, start_time=record["start_ms"], run_name=record["run_name"], tags=record["tags"]
            )
            self._run_id, self._tags = str(created.info.run_id), dict(record["tags"])
        else:
            self._run_id = str(found.info.run_id)
            self._params, self._tags = dict(found.data.params), dict(found.data.tags)
            for key in found.data.metrics:
                self._sent[key] = {metric.step for metric in self._client.get_metric_history(self._run_id, key)}
            if found.info.status != "RUNNING" and record["status"] is None:
                self._client.update_run(self._run_id, status="RUNNING")
        write_json(self._folder / RUN_ID, {"run_id": self._run_id, "uri": record["uri"]}, durable=False)

    def _existing(self, experiment: str, key: str) -> Any:
        """Return the MLflow run of this folder: by its recorded id, else by its key (killed before it was recorded)."""
        from mlflow.exceptions import MlflowException

        assert self._client is not None
        if (self._folder / RUN_ID).exists():
            try:
                return self._client.get_run(read_json(self._folder / RUN_ID)["run_id"])
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                log.warning("%s: MLflow no longer has this run, or has moved; it is recorded there anew", self._folder)
        return next(iter(self._client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)), None)

    def _push_metrics(self) -> None:
        assert self._client is not None
        for lines, offset in _new_lines(self._folder / METRICS, self._offset):
            metrics = [metric for line in lines for metric in self._metrics_of(line)]
            for start in range(0, len(metrics), _BATCH):
                batch = metrics[start : start + _BATCH]
                self._client.log_batch(self._run_id, metrics=batch)
                self._half_sent.update((metric.key, metric.step) for metric in batch)
            self._offset = offset
            self._half_sent.clear()

    def _metrics_of(self, line: dict[str, Any]) -> Iterator["Metric"]:
        from mlflow.entities import Metric

        step, milliseconds = int(line["step"]), int(line.get("time", time.time()) * 1000)
        for key, value in line.items():
            if key not in NOT_METRICS and step not in self._sent.get(key, ()) and (key, step) not in self._half_sent:
                yield Metric(key, float(value), milliseconds, step)

    def _push_params(self, wanted: dict[str, str]) -> None:
        from mlflow.entities import Param

        assert self._client is not None
        drift = sorted(key for key, value in wanted.items() if self._params.get(key, value) != value)
        if drift:  # MLflow's parameters cannot change; a resumed run may have, say, other workers
            self._push_tags({"medexp.changed_parameters": ", ".join(drift)[:5000]})
        missing = [Param(key, value) for key, value in wanted.items() if key not in self._params]
        for start in range(0, len(missing), _PARAM_BATCH):
            batch = missing[start : start + _PARAM_BATCH]
            self._client.log_batch(self._run_id, params=batch)
            self._params.update({param.key: param.value for param in batch})

    def _push_tags(self, wanted: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        assert self._client is not None
        changed = [RunTag(key, value) for key, value in wanted.items() if self._tags.get(key) != value]
        for start in range(0, len(changed), _PARAM_BATCH):
            self._client.log_batch(self._run_id, tags=changed[start : start + _PARAM_BATCH])
        self._tags.update({tag.key: tag.value for tag in changed})

    def _push_artifacts(self, wanted: list[list[str]]) -> None:
        assert self._client is not None
        for path, folder in wanted:
            if not Path(path).exists():
                continue
            mark = (path, folder, Path(path).stat().st_mtime_ns)
            if mark not in self._artifacts:
                self._client.log_artifact(self._run_id, path, folder or None)
                self._artifacts.add(mark)


def _new_lines(path: Path, offset: int, block_bytes: int = 1 << 21) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Yield the complete lines after `offset` in blocks, each with the offset behind it."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        stream.seek(offset)
        while block := stream.readlines(block_bytes):
            complete = [line for line in block if line.endswith(b"\n")]
            offset += sum(len(line) for line in complete)
            if complete:
                yield [json.loads(line) for line in complete], offset


def experiment_id(client: "MlflowClient", name: str, artifact_root: str | None) -> str:
    """Return the experiment's id; it is created where it does not exist."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = f"{artifact_root}/{name}" if artifact_root else None
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
    return str(found.experiment_id)


def open_client(uri: str) -> "MlflowClient":
    """Import MLflow and open the store; a new database is made by one process while others wait."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # a hundred lines about migrations otherwise
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it prints a trace of every error that it also raises
    if not uri.startswith("sqlite:///"):
        return MlflowClient(uri)
    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA schema_version")  # fails at once where MLflow would try for minutes
    with _locked(path.with_name(f".{path.name}.lock")):
        if path.stat().st_size == 0:
            _make_database(path)
        return MlflowClient(uri)


def _make_database(path: Path) -> None:
    """Create the tables beside `path`, then move them there: a kill on the way leaves nothing half made."""
    from mlflow.tracking._tracking_service.utils import _get_store

    making = path.with_name(f".{path.name}.making")
    for left in path.parent.glob(f"{making.name}*"):
        left.unlink()
    _get_store(f"sqlite:///{making}").engine.dispose()
    making.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # released with the file, also by a kill
        yield


def database_uri(output_dir: Path) -> str:
    """Return the address of the database below `output_dir`; the path is absolute."""
    return f"sqlite:///{(output_dir / 'mlflow.db').resolve()}"


def prepare_database(uri: str) -> None:
    """Create the tables before any job starts; instant when they are there. Other addresses are left alone."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        open_client(uri)


def owe(output_dir: Path, folder: Path) -> None:
    """Remember that MLflow lacks the end of a run; `catch_up` makes good for it."""
    write_json(_debt(output_dir, folder), {"folder": str(folder.resolve())}, durable=False)


def forgive(output_dir: Path, folder: Path) -> None:
    """Forget what was remembered of a run: it is mirrored, or about to be."""
    _debt(output_dir, folder).unlink(missing_ok=True)


def catch_up(output_dir: Path) -> None:
    """Send what MLflow lacks of earlier runs; what fails again stays remembered."""
    for path in sorted((output_dir / DEBTS).glob("*.json")):
        folder = Path(read_json(path)["folder"])
        try:
            sync(folder)
        except Exception as error:  # noqa: BLE001 - another database may be gone for good; this run goes on
            log.warning("%s: MLflow still lacks the end of this run: %s", folder, str(error).splitlines()[0])
        else:
            path.unlink(missing_ok=True)
            log.info("%s: MLflow has caught up", folder)


def _debt(output_dir: Path, folder: Path) -> Path:
    return output_dir / DEBTS / f"{folder.name}.json"


def sync(folder: Path) -> str | None:
    """Bring MLflow to equality with a run's folder; for runs that lost their server on the way.

    Returns:
        MLflow's run id; None if the run was not tracked.
    """
    if not (folder / RECORD).exists():
        return None
    return Mirror(folder).push()

"""A real MLflow server that goes away in the middle of a run and comes back."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from medexp.tracking import sync
from medexp.tracking.mirror import METRICS
from tests.synthetic.training import make_run, make_tracker

pytestmark = pytest.mark.slow


@contextmanager
def server(folder: Path, port: int) -> Iterator[str]:
    address = f"http://127.0.0.1:{port}"
    arguments = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    arguments += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen([sys.executable, "-m", "mlflow", *arguments], env=environment, start_new_session=True)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1)
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def test_metrics_of_a_lost_server_arrive_when_it_is_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = make_run(tmp_path / "run")
    with server(tmp_path, port) as address:
        tracker = make_tracker(run, enabled=True, uri=address)
        for step in range(1, 20):
            tracker.log_metrics({"train/loss": 1.0 / step}, step)
            time.sleep(0.05)
    started = time.monotonic()
    for step in range(20, 40):
        tracker.log_metrics({"train/loss": 1.0 / step}, step)
        time.sleep(0.05)
    tracker.finish("FINISHED")
    assert time.monotonic() - started < 60
    assert "TRACKING LOST" in caplog.text
    assert len((run.folder / METRICS).read_text().splitlines()) == 39
    with server(tmp_path, port) as address:
        run_id = sync(run.folder)
        client = MlflowClient(address)
        assert run_id is not None
        history = client.get_metric_history(run_id, "train/loss")
        assert client.get_run(run_id).info.status == "FINISHED"
    written = [json.loads(line) for line in (run.folder / METRICS).read_text().splitlines()]
    assert sorted((metric.step, metric.value) for metric in history) == [
        (line["step"], line["train/loss"]) for line in written
    ]

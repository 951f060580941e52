"""Tracking: MLflow equals the run's folder, once; losing it never costs a run or a metric."""

import json
import signal
import socket
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from medexp.errors import TrackingError
from medexp.tracking import database_uri, end_parent, prepare_database, start_parent, sync
from medexp.tracking.mirror import METRICS, open_client
from tests.synthetic.training import logged, make_run, make_tracker, start, train


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables and no runs: making one takes seconds."""
    folder = tmp_path_factory.mktemp("database")
    prepare_database(database_uri(folder))
    return folder / "mlflow.db"


@pytest.fixture
def output_dir(tmp_path: Path, empty_database: Path) -> Path:
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    return tmp_path


def runs_of(output_dir: Path, experiment: str = "toy") -> list[MlflowRun]:
    client = MlflowClient(database_uri(output_dir))
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def mirrored(output_dir: Path, run: MlflowRun) -> dict[tuple[str, int], list[float]]:
    client = MlflowClient(database_uri(output_dir))
    values: dict[tuple[str, int], list[float]] = {}
    for key in run.data.metrics:
        for metric in client.get_metric_history(run.info.run_id, key):
            values.setdefault((key, metric.step), []).append(metric.value)
    return values


def local(folder: Path) -> dict[tuple[str, int], list[float]]:
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return {
        (key, line["step"]): [value] for line in lines for key, value in line.items() if key not in {"step", "time"}
    }


def log_steps(tracker: Any, first: int, last: int) -> None:
    for step in range(first, last + 1):
        tracker.log_metrics({"train/loss": 1.0 / step, "lr": 0.1}, step)


def test_mlflow_equals_the_folder_after_a_training(output_dir: Path) -> None:
    train(output_dir / "run", tracked=True)
    (run,) = runs_of(output_dir)
    assert run.info.status == "FINISHED"
    assert mirrored(output_dir, run) == local(output_dir / "run")
    assert run.data.tags["medexp.best_step"] == "28"
    assert int(run.data.params["parameters"]) > int(run.data.params["parameters_trained"]) > 0


def test_run_that_is_killed_and_resumed_keeps_one_mlflow_run_and_one_value_per_step(output_dir: Path) -> None:
    folder = output_dir / "run"
    for call in (6, 5, 9):
        kill = ("on_train_batch_end", call, signal.SIGKILL)
        assert start(folder, kill=kill, resume=True, tracked=True) == -signal.SIGKILL
    assert start(folder, resume=True, tracked=True) == 0
    (run,) = runs_of(output_dir)
    assert run.info.status == "FINISHED"
    values = mirrored(output_dir, run)
    assert {len(entries) for entries in values.values()} == {1}
    steps = {(key, step): value for key, step, value in [(k, s, v) for s, k, v in logged(folder)]}
    assert {key: value[0].hex() for key, value in values.items() if key in steps} == steps


def test_sigterm_is_killed_in_mlflow(output_dir: Path) -> None:
    kill = ("on_train_batch_start", 5, signal.SIGTERM)
    assert start(output_dir / "run", kill=kill, tracked=True) == 143
    assert [run.info.status for run in runs_of(output_dir)] == ["KILLED"]


def test_lost_database_costs_one_warning_and_sync_brings_equality(
    output_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(output_dir / "run")
    tracker = make_tracker(run, enabled=True)
    log_steps(tracker, 1, 5)
    _wait_for(lambda: bool(runs_of(output_dir)) and bool(mirrored(output_dir, runs_of(output_dir)[0])))
    blocker = sqlite3.connect(output_dir / "mlflow.db")
    blocker.execute("ALTER TABLE metrics RENAME TO metrics_gone")
    blocker.commit()
    log_steps(tracker, 6, 10)
    time.sleep(1.0)
    log_steps(tracker, 11, 12)
    tracker.finish("FINISHED")
    warnings = [record for record in caplog.records if "TRACKING LOST" in record.getMessage()]
    assert 1 <= len(warnings) <= 2  # when it was lost, and that the end was not sent
    assert len(local(run.folder)) == 24
    blocker.execute("ALTER TABLE metrics_gone RENAME TO metrics")
    blocker.commit()
    blocker.close()
    assert sync(run.folder) is not None
    (found,) = runs_of(output_dir)
    assert mirrored(output_dir, found) == local(run.folder)
    assert found.info.status == "FINISHED"


def test_next_run_brings_what_an_earlier_one_could_not_send(output_dir: Path) -> None:
    database, hidden = output_dir / "mlflow.db", output_dir / "hidden"
    first = make_tracker(make_run(output_dir / "first"), enabled=True)
    database.rename(hidden)
    database.mkdir()  # nothing can be opened there
    log_steps(first, 1, 3)
    first.finish("FAILED")
    database.rmdir()
    hidden.rename(database)
    make_tracker(make_run(output_dir / "second"), enabled=True).finish("FINISHED")
    (found,) = [run for run in runs_of(output_dir) if run.info.run_name == "first"]
    assert mirrored(output_dir, found) == local(output_dir / "first")
    assert found.info.status == "FAILED"
    assert not list((output_dir / ".mlflow_lacks").iterdir())


def test_training_survives_a_server_that_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path / "run")
    train(run.folder, tracker=make_tracker(run, enabled=True, uri=_dead_address()), trainer={"max_epochs": 2})
    assert "TRACKING LOST" in caplog.text
    assert max(step for step, _, _ in logged(run.folder)) == 14


def test_strict_tracking_fails_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"restart it, or set tracking\.strict=false"):
        make_tracker(make_run(tmp_path / "run"), enabled=True, strict=True, uri=_dead_address())


def test_strict_tracking_ends_a_run_that_loses_its_database(output_dir: Path) -> None:
    tracker = make_tracker(make_run(output_dir / "run"), enabled=True, strict=True)
    with sqlite3.connect(output_dir / "mlflow.db") as database:
        database.execute("ALTER TABLE metrics RENAME TO metrics_gone")
    log_steps(tracker, 1, 1)
    time.sleep(1.5)
    with pytest.raises(TrackingError):
        log_steps(tracker, 2, 3)


def _dead_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def _wait_for(condition: Any, *, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)


def test_secrets_never_reach_mlflow(output_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_TOKEN", "hunter2hunter2")
    tracker = make_tracker(make_run(output_dir / "run"), enabled=True)
    tracker.log_params({"api_key": "abc123xyz", "note": "see hunter2hunter2", "server": "https://me:pw@host/x"})
    tracker.set_tags({"remark": "hunter2hunter2"})
    tracker.finish("FINISHED")
    for path in [path for path in output_dir.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        assert not [secret for secret in (b"hunter2", b"abc123xyz", b"me:pw") if secret in content], path


def test_long_parameters_become_an_artifact(output_dir: Path) -> None:
    tracker = make_tracker(make_run(output_dir / "run"), enabled=True)
    tracker.log_params({"model": {"blocks": [1] * 200, "lr": 0.1}})
    tracker.finish("FINISHED")
    (run,) = runs_of(output_dir)
    assert run.data.params == {"model.lr": "0.1"}
    stored = MlflowClient(database_uri(output_dir)).list_artifacts(run.info.run_id)
    assert [entry.path for entry in stored] == ["long_parameters.json"]


def test_changed_parameter_of_a_resumed_run_is_noted_and_not_an_error(output_dir: Path) -> None:
    run = make_run(output_dir / "run")
    for workers in (2, 4):
        tracker = make_tracker(run, enabled=True, strict=True)
        tracker.log_params({"num_workers": workers})
        tracker.finish("FINISHED")
    (found,) = runs_of(output_dir)
    assert found.data.params == {"num_workers": "2"}
    assert found.data.tags["medexp.changed_parameters"] == "num_workers"


def test_simultaneous_first_starts_share_one_new_database(tmp_path: Path) -> None:
    def one(number: int) -> None:
        tracker = make_tracker(make_run(tmp_path / f"run{number}"), enabled=True, strict=True)
        log_steps(tracker, 1, 3)
        tracker.finish("FINISHED")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(4)))
    found = runs_of(tmp_path)
    assert [run.info.status for run in found] == ["FINISHED"] * 4
    assert all(len(mirrored(tmp_path, run)) == 6 for run in found)


def test_jobs_of_a_sweep_hang_below_one_parent(output_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"output_dir": output_dir, "uri": None}
    parent = start_parent(**place, experiment="toy", name="sweep", tags={}, strict=True)
    assert parent is not None
    monkeypatch.setenv("MEDEXP_MLFLOW_PARENT", parent)
    monkeypatch.setenv("MEDEXP_SWEEP_ID", "sweep-1")
    make_tracker(make_run(output_dir / "run"), enabled=True).finish("FINISHED")
    end_parent(parent, "FINISHED", **place)
    children = [run for run in runs_of(output_dir) if run.data.tags.get("mlflow.parentRunId") == parent]
    assert [run.data.tags["medexp.sweep"] for run in children] == ["sweep-1"]
    assert MlflowClient(database_uri(output_dir)).get_run(parent).info.status == "FINISHED"


def test_disabled_tracking_still_writes_the_folder(tmp_path: Path) -> None:
    tracker = make_tracker(make_run(tmp_path / "run"), enabled=False)
    log_steps(tracker, 1, 2)
    tracker.finish("FINISHED")
    assert len(local(tmp_path / "run")) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert sync(tmp_path / "run") is None


def test_rewinding_forgets_what_comes_after_a_step(tmp_path: Path) -> None:
    tracker = make_tracker(make_run(tmp_path / "run"))
    log_steps(tracker, 1, 5)
    with (tmp_path / "run" / METRICS).open("a") as stream:
        stream.write('{"step": 6, "tra')  # killed while writing
    assert tracker.rewind(3) == 3
    log_steps(tracker, 4, 4)
    assert sorted({step for _, step in local(tmp_path / "run")}) == [1, 2, 3, 4]


def test_a_database_whose_making_was_killed_is_made_anew(tmp_path):
    (tmp_path / "mlflow.db").touch()
    (tmp_path / ".mlflow.db.making").write_bytes(b"half a database")
    assert [one.name for one in open_client(database_uri(tmp_path)).search_experiments()] == ["Default"]
    assert not (tmp_path / ".mlflow.db.making").exists()

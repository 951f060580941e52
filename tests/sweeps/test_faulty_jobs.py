"""Whatever kills one job: the others finish, every end has a reason, and the same line again completes the sweep."""

import os
import signal
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

KINDS = ["ok", "exception", "exit", "kill", "memory", "segfault", "hang", "ok"]
REASONS = {
    "exception": "ZeroDivisionError: one over nothing",
    "exit": "exit status 3",
    "kill": "SIGKILL (out of memory?)",
    "memory": "MemoryError: too large",
    "segfault": "SIGSEGV",
    "hang": "timeout: not done after 6 s (sweep.timeout_s); its process was ended by SIGKILL",
}
FOLDS = f"fold=range({len(KINDS)})"
pytestmark = pytest.mark.slow


def alive(word: str) -> list[int]:
    """Return the living processes whose command or environment holds a word."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            is_zombie = " Z " in (folder / "stat").read_text()
        except OSError:
            continue
        if word.encode() in text and not is_zombie and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def test_every_kind_of_fault_on_the_local_launcher(faulty):
    faulty.tell(KINDS)
    line = ["stage=11,12", FOLDS, "sweep.max_parallel=2", "sweep.timeout_s=6", "sweep.grace_s=1"]
    done = faulty.run(*line)
    assert done.returncode == 1
    first, second = faulty.record["jobs"][: len(KINDS)], faulty.record["jobs"][len(KINDS) :]
    assert [job["state"] for job in first] == ["finished" if kind == "ok" else "failed" for kind in KINDS]
    assert [job["state"] for job in second] == ["finished" if kind == "ok" else "skipped" for kind in KINDS]
    for kind, job in zip(KINDS, first, strict=True):
        assert REASONS.get(kind, "") in job["reason"]
        assert kind == "ok" or (faulty.output / job["log"]).is_file()
        assert REASONS.get(kind, "") in done.stdout
    assert "12 of 16 jobs did not finish" in done.stderr
    assert "ZeroDivisionError" in (faulty.output / first[1]["log"]).read_text()
    assert not alive(str(faulty.folder))
    (faulty.output / "healed").touch()
    before = len(faulty.starts)
    again = faulty.run(*line)
    assert again.returncode == 0, again.stderr
    assert set(faulty.states) == {"finished"}
    assert len(faulty.starts) - before == 6 + 6  # neither the two that were sound nor what started from them
    assert "stage 11: 0.3500 ± 0.2449 (sd) over 8 of 8 jobs" in again.stdout


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_an_exception_leaves_the_others_alone_with_every_launcher(faulty, launcher):
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    faulty.tell(["ok", "exception", "ok", "memory", "exit"])
    done = faulty.run("stage=11,12", "fold=range(5)", f"hydra/launcher={launcher}")
    assert done.returncode == 1
    assert faulty.states == [*["finished", "failed"] * 2, "failed", *["finished", "skipped"] * 2, "skipped"]
    assert "ZeroDivisionError: one over nothing" in faulty.record["jobs"][1]["reason"]
    assert "6 of 10 jobs did not finish" in done.stderr
    for text in ("one over nothing", "MemoryError", "exit status 3", "stage 11: 0.1000 ± 0.1414 (sd) over 2 of 5 jobs"):
        assert text in done.stdout
    (faulty.output / "healed").touch()
    again = faulty.run("stage=11,12", "fold=range(5)", f"hydra/launcher={launcher}")
    assert again.returncode == 0, again.stderr
    assert set(faulty.states) == {"finished"}
    assert len(faulty.starts) == 5 + 2 + 3 + 3


@pytest.mark.parametrize("kind", ["kill", "segfault"])
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_after_a_death_a_restart_completes_the_sweep(faulty, launcher, kind):
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    faulty.tell(["ok", kind, "ok"])
    options = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    done = faulty.run("stage=11,12", "fold=0,1,2", f"hydra/launcher={launcher}", *options)
    assert done.returncode != 0
    if launcher == "joblib":  # workers die with their neighbours; the sweep knows what became of whom
        assert faulty.states[1] == "failed"
        assert set(faulty.states) <= {"finished", "failed", "skipped"}
    (faulty.output / "healed").touch()
    again = faulty.run("stage=11,12", "fold=0,1,2", f"hydra/launcher={launcher}", *options)
    assert again.returncode == 0, again.stderr
    assert set(faulty.states) == {"finished"}
    if launcher == "basic":
        assert [start[:2] for start in faulty.starts[:3]] == [["11", "0"], ["11", "1"], ["11", "1"]]


def test_a_killed_sweep_leaves_nothing_and_goes_on_where_it_was(faulty):
    faulty.tell(["ok", "long", "long", "ok"])
    line = ["stage=11,12", "fold=0,1,2,3", "sweep.max_parallel=2"]
    process = faulty.start(*line)
    wait_until(lambda: len(faulty.starts) == 3)
    runs = sorted(path.name for path in faulty.output.glob("brats/11-*"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not alive(str(faulty.folder)), seconds=10.0)  # nor their children, the server, the guard
    assert len(list(faulty.output.glob("brats/11-*/saved.txt"))) == 2
    (faulty.output / "healed").touch()
    done = faulty.run(*line)
    assert done.returncode == 0, done.stderr
    assert sum(start[:2] == ["11", "0"] for start in faulty.starts) == 1
    assert len(faulty.starts) == 3 + 3 + 4
    assert set(runs) <= {path.name for path in faulty.output.glob("brats/11-*")}
    assert len(list(faulty.output.glob("brats/11-*"))) == 4
    assert faulty.record["starts"] == 2


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "ctrl-c"])
def test_an_interrupted_sweep_lets_its_jobs_save(faulty, signum, status):
    faulty.tell(["ok", "long", "long"])
    process = faulty.start("stage=11", "fold=0,1,2", "sweep.max_parallel=2")
    wait_until(lambda: len(faulty.starts) == 3)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status, output
    assert faulty.record["state"] == "interrupted"
    assert faulty.states == ["finished", "interrupted", "interrupted"]
    assert len(list(faulty.output.glob("brats/11-*/saved.txt"))) == 2
    wait_until(lambda: not alive(str(faulty.folder)), seconds=10.0)


def test_a_misspelt_override_is_told_before_any_job_starts(faulty):
    faulty.tell(["ok"])
    done = faulty.run("stage=11", "fold=0", "model.curriculum.stage_1.max_epoch=1,2")
    assert done.returncode == 2
    assert "max_epochs" in done.stderr
    assert not faulty.starts


def test_a_key_of_the_sweep_reaches_its_jobs(faulty):
    faulty.tell(["once", "exception", "configuration", "work"])
    done = faulty.run(
        "stage=11", "fold=0,1,2,3", "sweep.max_parallel=2", "sweep.retry=1", "sweep.gpus=[6,7]", "sweep.grace_s=1"
    )
    assert done.returncode == 1
    assert faulty.states == ["finished", "failed", "failed", "finished"]
    assert [job["attempts"] for job in faulty.record["jobs"]] == [2, 2, 1, 1]
    assert {start[4] for start in faulty.starts} == {"6", "7"}
    assert "is tried again" in done.stdout


def test_a_sweep_that_fails_fast_starts_nothing_more(faulty):
    faulty.tell(["exception", "ok", "ok"])
    faulty.run("stage=11,12", "fold=0,1,2", "sweep.fail_fast=true")
    assert faulty.states == ["failed", *["skipped"] * 5]
    assert len(faulty.starts) == 1


def test_the_output_for_a_file_has_no_garbage(faulty):
    faulty.tell(["ok", "exception"])
    done = faulty.run("stage=11", "fold=0,1")
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout
    assert done.stdout.count("job 0 of 2, stage 11 fold=0: running") == 1


def test_mlflow_has_one_parent_with_flat_children(faulty):
    faulty.options = []
    faulty.tell(["ok", "exception", "ok"])
    line = ["stage=11", "fold=0,1,2", "seed=0,1"]
    assert faulty.run(*line).returncode == 1
    client = MlflowClient(f"sqlite:///{faulty.output}/mlflow.db")
    (parent,) = sweeps(client)
    assert parent.info.status == "FAILED"
    (faulty.output / "healed").touch()
    assert faulty.run(*line).returncode == 0
    (again,) = sweeps(client)
    assert again.info.run_id == parent.info.run_id == faulty.record["mlflow_run"]
    assert again.info.status == "FINISHED"
    assert again.data.metrics["11/objective/n"] == 6
    assert again.data.metrics["11/objective/mean"] == pytest.approx(0.105)
    assert again.data.metrics["11/val/dice/sd"] == pytest.approx(0.0894427, abs=1e-6)
    children = [run for run in everything(client) if run.info.run_id != parent.info.run_id]
    assert len(children) == 6
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.data.tags["medexp.stage"] for run in children} == {"11"}
    assert {run.info.status for run in children} == {"FINISHED"}


def everything(client):
    return client.search_runs([one.experiment_id for one in client.search_experiments()])


def sweeps(client):
    return [run for run in everything(client) if run.data.tags.get("medexp.kind") == "sweep"]


def test_another_sweeper_gets_isolated_jobs_too(faulty):
    faulty.tell(["ok", "ok", "ok"])
    done = faulty.run("stage=11", "fold=0,1,2", "hydra/sweeper=basic", "sweep.max_parallel=2")
    assert done.returncode == 0, done.stderr
    assert len({start[3] for start in faulty.starts}) == 3
    assert len(list(faulty.output.glob("sweeps/search-*/*.log"))) == 3

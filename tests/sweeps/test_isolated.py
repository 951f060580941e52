"""One job's death leaves the others alone, and every end has a reason."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.conf import HydraConf
from hydra.core.utils import JobStatus
from omegaconf import OmegaConf

from medexp.errors import CaseError
from medexp.sweeps.isolated import Job, run_isolated


def behave(config):
    """The task of these tests: do what the configuration says."""
    Path(config.mark).write_text(str(os.getpid()))
    match config.kind:
        case "exception":
            raise ZeroDivisionError("one over nothing")
        case "refused":
            raise CaseError("case 7: no label")
        case "exit":
            sys.exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "memory":
            raise MemoryError("too large")
        case "forever":
            time.sleep(60)
        case "slow":
            time.sleep(1.0)
    return config.kind


def jobs(tmp_path, kinds):
    made = []
    for number, kind in enumerate(kinds):
        config = OmegaConf.create({"kind": kind, "mark": str(tmp_path / f"mark{number}")})
        config.hydra = OmegaConf.structured(HydraConf)
        made.append(Job(number, config, (f"kind={kind}",), tmp_path / f"{number}.log"))
    return made


def run(tmp_path, kinds, **options):
    options = {"max_parallel": 2, "preload": ["medexp.sweeps.isolated"], **options}
    return run_isolated(jobs(tmp_path, kinds), behave, **options)


def test_every_kind_of_death_is_reported_and_the_healthy_finish(tmp_path):
    kinds = ["ok", "exception", "exit", "kill", "segfault", "memory", "refused", "ok"]
    results = run(tmp_path, kinds)
    states = [result.status for result in results]
    assert [state is JobStatus.COMPLETED for state in states] == [kind == "ok" for kind in kinds]
    reasons = {kind: str(result._return_value) for kind, result in zip(kinds, results, strict=True)}
    assert reasons["exception"] == "ZeroDivisionError: one over nothing"
    assert reasons["exit"] == "its process left with exit status 3 before it had a result"
    assert "SIGKILL (out of memory?)" in reasons["kill"]
    assert "SIGSEGV" in reasons["segfault"]
    assert reasons["memory"] == "MemoryError: too large"
    assert reasons["refused"] == "case 7: no label"


def test_every_job_has_a_process_of_its_own_and_a_log(tmp_path):
    run(tmp_path, ["ok", "ok", "exception"])
    assert len({(tmp_path / f"mark{number}").read_text() for number in range(3)}) == 3
    assert "ZeroDivisionError" in (tmp_path / "2.log").read_text()


def test_no_more_than_max_parallel_run_at_once(tmp_path):
    started = time.monotonic()
    run(tmp_path, ["slow", "slow", "slow"], max_parallel=1)
    assert time.monotonic() - started >= 3.0


def test_fail_fast_starts_nothing_after_a_failure(tmp_path):
    results = run(tmp_path, ["exception", "ok"], max_parallel=1, fail_fast=True)
    assert "not started" in str(results[1]._return_value)
    assert not (tmp_path / "mark1").exists()


def test_the_value_of_a_job_comes_back(tmp_path):
    assert run(tmp_path, ["ok"])[0].return_value == "ok"


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "terminate"])
def test_nothing_is_left_when_the_sweep_is_killed(tmp_path, signum):
    call = f"run(Path({str(tmp_path)!r}), ['forever'])"
    code = f"from pathlib import Path; from tests.sweeps.test_isolated import run; {call}"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    mark = tmp_path / "mark0"
    while not mark.exists() or not mark.read_text():
        time.sleep(0.05)
    child = int(mark.read_text())
    parent.send_signal(signum)
    parent.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()

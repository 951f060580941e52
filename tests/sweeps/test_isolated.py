"""One job's death leaves the others alone, and every end has a reason."""

import contextlib
import ctypes
import multiprocessing
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

from medexp.errors import CaseError, ConfigurationError, JobNotStartedError, JobRefusedError
from medexp.sweeps.isolated import Events, Limits, run_isolated
from medexp.sweeps.worker import Job
from tests.synthetic.faults import fail


def behave(config):
    """The task of these tests: do what the configuration says."""
    attempt = Path(config.mark).exists()
    with Path(config.mark).open("a") as stream:
        stream.write(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
    fail(config.kind)
    match config.kind:
        case "refused":
            raise CaseError("case 7: no label")
        case "forever":
            time.sleep(60)
        case "slow":
            time.sleep(1.0)
        case "deaf":  # as native code that hangs: it holds the interpreter's lock
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(600) # {config.mark}"])
            ctypes.PyDLL(None).sleep(600)
        case "saves":
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
            with contextlib.suppress(SystemExit):
                time.sleep(60)
            Path(f"{config.mark}.saved").touch()
            sys.exit(143)
        case "configuration":
            raise ConfigurationError("kind: no such kind")
        case "once":
            if not attempt:
                raise OSError("the disk was away")
    return config.kind


def jobs(tmp_path, kinds):
    made = []
    for number, kind in enumerate(kinds):
        config = OmegaConf.create({"kind": kind, "mark": str(tmp_path / f"mark{number}")})
        config.hydra = OmegaConf.structured(HydraConf)
        made.append(Job(number, config, (f"kind={kind}",), behave, tmp_path / f"{number}.log"))
    return made


def run(tmp_path, kinds, *, events=None, **limits):
    multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.sweeps.test_isolated"])
    limits = Limits(**{"max_parallel": 2, "grace_s": 2.0, **limits})
    return run_isolated(jobs(tmp_path, kinds), limits=limits, events=events)


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
    assert len({(tmp_path / f"mark{number}").read_text().split()[0] for number in range(3)}) == 3
    assert "ZeroDivisionError" in (tmp_path / "2.log").read_text()


def test_no_more_than_max_parallel_run_at_once(tmp_path):
    started = time.monotonic()
    run(tmp_path, ["slow", "slow", "slow"], max_parallel=1)
    assert time.monotonic() - started >= 3.0


def test_fail_fast_starts_nothing_after_a_failure(tmp_path):
    results = run(tmp_path, ["exception", "ok"], max_parallel=1, fail_fast=True)
    assert isinstance(results[1]._return_value, JobNotStartedError)
    assert not (tmp_path / "mark1").exists()


def test_the_value_of_a_job_comes_back(tmp_path):
    assert run(tmp_path, ["ok"])[0].return_value == "ok"


def lines(tmp_path, number):
    return (tmp_path / f"mark{number}").read_text().splitlines()


def test_a_failed_job_is_tried_again(tmp_path):
    results = run(tmp_path, ["once", "exception", "ok"], retry=1)
    assert [result.status for result in results] == [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.COMPLETED]
    assert [len(lines(tmp_path, number)) for number in range(3)] == [2, 2, 1]


def test_a_job_may_succeed_late_without_stopping_the_others(tmp_path):
    results = run(tmp_path, ["once", "ok", "ok"], retry=1, fail_fast=True, max_parallel=1)
    assert {result.status for result in results} == {JobStatus.COMPLETED}


def test_a_wrong_configuration_is_not_tried_again(tmp_path):
    (result,) = run(tmp_path, ["configuration"], retry=3)
    assert isinstance(result._return_value, JobRefusedError)
    assert len(lines(tmp_path, 0)) == 1


def test_a_job_that_hangs_is_asked_to_save_first(tmp_path):
    (result,) = run(tmp_path, ["saves"], timeout_s=4.0)
    assert "timeout: not done after 4 s (sweep.timeout_s)" in str(result._return_value)
    assert "exit status 143" in str(result._return_value)
    assert (tmp_path / "mark0.saved").exists()


def test_a_job_that_is_deaf_is_killed_with_what_it_started(tmp_path):
    started = time.monotonic()
    results = run(tmp_path, ["deaf", "ok"], timeout_s=6.0, grace_s=1.0)
    assert time.monotonic() - started < 30
    assert "SIGKILL" in str(results[0]._return_value)
    assert results[1].status is JobStatus.COMPLETED
    assert not alive(str(tmp_path))


def alive(word):
    """Return the living processes whose command or environment holds a word."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            if word.encode() in text and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


class Slots(Events):
    """Counts how many run at once, and on which slots."""

    def __init__(self):
        self.now, self.most, self.seen = {}, 0, []

    def started(self, job, attempt, slot):
        assert slot not in self.now.values() or slot is None
        self.now[job.number] = slot
        self.seen.append(slot)
        self.most = max(self.most, len(self.now))

    def ended(self, job, result, *, is_last):
        del self.now[job.number]


def test_no_more_than_max_parallel_live_at_once(tmp_path):
    events = Slots()
    run(tmp_path, ["ok", "exception", "kill", "ok", "ok"], max_parallel=2, events=events)
    assert events.most == 2


def test_every_job_has_a_gpu_slot_of_its_own(tmp_path):
    events = Slots()
    run(tmp_path, ["slow", "ok", "ok", "ok"], max_parallel=4, slots=("3", "5"), events=events)
    assert events.most == 2
    assert set(events.seen) == {"3", "5"}
    assert [lines(tmp_path, number)[0].split()[1] for number in range(4)] == events.seen


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "terminate"])
def test_nothing_is_left_when_the_sweep_is_killed(tmp_path, signum):
    call = f"run(Path({str(tmp_path)!r}), ['forever'])"
    code = f"from pathlib import Path; from tests.sweeps.test_isolated import run; {call}"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    mark = tmp_path / "mark0"
    while not mark.exists() or not mark.read_text():
        time.sleep(0.05)
    child = int(mark.read_text().split()[0])
    parent.send_signal(signum)
    parent.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()

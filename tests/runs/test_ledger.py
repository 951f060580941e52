"""A run's lock and what its processes leave behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from medexp.errors import RunBusyError
from medexp.runs.ledger import Run

HELD_ELSEWHERE = """
import sys
from pathlib import Path
from medexp.runs.ledger import Run
print(Run.read(Path(sys.argv[1])).is_held())
"""


def begun(folder: Path) -> Run:
    run = Run(folder, {"identity": "0" * 64})
    run.begin()
    return run


def seen_by_another_process(folder: Path) -> str:
    command = [sys.executable, "-c", HELD_ELSEWHERE, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_asking_about_its_own_run_does_not_lose_the_lock(tmp_path):
    run = begun(tmp_path / "run")
    other = Run.read(run.folder)
    assert other.is_held()
    assert other.state == "running"
    assert seen_by_another_process(run.folder) == "True"
    run.end("finished")
    assert not other.is_held()
    assert seen_by_another_process(run.folder) == "False"


def test_one_process_does_not_begin_a_run_twice(tmp_path):
    run = begun(tmp_path / "run")
    with pytest.raises(RunBusyError, match="is working on this run"):
        Run.read(run.folder).begin()
    assert seen_by_another_process(run.folder) == "True"
    run.end("interrupted")
    begun(run.folder).end("finished")


def test_every_process_that_worked_on_a_run_is_noted(tmp_path):
    begun(tmp_path / "run").end("interrupted")
    begun(tmp_path / "run").end("finished")
    with (tmp_path / "run" / "sessions.jsonl").open("a") as stream:
        stream.write('{"time": ')  # cut by a kill
    sessions = Run.read(tmp_path / "run").sessions()
    assert len(sessions) == 2
    assert all({"time", "code_version", "git", "versions", "machine"} == set(session) for session in sessions)
    assert sessions[0]["versions"]["python"]
    assert sessions[0]["machine"]["host"]

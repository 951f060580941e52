"""The listing of runs: newest first, honest about dead processes, quick with many."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medexp.runs.files import write_json
from medexp.runs.listing import lines_of, listed

RECORD = {"identity": "0" * 64, "config": {f"key{number}": number for number in range(400)}}


def add(output_dir: Path, number: int, state: str | None = "finished", *, stage: str = "2", **record) -> Path:
    folder = output_dir / "brats" / f"{stage}-unet3d-fold{number % 5}-seed0-{number:010x}"
    tags = {"stage": stage, "dataset": "brats", "model": "unet3d", "fold": number % 5, "seed": 0}
    created = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.000+00:00"
    own = {"identity": f"{number:064x}", "dataset": "brats", "stage": stage, "tags": tags, "created": created}
    write_json(folder / "run.json", {**RECORD, **own, **record}, durable=False)
    if state:
        write_json(folder / "state.json", {"state": state, "time": created, "reason": "worn out"}, durable=False)
    write_json(folder / "outputs.json", {"outputs": {}, "digest": "0", "objective": number / 1000}, durable=False)
    return folder


def command(output_dir: Path, *arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "medexp.runs", f"output_dir={output_dir}", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_the_newest_run_comes_first_with_what_is_known_of_it(tmp_path):
    for number in (1, 3, 2):
        add(tmp_path, number, user_tags=["paper"])
    found = listed(tmp_path)
    assert [one["fold"] for one in found] == [3, 2, 1]
    assert {key: found[0][key] for key in ("state", "dataset", "model", "stage", "seed", "score", "tag")} == {
        "state": "finished",
        "dataset": "brats",
        "model": "unet3d",
        "stage": "2",
        "seed": 0,
        "score": 0.003,
        "tag": ["paper"],
    }
    assert (tmp_path / found[0]["folder"] / "run.json").exists()


def test_filters_choose(tmp_path):
    add(tmp_path, 1)
    add(tmp_path, 2, "failed")
    add(tmp_path, 3, "failed", stage="1")
    assert [one["fold"] for one in listed(tmp_path, ["state=failed", "stage=2"])] == [2]
    assert listed(tmp_path, ["state=interrupted"]) == []


def test_runs_are_found_by_their_sweep(tmp_path):
    folder, _ = add(tmp_path, 1), add(tmp_path, 2)
    job = {"run": str(folder.relative_to(tmp_path)), "state": "finished", "reused": True}
    record = {"identity": "abcdef0123" * 6, "jobs": [job, {"run": None}]}
    write_json(tmp_path / "sweeps" / "1-2-abcdef0123" / "sweep.json", record)
    for name in ("abcdef0123", "1-2-*"):
        assert [one["fold"] for one in listed(tmp_path, [f"sweep={name}"])] == [1]


def test_a_killed_run_is_told_as_interrupted_and_a_live_one_as_running(tmp_path):
    folder = add(tmp_path, 1, None)
    code = (
        "import sys, time; from pathlib import Path; from medexp.runs.ledger import Run\n"
        f"run = Run.read(Path({str(folder)!r})); run.begin(); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert [one["state"] for one in listed(tmp_path)] == ["running"]
        process.send_signal(signal.SIGKILL)
    assert [one["state"] for one in listed(tmp_path)] == ["interrupted"]


def test_a_record_that_cannot_be_read_is_listed_with_its_reason(tmp_path):
    folder = add(tmp_path, 1)
    (folder / "run.json").write_text("{", encoding="utf-8")
    [one] = listed(tmp_path)
    assert one["state"] == "unreadable"
    assert "run.json" in one["reason"]
    assert "unreadable" in lines_of([one], colored=False)[1]


def test_the_table_says_why_a_run_failed(tmp_path):
    add(tmp_path, 1, "failed")
    add(tmp_path, 2)
    heading, *lines = lines_of(listed(tmp_path), colored=False)
    assert heading.split() == ["state", "dataset", "model", "stage", "fold", "seed", "score", "age", "folder"]
    assert "0.0020" in lines[0]
    assert lines[1].endswith("(worn out)")


def test_the_command_prints_json_for_programs(tmp_path):
    add(tmp_path, 7, "interrupted")
    add(tmp_path, 8)
    done = command(tmp_path, "state=interrupted", "--json")
    [one] = json.loads(done.stdout)
    assert (done.returncode, one["fold"]) == (0, 2)
    assert Path(one["path"]).is_dir()


def test_a_misspelt_filter_is_refused_with_the_nearest_name(tmp_path):
    add(tmp_path, 1)
    done = command(tmp_path, "state=finnished")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean finished" in done.stderr


@pytest.mark.parametrize("heavy", ["torch", "hydra", "omegaconf", "lightning", "mlflow", "monai"])
def test_nothing_heavy_is_imported(heavy):
    code = f"import sys, medexp.runs.__main__; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_thousand_runs_are_listed_within_a_second(tmp_path):
    for number in range(1000):
        add(tmp_path, number)
    elapsed_s = []
    for _ in range(3):  # the quickest: other tests share the cores
        started = time.perf_counter()
        assert command(tmp_path, "stage=2").stdout.count("\n") == 1002
        elapsed_s.append(time.perf_counter() - started)
    assert min(elapsed_s) < 1.0

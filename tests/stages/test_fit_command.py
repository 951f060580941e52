"""The real thing: a command that is killed and given again ends with the bits of one that was not."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from medexp.run import main
from medexp.runs.files import sha256_of
from medexp.tracking import database_uri
from tests.synthetic.lines import small_brats
from tests.synthetic.training import final_state, logged

pytestmark = pytest.mark.slow
TIMEOUT_S = 600


def command(output: Path, *overrides: str) -> list[str]:
    small = [
        *small_brats(output),
        "mock.num_patients=4",
        "dataset.num_folds=2",
        "dataset.steps_per_epoch=7",
        "model.curriculum.stage_1.max_epochs=3",
        "model.curriculum.stage_1.accumulate_grad_batches=2",
        "trainer.check_val_every_n_epoch=1",
        "callbacks.ema.decay=0.9",
    ]
    given = {word.partition("=")[0] for word in overrides}
    kept = [word for word in small if word.partition("=")[0] not in given]
    return [sys.executable, "-m", "medexp.run", *kept, *overrides]


def finish(*arguments: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT_S, env=one_thread())
    assert done.returncode == 0, done.stderr


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run_folder(output: Path) -> Path:
    (folder,) = output.glob("brats/1-monai_ft-*")
    return folder


def kill_at_step(output: Path, step: int, number: int, *overrides: str) -> int:
    process = subprocess.Popen(
        command(output, "stage=1", *overrides), env=one_thread(), stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        found = list(output.glob("brats/1-monai_ft-*/metrics.jsonl"))
        if found and any(f'"step": {step},' in line for line in found[0].read_text().splitlines()):
            break
        time.sleep(0.02)
    os.killpg(process.pid, number)  # the whole group, as a terminal's Ctrl-C and a scheduler do
    return process.wait(TIMEOUT_S)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("prepared")
    for stage in ("mock", "prepare"):
        finish(*command(output, f"stage={stage}"))
    return output


@pytest.fixture(scope="module")
def whole(prepared: Path) -> Path:
    finish(*command(prepared, "stage=1", "hardware.num_workers=0"))
    return run_folder(prepared)


def test_three_signals_and_other_workers_change_nothing(prepared: Path, whole: Path) -> None:
    kept = whole.with_name("kept")
    shutil.copytree(whole, kept, symlinks=True)
    shutil.rmtree(whole)  # the same command addresses the same folder
    (prepared / "mlflow.db").unlink()
    assert kill_at_step(prepared, 3, signal.SIGKILL, "hardware.num_workers=2") == -signal.SIGKILL
    assert kill_at_step(prepared, 6, signal.SIGTERM, "hardware.num_workers=2") == 143
    assert json.loads((run_folder(prepared) / "state.json").read_text())["state"] == "interrupted"
    assert statuses(prepared) == ["KILLED"]
    assert kill_at_step(prepared, 9, signal.SIGKILL, "hardware.num_workers=1") == -signal.SIGKILL
    finish(*command(prepared, "stage=1", "hardware.num_workers=2"))
    assert logged(run_folder(prepared)) == logged(kept)
    assert final_state(run_folder(prepared)) == final_state(kept)
    assert statuses(prepared) == ["FINISHED"]
    client, (run,) = tracked(prepared)
    for key in run.data.metrics:
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, key)]
        assert len(steps) == len(set(steps)), key
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(metric.step for metric in history) == list(range(1, 13))


def tracked(output: Path) -> tuple[MlflowClient, list[Run]]:
    client = MlflowClient(database_uri(output))
    return client, client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def statuses(output: Path) -> list[str]:
    return [run.info.status for run in tracked(output)[1]]


def sweep(output: Path, *overrides: str) -> list[str]:
    line = command(output, *overrides)
    return [*line[:3], "-m", *line[3:]]


TWO_STAGES = ["stage=1,2", "model.curriculum.stage_1.max_epochs=1", "model.curriculum.stage_2.max_epochs=1"]
TWO_STAGES += ["model.curriculum.stage_2.accumulate_grad_batches=1"]


def best_of_stage_1(output: Path) -> tuple[str, int]:
    (folder,) = output.glob("brats/1-monai_ft-*")
    best = (folder / "checkpoints" / "best.ckpt").resolve()
    return sha256_of(best), best.stat().st_mtime_ns


def test_a_sweep_killed_between_its_stages_and_in_the_second_trains_the_first_once(prepared: Path) -> None:
    for folder in prepared.glob("brats/1-*"):
        shutil.rmtree(folder)
    finish(*sweep(prepared, *TWO_STAGES))
    wanted = {folder.name: (logged(folder), final_state(folder)) for folder in prepared.glob("brats/[12]-monai_ft-*")}
    assert len(wanted) == 2
    for folder in prepared.glob("brats/[12]-monai_ft-*"):
        shutil.rmtree(folder)
    kill_when(sweep(prepared, *TWO_STAGES), lambda: list(prepared.glob("brats/1-monai_ft-*/outputs.json")))
    first = best_of_stage_1(prepared)
    kill_when(sweep(prepared, *TWO_STAGES), lambda: steps_of(prepared, "2") >= 3)
    finish(*sweep(prepared, *TWO_STAGES))
    assert best_of_stage_1(prepared) == first
    found = {folder.name: (logged(folder), final_state(folder)) for folder in prepared.glob("brats/[12]-monai_ft-*")}
    assert found == wanted
    (second,) = prepared.glob("brats/2-monai_ft-*")
    assert f"sha256 {first[0]}" in (second / "log.txt").read_text()


def steps_of(output: Path, stage: str) -> int:
    return sum(
        path.read_text().count('"train/loss"') for path in output.glob(f"brats/{stage}-monai_ft-*/metrics.jsonl")
    )


def kill_when(line: list[str], condition: Callable[[], object]) -> None:
    process = subprocess.Popen(line, env=one_thread(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + TIMEOUT_S
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    time.sleep(10)  # after which nothing may be left of its jobs


def test_a_second_stage_without_its_first_is_skipped(prepared: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rate = "model.curriculum.stage_1.optimizer.lr=1e20"
    assert main(sweep(prepared, *TWO_STAGES, rate, "seed=5")[3:]) == 1
    shown = capfd.readouterr().out
    assert "expected a finite" in shown
    assert "skipped" in shown


def test_a_named_run_is_continued_with_other_workers_and_refused_with_another_rate(
    prepared: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    short = ("stage=1", "model.curriculum.stage_1.max_epochs=1")
    assert main(command(prepared, *short, "seed=6")[3:]) == 0
    (folder,) = prepared.glob("brats/1-monai_ft-fold0-seed6-*")
    named = f"run={json.loads((folder / 'run.json').read_text())['identity'][:12]}"
    assert main(command(prepared, *short, "seed=6", named, "hardware.num_workers=2")[3:]) == 0
    assert main(command(prepared, *short, "seed=6", named, "model.curriculum.stage_1.optimizer.lr=0.5")[3:]) == 1
    assert "model.curriculum.stage_1.optimizer.lr: 0.001 -> 0.5" in capfd.readouterr().err
    assert main(command(prepared, *short, "seed=7", "resume=require")[3:]) == 1
    assert re.search(r"seed: \d -> 7", capfd.readouterr().err)  # the nearest run may be another test's


SHUFFLE = """
import os, random
def shuffled(original):
    def call(*arguments):
        found = list(original(*arguments))
        random.shuffle(found)
        return found
    return call
os.listdir = shuffled(os.listdir)
"""


def test_nothing_but_the_seed_decides(prepared: Path, tmp_path: Path) -> None:
    """Fresh processes, other workers, another hash seed, folders listed in another order."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SHUFFLE)
    found = []
    for number, workers in enumerate((0, 2, 4)):
        output = tmp_path / str(number)
        environment = {**one_thread(), "PYTHONHASHSEED": str(number), "PYTHONPATH": str(tmp_path / "site")}
        changes = [f"dataset.roots=[{prepared}/mock/brats]", f"hardware.num_workers={workers}"]
        line = sweep(output, "stage=prepare,1", "model.curriculum.stage_1.max_epochs=1", *changes)
        seeds = ["seed=0,1"] if number == 0 else ["seed=0"]
        done = subprocess.run([*line, *seeds], capture_output=True, text=True, timeout=TIMEOUT_S, env=environment)
        assert done.returncode == 0, done.stderr
        (folder,) = output.glob("brats/1-monai_ft-fold0-seed0-*")
        (splits,) = output.glob("brats/prepare-*/splits_final.json")
        found.append((logged(folder), final_state(folder), splits.read_bytes()))
    assert found[0] == found[1] == found[2]
    (other,) = (tmp_path / "0").glob("brats/1-monai_ft-fold0-seed1-*")
    assert logged(other) != found[0][0]

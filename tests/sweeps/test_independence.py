"""A run is the same run wherever it is started: alone, in a sweep, with others at the same moment."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.synthetic.lines import small_brats
from tests.synthetic.training import final_state, logged

pytestmark = pytest.mark.slow
TIMEOUT_S = 800
MOST_KILLS = 6


def command(output: Path, *words: str) -> list[str]:
    small = [
        *small_brats(output),
        "mock.num_patients=5",
        "dataset.num_folds=5",
        "dataset.steps_per_epoch=2",
        "model.curriculum.stage_1.max_epochs=2",
        "model.curriculum.stage_2.max_epochs=2",
    ]
    return [sys.executable, "-m", "medexp.run", *words[:1], *small, *words[1:]]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run(output: Path, *words: str, tracked: bool = False) -> None:
    line = [*command(output, *words), f"tracking.enabled={str(tracked).lower()}"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr


def fold_3(output: Path) -> Path:
    (folder,) = output.glob("brats/1-monai_ft-fold3-seed0-*")
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory):
    """What fold 3 ends with when nothing else runs, and the place where its data are prepared."""
    output = tmp_path_factory.mktemp("alone")
    run(output, "-m", "stage=mock,prepare")
    run(output, "stage=1", "fold=3")
    ends = final_state(fold_3(output)), logged(fold_3(output))
    shutil.rmtree(fold_3(output))
    return output, ends


@pytest.mark.parametrize(
    ("launcher", "sweep"),
    [
        ("isolated", ["fold=0,1,2,3,4", "seed=0,1", "sweep.max_parallel=2"]),
        ("basic", ["fold=2,3", "seed=1,0"]),
        ("joblib", ["fold=2,3", "seed=1,0", "hydra.launcher.n_jobs=2"]),
        ("submitit_local", ["fold=2,3"]),
    ],
)
def test_fold_3_of_a_sweep_has_the_bits_of_fold_3_alone(alone, launcher, sweep):
    if launcher in {"joblib", "submitit_local"}:
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    output, ends = alone
    run(output, "-m", "stage=1", f"hydra/launcher={launcher}", *sweep)
    assert (final_state(fold_3(output)), logged(fold_3(output))) == ends
    for folder in output.glob("brats/1-*"):
        shutil.rmtree(folder)


def finished(output: Path) -> dict[str, int]:
    """Return when each finished job wrote what it made."""
    done = {}
    for path in output.glob("brats/[12]-*/state.json"):
        if json.loads(path.read_text())["state"] == "finished":
            done[path.parent.name] = (path.parent / "outputs.json").stat().st_mtime_ns
    return done


@pytest.mark.timeout(1800)
def test_a_sweep_killed_at_random_moments_ends_with_the_same_bits(alone):
    output, _ = alone
    sweep = ["-m", "stage=1,2", "fold=0,1,2,3,4", "sweep.max_parallel=2"]
    run(output, *sweep)
    undisturbed = {path.name: final_state(path) for path in output.glob("brats/[12]-*")}
    assert len(undisturbed) == 10
    for folder in output.glob("brats/[12]-*"):
        shutil.rmtree(folder)
    moments, done = random.Random(7), {}
    for _ in range(MOST_KILLS):
        process = subprocess.Popen(command(output, *sweep), env=environment(), stdout=subprocess.DEVNULL)
        wait_for_work(output, process)
        time.sleep(moments.uniform(0.0, 8.0))
        process.kill()
        process.wait()
        time.sleep(10.0)  # nothing of it is left after that
        assert done.items() <= finished(output).items()
        done = finished(output)
        if len(done) == len(undisturbed):
            break
    run(output, *sweep, tracked=True)
    assert done.items() <= finished(output).items()
    assert {path.name: final_state(path) for path in output.glob("brats/[12]-*")} == undisturbed
    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    (parent,) = [one for one in runs if one.data.tags.get("medexp.kind") == "sweep"]
    assert parent.info.status == "FINISHED"
    assert sorted(one.info.run_name for one in runs if one is not parent) == sorted(undisturbed)
    for folder in output.glob("brats/[12]-*"):
        shutil.rmtree(folder)


def wait_for_work(output: Path, process: subprocess.Popen) -> None:
    """Wait until a job has written something, so that a kill meets jobs and not imports."""
    before = {path: path.stat().st_mtime_ns for path in output.glob("brats/[12]-*/log.txt")}
    deadline = time.monotonic() + TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if any(path.stat().st_mtime_ns != before.get(path) for path in output.glob("brats/[12]-*/log.txt")):
            return
        time.sleep(0.1)


def test_eight_runs_in_the_same_second_on_a_fresh_root_and_database(faulty):
    faulty.options = []
    faulty.tell(["ok"] * 8)
    started = [
        subprocess.Popen(
            faulty.command("stage=11", f"fold={fold}", flags=()),
            env=faulty.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for fold in range(8)
    ]
    said = [process.communicate(timeout=TIMEOUT_S)[0] for process in started]
    assert [process.returncode for process in started] == [0] * 8, "\n".join(said)
    assert len(list(faulty.output.glob("brats/11-*"))) == 8
    client = MlflowClient(f"sqlite:///{faulty.output}/mlflow.db")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert [one.info.status for one in runs] == ["FINISHED"] * 8

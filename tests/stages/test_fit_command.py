"""The real thing: a command that is killed and given again ends with the bits of one that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from medexp.tracking import database_uri
from tests.synthetic.training import final_state, logged

pytestmark = pytest.mark.slow
TIMEOUT_S = 600


def command(output: Path, *overrides: str) -> list[str]:
    small = [
        f"output_dir={output}",
        f"dataset.roots=[{output}/mock/brats]",
        "mock.num_patients=4",
        "mock.shape=[40,40,40]",
        "dataset.num_folds=2",
        "dataset.patch_size=[32,32,32]",
        "dataset.steps_per_epoch=7",
        "model.weights=null",
        "model.network.init_filters=8",
        "model.curriculum.stage_1.freeze=[convInit]",
        "model.curriculum.stage_1.max_epochs=3",
        "model.curriculum.stage_1.accumulate_grad_batches=2",
        "trainer.check_val_every_n_epoch=1",
        "callbacks.last.every_n_steps=1",
        "callbacks.ema.decay=0.9",
        "hardware=cpu",
    ]
    return [sys.executable, "-m", "medexp.run", *small, *overrides]


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
    os.kill(process.pid, number)
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
    assert kill_at_step(prepared, 6, signal.SIGTERM, "hardware.num_workers=0") == 143
    assert json.loads((run_folder(prepared) / "state.json").read_text())["state"] == "interrupted"
    assert kill_at_step(prepared, 9, signal.SIGKILL, "hardware.num_workers=1") == -signal.SIGKILL
    finish(*command(prepared, "stage=1", "hardware.num_workers=2"))
    assert logged(run_folder(prepared)) == logged(kept)
    assert final_state(run_folder(prepared)) == final_state(kept)
    client = MlflowClient(database_uri(prepared))
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert [run.info.status for run in runs] == ["FINISHED"]
    history = client.get_metric_history(runs[0].info.run_id, "train/loss")
    assert sorted(metric.step for metric in history) == list(range(1, 13))

"""A run is the same run wherever it is started: alone, in a sweep, with others at the same moment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.synthetic.training import final_state, logged

pytestmark = pytest.mark.slow
TIMEOUT_S = 800


def run(output: Path, *words: str) -> None:
    small = [
        f"output_dir={output}",
        f"dataset.roots=[{output}/mock/brats]",
        "mock.num_patients=5",
        "mock.shape=[40,40,40]",
        "dataset.num_folds=5",
        "dataset.patch_size=[32,32,32]",
        "dataset.steps_per_epoch=2",
        "model.weights=null",
        "model.network.init_filters=8",
        "model.curriculum.stage_1.freeze=[convInit]",
        "model.curriculum.stage_1.max_epochs=2",
        "hardware=cpu",
        "hardware.num_workers=0",
        "tracking.enabled=false",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "medexp.run", *words[:1], *small, *words[1:]]
    done = subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment)
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

"""Hyper-parameter search on the objective that a run returns: composed without the extra, run where it is there."""

import json
import re
import subprocess
import sys

import pytest
from hydra.errors import MissingConfigException

from medexp.composition import compose
from medexp.composition.composer import checked
from medexp.composition.diagnosis import explained
from medexp.composition.shipped import Shipped
from medexp.errors import ConfigurationError

EXPERIMENT = "experiment=hippocampus_search"


def test_the_example_composes():
    config = compose([EXPERIMENT, "stage=1"])
    assert config.name == "hippocampus_search"
    assert config.model.curriculum.stage_1.optimizer.lr > 0


def test_an_interval_is_refused_without_a_search():
    with pytest.raises(ConfigurationError, match=r"interval, which only a search chooses from.*hydra/sweeper=optuna"):
        checked([EXPERIMENT, "stage=1"], multirun=True)


def test_a_missing_extra_is_named():
    error = MissingConfigException("not there", "hydra/sweeper/optuna", ["basic", "staged"])
    found = explained(error, groups={"hydra/sweeper": []}, shipped=Shipped({}, {}, {}))
    assert "hydra/sweeper=optuna" in str(found)
    assert "medexp[hpo]" in str(found)


@pytest.mark.slow
def test_optuna_searches_on_the_returned_objective(tmp_path):
    """Three trials of one short training each; the study ends with the best of the scores in the ledger."""
    pytest.importorskip("optuna", reason="the extra hpo is not installed")
    common = [
        f"output_dir={tmp_path}",
        f"dataset.roots=[{tmp_path}/mock/hippocampus]",
        "mock.root=${output_dir}/mock/hippocampus",
        "mock.num_patients=4",
        "mock.shape=[32,32,32]",
        "dataset.num_folds=2",
        "dataset.patch_size=[16,16,16]",
        "model.network.base_features=4",
        "trainer=debug",
        "hardware=cpu",
        "hardware.num_workers=0",
        "tracking.enabled=false",
    ]
    run = [sys.executable, "-m", "medexp.run", "-m"]
    subprocess.run([*run, "dataset=hippocampus", "model=unet3d", "stage=mock,prepare", *common], check=True)
    search = ["hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=3"]
    line = [*run, EXPERIMENT, "stage=1", *search, "hydra.sweeper.n_jobs=1", "hydra.sweeper.sampler.seed=1", *common]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    trained = sorted(tmp_path.glob("hippocampus/1-unet3d-*/outputs.json"))
    records = [json.loads((path.parent / "run.json").read_text()) for path in trained]
    rates = {record["received"]["model"]["curriculum"]["stage_1"]["optimizer"]["lr"] for record in records}
    assert len(rates) == 3
    assert all(0.001 <= rate <= 0.1 for rate in rates)
    best = max(json.loads(path.read_text())["objective"] for path in trained)
    found = (tmp_path / "optimization_results.yaml").read_text()
    assert float(re.search(r"best_value: (\S+)", found)[1]) == pytest.approx(best)

"""One finished demonstration, shared by the tests that look at what it made."""

import pytest

from medexp.run import main
from medexp.runs.lineage import all_runs

SMALL = [
    "experiment=demo",
    "mock.num_patients=4",
    "mock.shape=[40,48,40]",
    "dataset.num_folds=2",
    "dataset.patch_size=[32,32,32]",
    "dataset.steps_per_epoch=2",
    "model.curriculum.stage_1.max_epochs=2",
    "model.curriculum.stage_2.max_epochs=2",
    "hardware=cpu",
    "hardware.num_workers=0",
]


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory):
    """The output folder of the demonstration, as `python -m medexp.run` leaves it."""
    folder = tmp_path_factory.mktemp("demo")
    assert main([*SMALL, f"output_dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="session")
def demo_runs(demo_folder):
    """Its runs by stage."""
    return {run.record["stage"]: run for run in all_runs(demo_folder)}

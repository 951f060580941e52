"""Training: resumes bit for bit, hands over weights only, refuses what cannot be trained."""

import signal
from pathlib import Path

import pytest
import torch

from medexp.errors import CheckpointMismatchError, CohortError, ConfigurationError
from medexp.stages.fit import count_workers
from tests.synthetic.training import Batches, final_state, logged, make_run, start, train

POINTS = [
    pytest.param("on_train_batch_start", 12, id="mid-epoch"),
    pytest.param("on_train_batch_end", 13, id="right after a checkpoint's step"),
    pytest.param("on_train_batch_start", 15, id="first step of an epoch"),
    pytest.param("on_train_batch_start", 8, id="first step after an epoch without validation"),
    pytest.param("on_validation_batch_end", 2, id="during validation"),
    pytest.param("on_validation_end", 1, id="after validation, before its checkpoints"),
    pytest.param("on_train_end", 1, id="after the last step"),
    pytest.param("on_train_batch_start", 2, id="before any checkpoint"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert start(folder) == 0
    return folder


@pytest.mark.parametrize(("hook", "call"), POINTS)
def test_killed_run_resumes_bit_for_bit(whole: Path, tmp_path: Path, hook: str, call: int) -> None:
    folder = tmp_path / "run"
    assert start(folder, kill=(hook, call, signal.SIGKILL)) == -signal.SIGKILL
    assert start(folder, resume=True) == 0
    assert logged(folder) == logged(whole)
    assert final_state(folder) == final_state(whole)

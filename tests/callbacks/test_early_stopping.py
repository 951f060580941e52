"""Early stopping: counts validations, survives a resume."""

import signal
from pathlib import Path

from tests.synthetic.training import logged, start, train


def test_training_ends_after_the_patience_without_improvement(tmp_path: Path) -> None:
    settings = {"max_epochs": 30, "check_val_every_n_epoch": 1}
    train(tmp_path / "run", callback_settings={"patience": 3}, model={"lr": 0.0}, trainer=settings)
    validations = [step for step, name, _ in logged(tmp_path / "run") if name == "val/dice/mean"]
    assert len(validations) == 4  # the first is the best, three do not improve on it


def test_counts_survive_a_kill(tmp_path: Path) -> None:
    settings = {
        "callback_settings": {"patience": 3, "every_n_steps": 3},
        "model": {"lr": 0.0},
        "trainer": {"max_epochs": 30, "check_val_every_n_epoch": 1},
    }
    folder = tmp_path / "run"
    assert start(folder, kill=("on_train_batch_start", 24, signal.SIGKILL), **settings) == -signal.SIGKILL
    assert start(folder, resume=True, **settings) == 0
    assert max(step for step, _, _ in logged(folder)) == 28


def test_stopped_run_stays_stopped_when_it_is_resumed(tmp_path: Path) -> None:
    settings = {
        "callback_settings": {"patience": 1},
        "model": {"lr": 0.0},
        "trainer": {"max_epochs": 30, "check_val_every_n_epoch": 1},
    }
    folder = tmp_path / "run"
    assert start(folder, kill=("on_train_end", 1, signal.SIGKILL), **settings) == -signal.SIGKILL
    assert start(folder, resume=True, **settings) == 0
    assert max(step for step, _, _ in logged(folder)) == 14

"""The recorder: one line per step, one row per epoch, the right means."""

import csv
import json
import signal
from pathlib import Path

import pytest

from tests.synthetic.training import Model, start, train


def lines_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_each_step_has_one_line_with_loss_rate_and_gradient(tmp_path: Path) -> None:
    train(tmp_path / "run", trainer={"max_epochs": 2})
    lines = [line for line in lines_of(tmp_path / "run") if "train/loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 15))
    assert [line["lr"] for line in lines] == pytest.approx([0.05 * 0.97**step for step in range(14)])
    assert all(line["train/gradient_norm"] > 0 for line in lines)


def test_row_holds_the_mean_over_the_epochs_steps(tmp_path: Path) -> None:
    train(tmp_path / "run", trainer={"max_epochs": 2})
    losses = [line["train/loss"] for line in lines_of(tmp_path / "run") if "train/loss" in line]
    rows = rows_of(tmp_path / "run")
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert [float(row["train/loss"]) for row in rows] == pytest.approx([sum(losses[:7]) / 7, sum(losses[7:]) / 7])
    assert rows[0]["val/dice/mean"] == ""  # validated every second epoch
    assert 0 < float(rows[1]["val/dice/mean"]) <= 1


def test_loss_of_an_accumulated_step_is_the_mean_over_its_batches(tmp_path: Path) -> None:
    seen: list[float] = []

    class Spy(Model):
        def training_step(self, batch: dict, batch_idx: int):
            loss = super().training_step(batch, batch_idx)
            seen.append(float(loss.detach()))
            return loss

    from functools import partial

    from tests.synthetic import training

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "Model", partial(Spy))
        train(tmp_path / "run", trainer={"max_epochs": 1, "accumulate_grad_batches": 3})
    losses = [line["train/loss"] for line in lines_of(tmp_path / "run") if "train/loss" in line]
    assert losses == pytest.approx([sum(seen[:3]) / 3, sum(seen[3:6]) / 3, seen[6]])


def test_history_has_one_row_per_epoch_after_kills(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for call in (9, 13):
        kill = ("on_train_batch_start", call, signal.SIGKILL)
        assert start(folder, kill=kill, resume=True) == -signal.SIGKILL
    assert start(folder, resume=True) == 0
    assert [(row["epoch"], row["step"]) for row in rows_of(folder)] == [
        ("0", "7"),
        ("1", "14"),
        ("2", "21"),
        ("3", "28"),
    ]

"""Resources: the share of waiting is what was waited, memory is reported, pauses are taken."""

import csv
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from medexp.callbacks.cooling import CoolingPauses
from medexp.callbacks.resources import memory_gb
from tests.synthetic import training
from tests.synthetic.training import Batches, train


class SlowBatches(Batches):
    """Take 50 ms for every batch."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in super().__iter__():
            time.sleep(0.05)
            yield batch


def waited_percent(folder: Path) -> list[float]:
    with (folder / "history.csv").open(newline="") as stream:
        return [float(row["loader_wait_percent"]) for row in csv.DictReader(stream)]


def test_slow_loader_is_seen_and_advice_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(training, "Batches", SlowBatches)
    with caplog.at_level(logging.INFO):
        train(tmp_path / "run", trainer={"max_epochs": 2})
    assert all(30.0 < percent <= 100.0 for percent in waited_percent(tmp_path / "run"))
    assert "more hardware.num_workers may help" in caplog.text


def test_fast_loader_costs_little(tmp_path: Path) -> None:
    train(tmp_path / "run", trainer={"max_epochs": 2})
    assert all(0.0 <= percent < 30.0 for percent in waited_percent(tmp_path / "run"))


def test_memory_of_the_process_is_reported() -> None:
    found = memory_gb(torch.device("cpu"))
    assert found.keys() == {"memory/process_gb"}
    assert 0.05 < found["memory/process_gb"] < 100


def test_pauses_are_taken_after_every_nth_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("medexp.callbacks.cooling.time.sleep", slept.append)
    train(tmp_path / "run", trainer={"max_epochs": 2}, extra={"cool": CoolingPauses(every_n_steps=5, pause_s=0.5)})
    assert slept == [0.5, 0.5]


def test_plain_line_per_epoch_without_a_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="medexp.callbacks.progress"):
        train(tmp_path / "run", trainer={"max_epochs": 2})
    lines = [record.getMessage() for record in caplog.records if record.name == "medexp.callbacks.progress"]
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "left" in lines[0]

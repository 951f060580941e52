"""The TensorBoard log holds what the run's folder holds, also after a resume, and is off unless asked for."""

import json
from pathlib import Path

import pytest

from medexp.composition.composer import compose
from medexp.errors import ConfigurationError
from tests.synthetic.training import make_run, make_tracker


def read(folder: Path) -> dict[str, dict[int, float]]:
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = loading.EventAccumulator(str(folder / "tensorboard"), {loading.SCALARS: 0})
    events.Reload()
    return {key: {event.step: event.value for event in events.Scalars(key)} for key in events.Tags()["scalars"]}


def test_every_logged_number_is_there(tmp_path):
    run = make_run(tmp_path / "run")
    tracker = make_tracker(run, tensorboard=True)
    for step in (1, 2, 3):
        tracker.log_metrics({"train/loss": 1.0 / step, "lr": 0.5}, step)
    tracker.finish("FINISHED")
    assert read(run.folder)["lr"] == {1: 0.5, 2: 0.5, 3: 0.5}
    assert read(run.folder)["train/loss"] == pytest.approx({1: 1.0, 2: 0.5, 3: 1 / 3})
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]


def test_a_resumed_run_replaces_what_it_repeats(tmp_path):
    run = make_run(tmp_path / "run")
    first = make_tracker(run, tensorboard=True)
    for step in (1, 2, 3):
        first.log_metrics({"train/loss": 9.0}, step)
    first.finish("KILLED")
    second = make_tracker(run, tensorboard=True)
    assert second.rewind(1) == 2
    for step in (2, 3):
        second.log_metrics({"train/loss": 1.0}, step)
    second.finish("FINISHED")
    assert read(run.folder)["train/loss"] == {1: 9.0, 2: 1.0, 3: 1.0}


def test_it_is_off_unless_asked_for(tmp_path):
    run = make_run(tmp_path / "run")
    tracker = make_tracker(run)
    tracker.log_metrics({"train/loss": 1.0}, 1)
    tracker.finish("FINISHED")
    assert not (run.folder / "tensorboard").exists()


def test_a_missing_package_is_named_before_anything_starts(monkeypatch):
    monkeypatch.setattr("medexp.composition.relations.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"tracking\.tensorboard=true: .* pip install 'medexp\[tensorboard\]'"):
        compose(["stage=1", "tracking.tensorboard=true"])
    compose(["stage=1"])

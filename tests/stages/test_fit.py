"""Training: resumes bit for bit, hands over weights only, refuses what cannot be trained."""

import logging
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from medexp.errors import CheckpointMismatchError, CohortError, ConfigurationError, ResumeError, StorageError
from tests.synthetic.training import Batches, Kill, final_state, logged, make_run, start, train

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


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Train in this process as the processes that are started do: another number of threads rounds otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


def test_killed_accumulating_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings = {"trainer": {"accumulate_grad_batches": 3}, "callback_settings": {"every_n_steps": 2}}
    assert start(tmp_path / "whole" / "run", **settings) == 0
    folder = tmp_path / "killed" / "run"
    assert start(folder, kill=("on_train_batch_start", 12, signal.SIGKILL), **settings) == -signal.SIGKILL
    assert start(folder, resume=True, **settings) == 0
    assert logged(folder) == logged(tmp_path / "whole" / "run")
    assert final_state(folder) == final_state(tmp_path / "whole" / "run")


def test_last_partial_group_is_a_step(tmp_path: Path) -> None:
    train(tmp_path / "run", trainer={"accumulate_grad_batches": 3, "max_epochs": 2})
    assert {step for step, _, _ in logged(tmp_path / "run")} == set(range(1, 7))  # 7 batches: 3 + 3 + 1, twice


@pytest.mark.parametrize(("hook", "call"), [("on_train_batch_start", 11), ("on_validation_batch_end", 1)])
def test_sigterm_saves_the_current_step_and_exits_143(whole: Path, tmp_path: Path, hook: str, call: int) -> None:
    folder = tmp_path / "run"
    assert start(folder, kill=(hook, call, signal.SIGTERM)) == 143
    done = 11 if hook == "on_train_batch_start" else 14
    assert (folder / "checkpoints" / "last.ckpt").resolve().name == f"last-{done:08d}.ckpt"
    assert start(folder, resume=True) == 0
    assert logged(folder) == logged(whole)
    assert final_state(folder) == final_state(whole)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_scheduler_s_warning_saves_the_current_step(tmp_path: Path, number: int) -> None:
    with pytest.raises(SystemExit) as left:
        train(tmp_path / "run", extra={"kill": Kill("on_train_batch_start", 5, number)})
    assert left.value.code == 143
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").resolve().name == "last-00000005.ckpt"


def test_keyboard_interrupt_saves_the_current_step(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", extra={"kill": Kill("on_train_batch_start", 5, signal.SIGINT)})
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").resolve().name == "last-00000005.ckpt"


def test_damaged_last_checkpoint_falls_back_to_the_one_before(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    assert start(folder, kill=("on_train_batch_start", 14, signal.SIGKILL)) == -signal.SIGKILL
    path = (folder / "checkpoints" / "last.ckpt").resolve()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    train(folder, resume=True)
    assert "expected sha256" in caplog.text
    assert path.name in caplog.text
    assert logged(folder) == logged(whole)


DAMAGES = {
    "empty": lambda data, other: b"",
    "cut in half": lambda data, other: data[: len(data) // 2],
    "a byte short": lambda data, other: data[:-1],
    "a bit flipped": lambda data, other: data[:1000] + bytes([data[1000] ^ 1]) + data[1001:],
    "another one's bytes": lambda data, other: other,
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended with two checkpoints, of steps 9 and 12."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    assert start(folder, kill=("on_train_batch_start", 14, signal.SIGKILL)) == -signal.SIGKILL
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_costs_one_checkpoint_and_no_bit(
    whole: Path, killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    caplog.set_level(logging.INFO, logger="medexp")
    folder = tmp_path / "run"
    shutil.copytree(killed, folder, symlinks=True)
    older, newest = sorted((folder / "checkpoints").glob("last-*.ckpt"))
    newest.write_bytes(DAMAGES[damage](newest.read_bytes(), older.read_bytes()))
    with pytest.raises(
        CheckpointMismatchError, match=f"{newest.name}: expected sha256.*resume=auto takes the one before"
    ):
        train(folder, resume=True, require=True)
    train(folder, resume=True)
    assert f"steps recovered from {older.name}" in caplog.text
    assert logged(folder) == logged(whole)
    assert final_state(folder) == final_state(whole)


def test_require_asks_for_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="resume=require: expected a checkpoint"):
        train(tmp_path / "run", resume=True, require=True)


def test_a_disk_that_fills_up_costs_no_earlier_checkpoint(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(StorageError, match=r"last-00000012\.ckpt.*free some space"):
            train(folder, extra={"full": Fill("on_train_batch_start", 11)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder / "checkpoints" / "last.ckpt").resolve().name == "last-00000009.ckpt"
    assert not list(folder.rglob(".writing*"))
    train(folder, resume=True)
    assert logged(folder) == logged(whole)
    assert final_state(folder) == final_state(whole)


class Fill(Kill):
    """Let no file grow beyond what metrics need, from a hook's n-th call on."""

    def __init__(self, hook: str, call: int) -> None:
        super().__init__(hook, call, 0)

    def _count(self, *_: object, call: int, number: int, **__: object) -> None:
        self.calls += 1
        if self.calls == call:
            resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_second_stage_starts_from_the_best_weights_of_the_first(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first")
    result = train(first.folder)
    first.write_outputs(result.outputs, digest=None)
    best = torch.load(result.outputs["best"], weights_only=True)
    result = train(tmp_path / "second", initial=first, trainer={"max_epochs": 2}, model={"lr": 0.0})
    weights = torch.load(result.outputs["last"], weights_only=True)["state_dict"]
    unchanged = [name for name in weights if torch.equal(weights[name], best["state_dict"][name])]
    running = {
        "network.encoder.1.running_mean",
        "network.encoder.1.running_var",
        "network.encoder.1.num_batches_tracked",
    }
    assert set(weights) - set(unchanged) == running  # nothing is frozen in the second stage
    assert first.output("best").sha256 in result.lines[0]


def test_second_stage_refuses_weights_that_changed_since(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first")
    result = train(first.folder, trainer={"max_epochs": 2})
    first.write_outputs(result.outputs, digest=None)
    with result.outputs["best"].open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(CheckpointMismatchError, match="expected sha256"):
        train(tmp_path / "second", initial=first)


def test_best_is_the_best_and_not_the_last(tmp_path: Path) -> None:
    result = train(tmp_path / "run", model={"lr": 1.0}, trainer={"max_epochs": 6, "check_val_every_n_epoch": 1})
    scores = {step: float.fromhex(value) for step, name, value in logged(tmp_path / "run") if name == "val/dice/mean"}
    assert len(scores) == 6
    assert result.objective == max(scores.values())
    best = torch.load(result.outputs["best"], weights_only=True)
    assert scores[best["global_step"]] == max(scores.values())


def test_empty_fold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="fold=0: expected training batches, got none"):
        train(tmp_path / "run", data={"num_batches": 0})


def test_training_without_validation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected at least one validation"):
        train(tmp_path / "run", trainer={"limit_val_batches": 0, "max_epochs": 1})


def test_validation_takes_place_in_a_short_training(tmp_path: Path) -> None:
    result = train(tmp_path / "run", trainer={"max_epochs": 1, "check_val_every_n_epoch": 5})
    assert result.objective is not None


def test_toy_loader_forgets_nothing() -> None:
    batches = Batches(1)
    first = [batch["image"] for _, batch in zip(range(3), batches, strict=False)]
    again = Batches(1)
    again.load_state_dict({"epoch": 0, "done": 1})
    assert torch.equal(next(iter(again))["image"], first[1])

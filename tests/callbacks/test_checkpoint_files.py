"""Checkpoint files: whole, verified, and safe from a full disk."""

import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from medexp.callbacks.checkpoint_files import (
    AtomicCheckpointIO,
    forget_after,
    name_of,
    newest_valid,
    point_to,
    sidecar,
    step_of,
    verify,
)
from medexp.errors import CheckpointMismatchError, StorageError
from medexp.runs.files import sha256_of
from tests.synthetic.training import final_state, logged, start, train


@contextmanager
def limited_file_size(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def save(folder: Path, kind: str, step: int, *, size: int = 1000) -> Path:
    path = folder / name_of(kind, step)
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"weight": torch.full((size,), float(step))}}, path)
    return path


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES = [
    pytest.param(lambda data: b"", id="empty"),
    pytest.param(lambda data: data[: len(data) // 2], id="cut in half"),
    pytest.param(lambda data: data[:-1], id="one byte short"),
    pytest.param(flip, id="one bit flipped"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_refused_before_it_is_read(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = save(tmp_path, "last", 2)
    expected = sha256_of(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointMismatchError, match=rf"expected sha256 {expected}, got {sha256_of(path)}"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_swapped_sidecars_are_refused(tmp_path: Path) -> None:
    first, second = save(tmp_path, "last", 1), save(tmp_path, "last", 2)
    sidecar(first).write_text(sidecar(second).read_text())
    with pytest.raises(CheckpointMismatchError, match="expected sha256"):
        verify(first)


def test_checkpoint_without_sidecar_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, "last", 1)
    sidecar(path).unlink()
    with pytest.raises(CheckpointMismatchError, match="found no such pair"):
        verify(path)


def test_newest_intact_checkpoint_is_taken(tmp_path: Path) -> None:
    save(tmp_path, "last", 4)
    intact, damaged = save(tmp_path, "regular", 6), save(tmp_path, "last", 8)
    save(tmp_path, "best", 9)  # saved in the middle of an epoch's end: not one to resume from
    damaged.write_bytes(b"")
    assert newest_valid(tmp_path) == intact


def test_nothing_to_resume_from_is_not_an_error(tmp_path: Path) -> None:
    assert newest_valid(tmp_path) is None


def test_only_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    save(tmp_path, "last", 1).write_bytes(b"")
    with pytest.raises(CheckpointMismatchError, match="resume=never"):
        newest_valid(tmp_path)


def test_checkpoints_behind_the_resumed_step_are_forgotten(tmp_path: Path) -> None:
    kept, gone = save(tmp_path, "last", 3), save(tmp_path, "best", 5)
    forget_after(tmp_path, 3)
    assert kept.exists()
    assert not gone.exists()
    assert not sidecar(gone).exists()


def test_stable_name_is_verified_through_its_link(tmp_path: Path) -> None:
    path = save(tmp_path, "last", 3)
    point_to(tmp_path / "last.ckpt", path)
    assert verify(tmp_path / "last.ckpt") == sha256_of(path)
    assert step_of(path) == 3
    assert step_of(tmp_path / "last.ckpt") == -1


def test_full_disk_leaves_earlier_files_as_they_are(tmp_path: Path) -> None:
    before = save(tmp_path, "last", 1, size=50_000)
    content = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        limited_file_size(100_000),
        pytest.raises(StorageError, match=r"last-00000002\.ckpt.*needs about 200,000 bytes"),
    ):
        save(tmp_path, "last", 2, size=50_000)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == content
    assert newest_valid(tmp_path) == before


def test_checkpoints_of_a_training_load_without_running_code(tmp_path: Path) -> None:
    train(tmp_path / "run", trainer={"max_epochs": 2})
    paths = list((tmp_path / "run" / "checkpoints").glob("*.ckpt"))
    assert len(paths) == 6  # best and last with their links, the last but one, one regular
    for path in paths:
        assert torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [None, "/dev/shm"], ids=["here", "TMPDIR on another file system"])
def test_kills_at_thirty_random_instants_of_saving_change_nothing(tmp_path: Path, elsewhere: str | None) -> None:
    if elsewhere is not None and not Path(elsewhere).is_dir():
        pytest.skip(f"no {elsewhere} on this machine")
    environment = {} if elsewhere is None else {"TMPDIR": elsewhere}
    settings = {"callback_settings": {"every_n_steps": 1}, "trainer": {"max_epochs": 40, "check_val_every_n_epoch": 10}}
    assert start(tmp_path / "whole" / "run", **settings) == 0
    folder, instants = tmp_path / "killed" / "run", random.Random(0)
    for _ in range(30):
        assert start(
            folder, resume=True, kill_after_s=instants.uniform(0.3, 1.5), environment=environment, **settings
        ) in {0, -signal.SIGKILL}
        saved = folder / "checkpoints"
        assert not list(saved.glob("last-*.ckpt")) or newest_valid(saved) is not None
    assert start(folder, resume=True, **settings) == 0
    assert logged(folder) == logged(tmp_path / "whole" / "run")
    assert final_state(folder) == final_state(tmp_path / "whole" / "run")

"""Checkpoints as files: written whole or not at all, verified before they are read.

Every checkpoint `<kind>-<step>.ckpt` has a sidecar `<kind>-<step>.ckpt.sha256`, written before it. The stable names
`best.ckpt` and `last.ckpt` are symbolic links, moved after the file that they point to is on the disk.
"""

import hashlib
import logging
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor

from medexp.errors import CheckpointMismatchError, NonFiniteError, StorageError
from medexp.runs.files import atomic_write, sha256_of, storage_error, write_text

log = logging.getLogger(__name__)

_STEP = re.compile(r"-(\d+)\.ckpt$")
_LARGE_BYTES = 1 << 20
RESUMABLE_KINDS = ("last", "regular")  # saved where an epoch or a step is complete


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's way to write and read checkpoints, with the promises of this module."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write `checkpoint`, its sidecar first.

        Raises:
            NonFiniteError: A weight is NaN or infinite; nothing is written.
            StorageError: The disk is full or the folder cannot be written; earlier files are untouched.
        """
        path = Path(path)
        _refuse_non_finite(checkpoint["state_dict"], path)
        with atomic_write(path) as temporary:
            digest = _save_hashed(checkpoint, temporary, path)
            write_text(sidecar(path), f"{digest}  {path.name}\n")

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: object = None,
        weights_only: bool | None = True,  # noqa: FBT001, FBT002 - Lightning's signature
    ) -> dict[str, Any]:
        """Read a checkpoint after its bytes were compared with the sidecar; never runs code from it.

        Raises:
            CheckpointMismatchError: The file is not what was written.
        """
        verify(Path(path))
        return dict(torch.load(path, map_location="cpu", weights_only=True))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint and its sidecar."""
        Path(path).unlink(missing_ok=True)
        sidecar(Path(path)).unlink(missing_ok=True)


class _HashingFile:
    """What `torch.save` writes to: hashes on the way and remembers why a write failed, which torch does not say.

    A large piece is hashed by a second thread while this one writes it; both let other threads run.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        if len(data) < _LARGE_BYTES:
            self.digest.update(data)
            return self._write(data)
        hashed = self._pool.submit(self.digest.update, data)
        try:
            return self._write(data)
        finally:
            hashed.result()  # the memory is the caller's again after this

    def _write(self, data: bytes | memoryview) -> int:
        """Write all of it; the system takes at most 2 GiB at once."""
        left = memoryview(data)
        try:
            while left:
                left = left[self._stream.write(left) :]
        except OSError as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._pool.shutdown()


def _save_hashed(checkpoint: dict[str, Any], temporary: Path, path: Path) -> str:
    with temporary.open("wb", buffering=0) as stream:
        hashing = _HashingFile(stream)
        try:
            torch.save(checkpoint, hashing)  # type: ignore[arg-type] # it needs write and flush only
        except (OSError, RuntimeError) as error:
            raise _explained(error, hashing.error, checkpoint, temporary, path) from error
        finally:
            hashing.close()
    return hashing.digest.hexdigest()


def _explained(
    error: Exception, reason: OSError | None, checkpoint: dict[str, Any], temporary: Path, path: Path
) -> Exception:
    """Return a `StorageError` where the disk is to blame, else the error itself."""
    if reason is None and isinstance(error, OSError):
        reason = error
    if reason is None:
        return error
    needed = sum(value.nbytes for value in _tensors(checkpoint))
    return StorageError(
        f"{storage_error(path, reason, written=temporary)}; the checkpoint needs about {needed:,} bytes"
    )


def _tensors(record: Any) -> Iterable[Tensor]:
    if isinstance(record, Tensor):
        yield record
    elif isinstance(record, dict):
        for value in record.values():
            yield from _tensors(value)
    elif isinstance(record, list | tuple):
        for value in record:
            yield from _tensors(value)


def _refuse_non_finite(weights: dict[str, Tensor], path: Path) -> None:
    for name, value in weights.items():
        # One pass without a temporary; NaN is both the least and the greatest.
        if value.is_floating_point() and value.numel() and not bool(torch.isfinite(torch.stack(value.aminmax())).all()):
            message = f"{path}: expected finite weights, got NaN or infinity in '{name}'; nothing was written"
            raise NonFiniteError(f"{message}. Lower the learning rate, or look at the last batches")


def sidecar(path: Path) -> Path:
    """Return where the checksum of a checkpoint lies."""
    return path.with_name(f"{path.name}.sha256")


def verify(path: Path) -> str:
    """Return the checkpoint's SHA-256 after comparing it with its sidecar; links are followed.

    Raises:
        CheckpointMismatchError: A file is missing or the bytes differ.
    """
    path = path.resolve()
    if not path.exists() or not sidecar(path).exists():
        raise CheckpointMismatchError(f"{path}: expected a checkpoint and its {sidecar(path).name}, found no such pair")
    expected, found = sidecar(path).read_text(encoding="utf-8").split(" ")[0].strip(), sha256_of(path)
    if found != expected:
        message = f"{path}: expected sha256 {expected}, got {found} over {path.stat().st_size:,} bytes"
        raise CheckpointMismatchError(f"{message}; the file is damaged and was not read")
    return found


def step_of(path: Path) -> int:
    """Return the number of optimizer steps that a checkpoint's name tells, -1 if it tells none."""
    found = _STEP.search(path.name)
    return int(found.group(1)) if found else -1


def name_of(kind: str, step: int) -> str:
    """Return the file name of a checkpoint."""
    return f"{kind}-{step:08d}.ckpt"


def point_to(link: Path, target: Path) -> None:
    """Let the stable name `link` stand for `target`, a file beside it."""
    with atomic_write(link, durable=False) as temporary:
        temporary.symlink_to(target.name)


def newest_valid(folder: Path, *, strict: bool = False) -> Path | None:
    """Return the checkpoint to resume from: of the resumable ones, the one with the most steps that is intact.

    Damaged ones are named in a warning with expected and found checksum. None: the folder holds none.

    Args:
        folder: Where the checkpoints are.
        strict: The newest must be intact.

    Raises:
        CheckpointMismatchError: There are checkpoints, and all of them are damaged (`strict`: the newest is).
    """
    candidates = [path for kind in RESUMABLE_KINDS for path in folder.glob(f"{kind}-*.ckpt")]
    problems = []
    for path in sorted(candidates, key=lambda path: (step_of(path), path.name.startswith("last")), reverse=True):
        try:
            verify(path)
        except CheckpointMismatchError as error:
            if strict:
                raise CheckpointMismatchError(f"{error}. resume=auto takes the one before") from error
            log.warning("damaged checkpoint: %s; the one before it is taken", error)
            problems.append(str(error))
        else:
            return path
    if problems:
        listed = "\n  ".join(problems)
        message = f"{folder}: expected an intact checkpoint to resume from, got\n  {listed}\nStart over: resume=never"
        raise CheckpointMismatchError(message)
    return None


def loader_states(path: Path) -> list[dict[str, Any]]:
    """Return what the training loaders said about themselves when a checkpoint was saved."""
    loops = torch.load(path, map_location="cpu", weights_only=True)["loops"]
    return list(loops["fit_loop"]["state_dict"].get("combined_loader", []))


def forget_after(folder: Path, step: int) -> None:
    """Remove the checkpoints behind `step`: a run that resumes there makes them again."""
    for path in folder.glob("*-*.ckpt"):
        if step_of(path) > step:
            path.unlink()
            sidecar(path).unlink(missing_ok=True)

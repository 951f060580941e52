"""Training on several devices of one machine: the run's own process is rank 0 and starts the others.

Lightning would start them with this process's command line, which in a sweep is the sweep's.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from medexp.errors import ConfigurationError, MedexpError
from medexp.runs.members import Member
from medexp.runs.processes import available_cores
from medexp.stages.context import Context

log = logging.getLogger(__name__)

_POLL_S = 0.2
_GRACE_S = 15.0  # between a rank's death and the moment in which the others have noticed by themselves


class RankDiedError(MedexpError, RuntimeError):
    """One of the processes that train together has ended before the others; the message has its last words."""


class OneMachine(LightningEnvironment):
    """Tells Lightning who this process is. It never looks at the variables of Slurm or of other launchers."""

    def __init__(self, member: Member | None) -> None:
        super().__init__()
        self._rank = 0 if member is None else member.rank
        if member is not None:
            self._main_port = member.port

    @property
    def creates_processes_externally(self) -> bool:
        """Whether Lightning leaves the starting of processes to others: always."""
        return True

    @property
    def main_address(self) -> str:
        """The leader is on this machine."""
        return "127.0.0.1"

    def local_rank(self) -> int:
        """Return this process's number."""
        return self._rank

    def node_rank(self) -> int:
        """Return the machine's number."""
        return 0


@contextmanager
def all_ranks(trainer: Trainer, context: Context, port: int, checkpoint: Path | None) -> Iterator[None]:
    """Start the other ranks of this machine, where there are to be any, and see to it that they end with the block.

    Raises:
        ConfigurationError: The strategy starts processes in a way of its own.
        RankDiedError: A rank died, so that this one could not go on.
    """
    if trainer.world_size == 1 or context.member is not None:
        yield
        return
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        name = type(trainer.strategy).__name__
        raise ConfigurationError(f"hardware.strategy: expected ddp or another one of a process per device, got {name}")
    ranks = _Ranks.start(trainer.world_size, context, port, checkpoint)
    try:
        yield
    except Exception as error:
        if death := ranks.death():
            raise RankDiedError(death) from error
        ranks.kill()
        raise
    finally:
        ranks.end()


@dataclass
class _Ranks:
    """The processes of ranks 1, 2, ..."""

    context: Context
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def start(cls, world_size: int, context: Context, port: int, checkpoint: Path | None) -> "_Ranks":
        ranks = cls(context)
        threads = str(max(1, available_cores() // world_size))
        for rank in range(1, world_size):
            told = Member(
                rank=rank,
                port=port,
                leader=os.getpid(),
                folder=str(context.run.folder),
                checkpoint=None if checkpoint is None else str(checkpoint),
            )
            environment = {"OMP_NUM_THREADS": threads, **os.environ, **told.to_environment()}
            with ranks.log_path(rank).open("ab") as stream:
                ranks.processes.append(
                    subprocess.Popen(
                        _command(context.arguments),
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=stream,
                        stderr=subprocess.STDOUT,
                    )
                )
        log.info("training on %d devices; the others write to %s", world_size, ranks.log_path(1).parent / "rank*.log")
        threading.Thread(target=ranks.watch, name="rank-watch", daemon=True).start()
        return ranks

    def log_path(self, rank: int) -> Path:
        return self.context.run.folder / f"rank{rank}.log"

    def watch(self) -> None:
        """End this process when another one died and this one has not noticed: a collective may wait for ever."""
        while not self.ended.wait(_POLL_S):
            if self._dead() is not None:
                if not self.ended.wait(_GRACE_S):
                    self._give_up()
                return

    def _give_up(self) -> None:
        reason = self.death() or "a rank died"
        log.error("%s", reason)
        self.kill()
        with suppress(Exception):  # whatever else is broken, the process must end
            self.context.tracker.finish("FAILED")
        self.context.run.end("failed", reason=f"{RankDiedError.__name__}: {reason}")
        os._exit(1)

    def _dead(self) -> int | None:
        return next((rank for rank, one in enumerate(self.processes, start=1) if one.poll() not in {None, 0}), None)

    def death(self) -> str | None:
        """Return which rank died and its last words, None if all live."""
        deadline = time.monotonic() + 2.0  # a closed connection is heard of before the process is gone
        while (rank := self._dead()) is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if rank is None:
            return None
        status, path = self.processes[rank - 1].returncode, self.log_path(rank)
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
        return f"rank {rank} ended with {how}: {lines[-1] if lines else 'it said nothing'}; see {path}"

    def kill(self) -> None:
        """End all of them at once."""
        for process in self.processes:
            process.kill()

    def end(self) -> None:
        """Wait until all have ended by themselves, as they do when training has ended; then insist."""
        self.ended.set()
        deadline = time.monotonic() + _GRACE_S
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
        self.kill()
        for process in self.processes:
            process.wait()


def _command(arguments: Sequence[str]) -> list[str]:
    """Return the command line of a single run, also where the configuration asks for a sweep."""
    return [sys.executable, "-m", "medexp.run", *arguments, "hydra.mode=RUN"]

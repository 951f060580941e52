"""Jobs for a real Slurm that behave as told, without anything heavy."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from medexp.sweeps.slurm_node import NodeJob
from medexp.sweeps.worker import Success
from tests.synthetic.faults import fail

PARAMETERS = {
    "timeout_min": 5,
    "mem_gb": 1,
    "cpus_per_task": 1,
    "slurm_array_parallelism": 2,
    "slurm_signal_delay_s": 60,
}


@dataclass(frozen=True)
class Behaving(NodeJob):
    """Does what its line says."""

    def _run(self) -> Success:
        kind, mark = self.overrides
        with Path(mark).open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        fail(kind)
        match kind:
            case "hang":
                time.sleep(600)
            case "first time":
                time.sleep(600 if Path(mark).read_text().count("\n") == 1 else 0)
            case "slow":
                time.sleep(3)
        return Success(kind)


def behaving(folder: Path, kinds: list[str], *, requeues: int = 0) -> list[NodeJob]:
    """Return a job per kind; each start leaves a line in `<number>.mark`."""
    return [
        Behaving(None, None, None, (kind, str(folder / f"{number}.mark")), number, requeues, None)  # type: ignore[arg-type]
        for number, kind in enumerate(kinds)
    ]

"""Several processes that train one run together: the leader holds the run, the members take part in it.

A member is started with the run's own single-run command line. One environment variable tells it that it is not a run
of its own: it takes no lock, writes no record and logs nothing, and it ends when its leader does.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "MEDEXP_MEMBER"
_POLL_S = 0.5
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Member:
    """What a member is told.

    Attributes:
        rank: From 1; the leader is rank 0.
        port: Where the leader waits, on this machine.
        leader: Process number of the leader.
        folder: The run.
        checkpoint: What an interrupted run goes on from; None: it starts.
    """

    rank: int
    port: int
    leader: int
    folder: str
    checkpoint: str | None

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> "Member | None":
        """Return what this process is told, None if it is a run of its own."""
        text = environment.get(VARIABLE)
        return None if text is None else cls(**json.loads(text))

    def to_environment(self) -> dict[str, str]:
        """Return the variables of the member's process."""
        return {VARIABLE: json.dumps(asdict(self))}

    def resumes_from(self) -> Path | None:
        """Return the checkpoint that the leader has chosen."""
        return None if self.checkpoint is None else Path(self.checkpoint)

    def end_with_leader(self) -> None:
        """Kill this process as soon as the leader is gone, however it went: alone it would wait for ever.

        On Linux the kernel does so, for a collective that fails may keep every Python thread from running.
        """
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        def watch() -> None:
            while os.getppid() == self.leader:
                time.sleep(_POLL_S)
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=watch, name="leader-watch", daemon=True).start()

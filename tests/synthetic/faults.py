"""The ways in which a job can end that is not well, the same for every launcher."""

import os
import signal
import sys


def fail(kind: str) -> None:
    """End this job or its process as `kind` says; another kind returns."""
    match kind:
        case "exception":
            raise ZeroDivisionError("one over nothing")
        case "exit":
            sys.exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "memory":
            raise MemoryError("too large")

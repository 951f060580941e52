"""Outlives a sweep that is killed, and ends its jobs: a process of its own that imports nothing but this.

Its input is a pipe that only the sweep's process holds. A line `+<pid>` is a job that started, as the leader of a
process group, and `-<pid>` one that ended. The pipe's end is the sweep's end, however it came: the jobs that are left
are asked to end, and after a grace they and everything that they started are killed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

# What is left of the ten seconds after which nothing may be left, once the kills are through.
GRACE_S = 8.0


class Guard:
    """The sweep's side: tell the guard which jobs live. Use as a context."""

    def __enter__(self) -> "Guard":
        # -I -S: no site packages, nothing imported, starts in a hundredth of a second.
        arguments = [sys.executable, "-I", "-S", str(Path(__file__).absolute())]
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, start_new_session=True)
        return self

    def watch(self, pid: int) -> None:
        """Guard a job that has started."""
        self._tell(f"+{pid}\n")

    def forget(self, pid: int) -> None:
        """Leave a job alone that has ended, before its number can belong to another process."""
        self._tell(f"-{pid}\n")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # somebody killed it; the jobs still watch for themselves
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()


def kill_group(pid: int) -> None:
    """Kill a job and everything that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _end(pids: set[int]) -> None:
    deadline = time.monotonic() + GRACE_S
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    while any(map(_is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in pids:
        kill_group(pid)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Keep the list of living jobs until the input ends."""
    pids: set[int] = set()
    for line in sys.stdin.buffer:
        pid = int(line[1:])
        pids.add(pid) if line[:1] == b"+" else pids.discard(pid)
    _end(pids)


if __name__ == "__main__":
    main()

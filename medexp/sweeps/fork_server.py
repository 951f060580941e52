"""What the fork server does for itself once; imported there, before the first job.

A signal to everything that belongs to a sweep (a scheduler's, or `kill` to the group) must not end the server before
its jobs have saved their step: without it nobody learns how they ended. It goes with the last of them anyway. And
the code's version is read here, where the code was imported: later edits do not reach the jobs.
"""

import signal
import sys

from medexp.runs.provenance import code_version, git_state


def _is_server() -> bool:
    return any("multiprocessing.forkserver" in argument for argument in sys.orig_argv)


if _is_server():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code_version()
    git_state()

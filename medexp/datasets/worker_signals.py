"""Signals in loader processes: the terminal's and the scheduler's go to a whole group, and the main process answers."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LEFT_TO_MAIN = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold signals back while loader processes start: they and every thread of theirs inherit that.

    Otherwise one that comes before `leave_signals_to_main` ends such a process, and so does a later SIGTERM that the
    system hands to a thread which some library starts in every new process.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, *_LEFT_TO_MAIN})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_main(worker_id: int) -> None:
    """Go on loading, so that the main process can finish and save its step; end when the main process asks for it.

    Without this, Ctrl-C or a scheduler's SIGTERM ends the loader's processes first, and the run fails for want of a
    batch. For `DataLoader(worker_init_fn=...)`.
    """
    for number in _LEFT_TO_MAIN:
        signal.signal(number, signal.SIG_IGN)
    main = multiprocessing.parent_process()
    if main is None or not hasattr(signal, "sigwaitinfo"):  # macOS does not say who sent a signal
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for the thread as well, which inherits it
    threading.Thread(target=_end_when_asked_by, args=(main.pid,), name="sigterm", daemon=True).start()


def _end_when_asked_by(main_pid: int | None) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main_pid:
        pass
    os._exit(0)

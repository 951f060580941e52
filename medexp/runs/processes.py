"""Do one thing for many cases in several processes."""

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from medexp.errors import MedexpError

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_PROGRESS_S = 10.0


class ProcessDiedError(MedexpError, RuntimeError):
    """A process that worked on cases was killed from outside, most often for memory."""


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def for_each(
    function: Callable[[Item], Outcome], items: Sequence[Item], *, num_workers: int | None, what: str
) -> Iterator[tuple[int, Outcome]]:
    """Yield (index, outcome) of every item as soon as it is there; progress is logged.

    Args:
        function: A module's function or a `functools.partial` of one; gets an item, both are sent to the processes.
        items: What it is called with.
        num_workers: Processes, started from a clean server, so that threads of this process do no harm; None: one
            per core. One process or one item: nothing is started.
        what: Done and plural, for the log: "cases scored".

    Raises:
        ProcessDiedError: A process was killed.
    """
    workers = min(available_cores() if num_workers is None else num_workers, len(items))
    progress = _Progress(len(items), what)
    if workers <= 1:
        for index, item in enumerate(items):
            yield index, function(item)
            progress.advance()
        return
    context = multiprocessing.get_context("forkserver")
    called = function.func if isinstance(function, partial) else function
    context.set_forkserver_preload([called.__module__])  # imported once; no effect on a server that runs already
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        pending = {pool.submit(function, item): index for index, item in enumerate(items)}
        try:
            for future in as_completed(pending):
                yield pending[future], future.result()
                progress.advance()
        except BrokenProcessPool as error:
            message = f"expected {workers} processes to live until the end, but one was killed (out of memory?)"
            raise ProcessDiedError(f"{message}; take fewer: hardware.num_workers={max(1, workers // 2)}") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Progress:
    """Logs how far it is, not more often than every few seconds."""

    def __init__(self, total: int, what: str) -> None:
        self._total, self._what = total, what
        self._done = 0
        self._said_s = time.monotonic()

    def advance(self) -> None:
        self._done += 1
        if time.monotonic() - self._said_s >= _PROGRESS_S and self._done < self._total:
            self._said_s = time.monotonic()
            log.info("%d of %d %s", self._done, self._total, self._what)


def _end_with_parent() -> None:
    """Leave when the parent is gone, even by -9: an executor's processes would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:  # the initializer runs only in children
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()

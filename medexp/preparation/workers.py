"""Make the store entries of many cases, in processes where that pays."""

import logging
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from medexp.errors import CohortError
from medexp.preparation.raw_cases import RawCase
from medexp.preparation.store import AnyTransform, Outcome, remove_leftovers, store_case

_log = logging.getLogger(__name__)

# What a case costs one core, roughly, to decide whether further processes (about a second each) are worth it.
_BYTES_PER_SECOND = 25e6
_SECONDS_PER_CASE = 0.01
_WORTHWHILE_SECONDS = 3.0


def store_cases(
    cases: Sequence[RawCase], transform: AnyTransform, *, store: Path, num_workers: int | None
) -> list[Outcome]:
    """Return what became of each case, in the order of `cases`.

    Args:
        cases: Raw cases.
        transform: What an entry is made with.
        store: The prepared store.
        num_workers: Processes at most; None: one per core that this process may use; 0 and 1: this process.

    Raises:
        StorageError: An entry cannot be written.
        CohortError: A worker process died.
    """
    remove_leftovers(store)
    processes = _num_processes(cases, num_workers)
    _log.info("preparing %d cases in %d processes", len(cases), max(processes, 1))
    if processes < 2:
        return [_logged(store_case(case, transform, store), done, len(cases)) for done, case in enumerate(cases, 1)]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(store_case, case, transform, store): case.name for case in cases}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                _logged(future.result(), done, len(cases))
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            message = f"expected {processes} worker processes to live, but one died (out of memory?)"
            raise CohortError(f"{message}; lower hardware.num_workers and repeat: finished cases are kept") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _num_processes(cases: Sequence[RawCase], num_workers: int | None) -> int:
    wanted = usable_cores() if num_workers is None else num_workers
    files = (path for case in cases for path in (*case.images.values(), case.label))
    seconds = _total_bytes(path for path in files if path is not None) / _BYTES_PER_SECOND
    seconds += _SECONDS_PER_CASE * len(cases)
    return min(wanted, len(cases)) if seconds > _WORTHWHILE_SECONDS else 1


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _total_bytes(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except OSError:  # reading it will say what is wrong
            continue
    return total


def _logged(outcome: Outcome, done: int, total: int) -> Outcome:
    if done == total or done % max(1, total // 20) == 0:
        state = "cannot be used" if outcome.key is None else "was there" if outcome.reused else "stored"
        _log.info("%d of %d cases; %s %s", done, total, outcome.case.case, state)
    return outcome

"""Make the store entries of many cases, in processes where that pays."""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from medexp.preparation.raw_cases import RawCase
from medexp.preparation.store import AnyTransform, Outcome, remove_leftovers, store_case
from medexp.runs.processes import available_cores, for_each

_log = logging.getLogger(__name__)

# What a case costs one core, roughly, to decide whether further processes (about a second each) are worth it.
_BYTES_PER_SECOND = {"volumes": 25e6, "images": 25e6, "doses": 4e6}
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
        ProcessDiedError: A worker process was killed; finished cases are kept.
    """
    remove_leftovers(store)
    processes = _num_processes(cases, num_workers, bytes_per_second=_BYTES_PER_SECOND[transform.kind])
    _log.info("preparing %d cases in %d processes", len(cases), max(processes, 1))
    store_one = partial(store_case, transform=transform, store=store)
    done = dict(for_each(store_one, cases, num_workers=processes, what="cases prepared"))
    return [done[index] for index in range(len(cases))]


def _num_processes(cases: Sequence[RawCase], num_workers: int | None, *, bytes_per_second: float) -> int:
    wanted = available_cores() if num_workers is None else num_workers
    files = (path for case in cases for path in (*case.images.values(), case.label))
    seconds = _total_bytes(path for path in files if path is not None) / bytes_per_second
    seconds += _SECONDS_PER_CASE * len(cases)
    return min(wanted, len(cases)) if seconds > _WORTHWHILE_SECONDS else 1


def _total_bytes(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except OSError:  # reading it will say what is wrong
            continue
    return total

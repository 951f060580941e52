"""MLflow's run over a sweep, made and ended in a process of its own, so that the sweep's never imports MLflow."""

import logging
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from medexp.sweeps.plan import SweepJob
from medexp.sweeps.record import SweepRecord
from medexp.sweeps.spread import spreads
from medexp.tracking.tracker import PARENT_VARIABLE, SWEEP_VARIABLE

log = logging.getLogger(__name__)

_STATUS: Mapping[str, Literal["FINISHED", "FAILED", "KILLED"]] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


class Parent:
    """The sweep's run in MLflow, opened when the first job starts and continued when the sweep is.

    Args:
        record: The sweep's record, which remembers the run.
        title: MLflow's experiment.
        output_dir: Where the database lies unless tracking names another.
        tracking: The keys below `tracking`.
        is_over: The sweep had finished before; if nothing is started, its run is left as it is.
    """

    def __init__(
        self, record: SweepRecord, title: str, output_dir: Path, tracking: Mapping[str, Any], *, is_over: bool
    ) -> None:
        self._record, self._title, self._output_dir = record, title, output_dir
        self._tracking = tracking
        self._is_enabled = bool(tracking.get("enabled", False))
        self._is_left_alone = is_over and record.parent_run is not None
        self._is_open = False

    @contextmanager
    def environment(self) -> Iterator[Mapping[str, str]]:
        """Yield the variables by which jobs find their sweep."""
        self._open()
        parent = self._record.parent_run if self._is_open else None
        yield {SWEEP_VARIABLE: self._record.identity, **({PARENT_VARIABLE: parent} if parent else {})}

    def _open(self) -> None:
        if not self._is_enabled or self._is_open:
            return
        from medexp.tracking.sweep_parent import start_parent

        tags = {"medexp.sweep": self._record.identity, "medexp.kind": "sweep"}
        name = self._record.folder.name
        common = {"output_dir": self._output_dir, "uri": self._tracking["uri"], "strict": self._tracking["strict"]}
        run = _elsewhere(
            partial(
                start_parent, experiment=self._title, name=name, tags=tags, run_id=self._record.parent_run, **common
            )
        )
        self._record.note(mlflow_run=run)
        self._record.write("running")
        self._is_open = run is not None

    def close(self, state: str, jobs: Sequence[SweepJob]) -> None:
        """Send mean, sd and n of every score, the record, and how the sweep ended."""
        if not self._is_enabled or (self._is_left_alone and not self._is_open):
            return
        self._open()
        if not self._is_open:
            return
        from medexp.tracking.sweep_parent import end_parent

        metrics = {key: value for one in spreads(jobs, only_objective=False) for key, value in one.metrics.items()}
        children = [Path(job.outcome.folder) for job in jobs if job.outcome is not None]
        _elsewhere(
            partial(
                end_parent,
                self._record.parent_run,
                _STATUS[state],
                output_dir=self._output_dir,
                uri=self._tracking["uri"],
                metrics=metrics,
                children=children,
                record=self._record.path,
            )
        )


def _elsewhere(function: Callable[[], Any]) -> Any:
    """Call a function in a process of its own and return what it returns."""
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(function, sender), name="medexp-sweep-tracking")
    process.start()
    sender.close()
    try:
        value = receiver.recv()
    except EOFError:
        log.warning("TRACKING LOST: the process that speaks to MLflow for the sweep has died")
        return None
    finally:
        process.join()
        receiver.close()
    if isinstance(value, Exception):
        raise value
    return value


def _answer(function: Callable[[], Any], sender: Connection) -> None:
    from medexp.errors import TrackingError
    from medexp.sweeps.logs import log_to_console

    log_to_console()
    try:
        sender.send(function())
    except Exception as error:  # noqa: BLE001 - strict tracking: whatever it is ends the sweep
        sender.send(TrackingError(f"{type(error).__name__}: {error}"))

"""The end of a sweep: a table of all jobs, mean and spread, what went wrong in full, and what to do next."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medexp.sweeps.board import STYLES
from medexp.sweeps.next_step import next_step
from medexp.sweeps.outcomes import score_text
from medexp.sweeps.plan import SweepJob
from medexp.sweeps.spread import spreads

log = logging.getLogger(__name__)

# Of a table that goes to a file or a pipe, which has no width of its own.
_FILE_WIDTH = 140
_REASON = 60  # characters; the whole reason stands below the table


def show_end(jobs: Sequence[SweepJob], *, title: str, output_dir: Path, record: Path) -> None:
    """Print every job with state, score, time, log and reason, then mean and spread; paths are below `output_dir`."""
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    keys = list(dict.fromkeys(key for job in jobs for key in job.values))
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("job", "stage", *keys, "state", "score", "time", "log, reason"):
        table.add_column(name, overflow="fold", justify="right" if name in {"score", "time"} else "left")
    for job in jobs:
        state = Text(f"{job.state}{' (before)' if job.is_reused else ''}", style=STYLES.get(job.state, ""))
        values = [job.values.get(key, "") for key in keys]
        # As Text, because a plain string is markup: "[conv1]" would be read as a style and vanish.
        before, after = (str(job.number), job.stage, *values), (score_text(job.outcome), _time(job))
        table.add_row(*map(Text, before), state, *map(Text, after), Text(_end(job, output_dir)))
    console.print(table)
    console.print(f"in {output_dir}; record {os.path.relpath(record, output_dir)}", highlight=False)
    for one in spreads(jobs, only_objective=True):
        if one.n > 1:
            console.print(one.line, highlight=False)
    for job in jobs:
        if job.state in {"failed", "interrupted"}:
            console.print(
                Text(f"job {job.number}, {job.title}: {job.state}: {job.reason}", style="red"), soft_wrap=True
            )


def show_next(jobs: Sequence[SweepJob], *, output_dir: Path, tracking_uri: str | None, command: str) -> None:
    """Repeat what the scoring and reporting jobs said, if it is one of each, and say what can be run next."""
    for stage in ("evaluate", "report", "compare"):
        said = [job.outcome.lines for job in jobs if job.stage == stage and job.outcome is not None]
        for line in said[0] if len(said) == 1 else ():
            log.info(line)
    uri = tracking_uri or f"sqlite:///{output_dir}/mlflow.db"
    log.info("MLflow: mlflow ui --host 127.0.0.1 --backend-store-uri %s", uri)
    if (step := next_step(jobs, command)) is not None:
        log.info("next, %s", step)


def _time(job: SweepJob) -> str:
    return "" if job.outcome is None or job.is_reused else f"{job.outcome.elapsed_s:.1f} s"


def _end(job: SweepJob, output_dir: Path) -> str:
    """Return where the job's log is, and the beginning of the reason why it did not finish."""
    log_path = job.log if job.log is not None and job.state != "finished" else None
    if log_path is None and job.folder is not None and job.state != "skipped":
        log_path = job.folder / "log.txt"
    reason = (job.reason.splitlines() or [""])[0]
    short = reason if len(reason) <= _REASON else f"{reason[: _REASON - 1]}…"
    return "\n".join([*([os.path.relpath(log_path, output_dir)] if log_path else []), *([short] if short else [])])

"""The table at the end of a sweep."""

import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from medexp.sweeps.staged import SweepJob

# Of a table that goes to a file or a pipe, which has no width of its own.
_FILE_WIDTH = 140
_STYLES = {"finished": "green", "failed": "bold red", "skipped": "yellow"}


def show_table(jobs: Sequence["SweepJob"], *, title: str, output_dir: Path) -> None:
    """Print every job with its state, score, time and folder or reason, then mean and spread per stage.

    Folders are given below `output_dir`.
    """
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    keys = [key for key in dict.fromkeys(key for job in jobs for key in job.varying) if key != "stage"]
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("job", "stage", *keys, "state", "score", "time", "folder or reason"):
        table.add_column(name, overflow="fold", justify="right" if name in {"score", "time"} else "left")
    for job in jobs:
        state = f"[{_STYLES.get(job.state, '')}]{job.state}[/]" if job.state in _STYLES else job.state
        again = " (before)" if job.outcome is not None and job.outcome.reused else ""
        place = os.path.relpath(job.outcome.folder, output_dir) if job.outcome is not None else job.reason
        values = [_shown(job, key) for key in keys]
        table.add_row(str(job.number), job.stage, *values, state + again, _score(job), _time(job), place)
    console.print(table)
    console.print(f"in {output_dir}", highlight=False)
    for line in _spread(jobs):
        console.print(line)


def _shown(job: "SweepJob", key: str) -> str:
    """Return the job's value of a key, or `all` if it stands for jobs with other values, too."""
    values = {one.varying.get(key, "") for one in (job, *job.twins)}
    return values.pop() if len(values) == 1 else "all"


def _score(job: "SweepJob") -> str:
    return "" if job.outcome is None or job.outcome.objective is None else f"{job.outcome.objective:.4f}"


def _time(job: "SweepJob") -> str:
    return "" if job.outcome is None or job.outcome.reused else f"{job.outcome.elapsed_s:.1f} s"


def _spread(jobs: Sequence["SweepJob"]) -> list[str]:
    """Return mean and standard deviation of the objective over the jobs of each stage that has several."""
    lines = []
    for stage in dict.fromkeys(job.stage for job in jobs):
        group = [job for job in jobs if job.stage == stage]
        scores = [float(job.outcome) for job in group if job.outcome is not None]
        known = [score for score in scores if not math.isnan(score)]
        if len(known) > 1:
            mean, spread = statistics.mean(known), statistics.stdev(known)
            lines.append(f"stage {stage}: {mean:.4f} ± {spread:.4f} (sd) over {len(known)} of {len(group)} jobs")
    return lines

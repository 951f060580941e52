"""What a sweep looks like while it runs: a live table on a terminal, one line per change elsewhere."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from medexp.sweeps.outcomes import score_text
from medexp.sweeps.plan import SweepJob
from medexp.sweeps.progress import duration, progress_of
from medexp.sweeps.record import SweepRecord

log = logging.getLogger(__name__)

STYLES = {"finished": "green", "running": "cyan", "failed": "bold red", "interrupted": "red", "skipped": "yellow"}
_MAX_ROWS = 20
_PER_SECOND = 2


class Board:
    """Use as a context; `tell` it what has changed. It also keeps the sweep's record up to date.

    Args:
        jobs: All jobs of the sweep.
        title: The sweep's name.
        record: The sweep's record.
        console: Where it is shown; standard output by default.
        is_shared: Whether jobs write to this terminal themselves; then there is no live table.
    """

    def __init__(
        self,
        jobs: Sequence[SweepJob],
        title: str,
        record: SweepRecord,
        *,
        console: Console | None = None,
        is_shared: bool = False,
    ) -> None:
        self._jobs, self._title, self._record = jobs, title, record
        self._console = console or Console()
        self._is_live = self._console.is_terminal and not is_shared
        self._since: dict[int, float] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Board":
        if self._is_live:
            live = Live(
                get_renderable=self.render, console=self._console, refresh_per_second=_PER_SECOND, transient=True
            )
            self._stack.enter_context(live)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def tell(self, job: SweepJob) -> None:
        """Note that a job's state has changed."""
        if job.state == "running":
            self._since[job.number] = time.monotonic()
        if not job.is_reused:  # those are many at once and written together
            self._record.write("running")
        if not self._is_live:
            log.info("%s", self._line(job))

    def _line(self, job: SweepJob) -> str:
        text = f"job {job.number} of {len(self._jobs)}, {job.title}: {job.state}"
        if job.state == "running":
            again = f", attempt {job.attempts}" if job.attempts > 1 else ""
            return f"{text}{again}" + (f", log {job.log}" if job.log else "")
        if job.is_reused:
            return f"{text} before, {job.folder}"
        if job.outcome is not None:
            score = score_text(job.outcome)
            return f"{text}{f', score {score}' if score else ''}, {duration(job.outcome.elapsed_s)}"
        return f"{text}: {job.reason}" if job.reason else text

    def render(self) -> Group:
        """Return the table as it is now."""
        counts = Counter(job.state for job in self._jobs)
        head = Text(f"{self._title}: {len(self._jobs)} jobs; ")
        head.append(", ".join(f"{number} {state}" for state, number in counts.items()))
        table = Table(box=None, pad_edge=False)
        for name in ("job", "stage", "state", "", "time"):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        for job in self._rows():
            first = Text(str(job.number)), Text(job.title.removeprefix("stage "))  # a plain string would be markup
            table.add_row(*first, self._state(job), *map(Text, self._now(job)))
        return Group(head, table)

    def _rows(self) -> list[SweepJob]:
        """Return what is worth a row: what runs, what failed, what comes next, and the last that finished."""
        by_interest = ("running", "failed", "interrupted", "skipped", "waiting")
        rows = [job for state in by_interest for job in self._jobs if job.state == state][:_MAX_ROWS]
        finished = [job for job in self._jobs if job.state == "finished"]
        room = _MAX_ROWS - len(rows)
        return sorted([*rows, *(finished[-room:] if room else [])], key=lambda job: job.number)

    def _state(self, job: SweepJob) -> Text:
        return Text(f"{job.state}{' before' if job.is_reused else ''}", style=STYLES.get(job.state, "dim"))

    def _now(self, job: SweepJob) -> tuple[str, str]:
        if job.state == "running":
            elapsed_s = time.monotonic() - self._since.get(job.number, time.monotonic())
            return progress_of(job.folder, job.recipe).text, duration(elapsed_s)
        if job.outcome is not None:
            return score_text(job.outcome), "" if job.is_reused else duration(job.outcome.elapsed_s)
        return (job.reason.splitlines() or [""])[0], ""

"""What every stage gets besides its configured arguments, and what it hands back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medexp.runs.ledger import Run
from medexp.tracking import Tracker


@dataclass(frozen=True)
class Context:
    """The run that a stage belongs to.

    `upstream` holds the finished runs that the stage starts from, under the names of its YAML; each is a
    list, because an ensemble has one per fold. `resume` says that an interrupted attempt continues.
    `command` is the single-run command line that makes this run.
    """

    run: Run
    tracker: Tracker
    upstream: Mapping[str, list[Run]] = field(default_factory=dict)
    resume: bool = False
    command: str = ""
    output_dir: Path = Path()


@dataclass(frozen=True)
class Result:
    """What a stage made.

    `outputs` are files that the ledger records with their SHA-256. `digest` stands for the content where
    the files' own bytes do not (a manifest holds times). `scores` go to the table of a sweep, `objective`
    to a hyper-parameter search, `lines` to the person who waits.
    """

    outputs: Mapping[str, Path] = field(default_factory=dict)
    digest: str | None = None
    objective: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

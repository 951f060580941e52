"""What every stage gets besides its configured arguments, and what it hands back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medexp.runs.ledger import Run
from medexp.runs.members import Member
from medexp.tracking import Tracker


@dataclass(frozen=True)
class Context:
    """The run that a stage belongs to.

    `upstream` holds the finished runs that the stage starts from, under the names of its YAML; each is a
    list, because an ensemble has one per fold. `resume` says that an interrupted attempt continues, `require` that
    it must, from its newest checkpoint. `command` is the single-run command line that makes this run, `arguments`
    are its words. `member` says that this process only takes part in a run that another one holds.
    """

    run: Run
    tracker: Tracker
    upstream: Mapping[str, list[Run]] = field(default_factory=dict)
    resume: bool = False
    require: bool = False
    command: str = ""
    arguments: tuple[str, ...] = ()
    member: Member | None = None
    output_dir: Path = Path()


@dataclass(frozen=True)
class Result:
    """What a stage made.

    `outputs` are files that the ledger records with their SHA-256. `digest` stands for the content where
    the files' own bytes do not (a manifest holds times). `scores` go to the table of a sweep, `objective`
    to a hyper-parameter search, `lines` to the person who waits. `places` are files beside the results, which a
    finished run must still have to stand for the next one that asks for them.
    """

    outputs: Mapping[str, Path] = field(default_factory=dict)
    digest: str | None = None
    objective: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    places: tuple[Path, ...] = ()

"""Mean and spread of the scores over folds and seeds."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medexp.sweeps.plan import SweepJob

# What a mean is taken over; jobs that differ in anything else are different experiments.
REPEATS = frozenset({"fold", "seed"})
OBJECTIVE = "objective"


@dataclass(frozen=True)
class Spread:
    """One score of one stage over the jobs that differ in fold and seed only.

    Attributes:
        stage: The stage.
        group: The other values of these jobs, for example `model=unet3d`; empty if there is one group.
        score: The score's name; `objective` for the one that the stage is judged by.
        mean: Of the known values.
        sd: Their standard deviation (n - 1); None of fewer than two.
        n: How many values are known.
        num_jobs: How many jobs there are.
    """

    stage: str
    group: str
    score: str
    mean: float
    sd: float | None
    n: int
    num_jobs: int

    @property
    def line(self) -> str:
        """Return it for the terminal."""
        sd = 0.0 if self.sd is None else self.sd
        group = f" {self.group}" if self.group else ""
        return f"stage {self.stage}{group}: {self.mean:.4f} ± {sd:.4f} (sd) over {self.n} of {self.num_jobs} jobs"

    @property
    def metrics(self) -> dict[str, float]:
        """Return it as MLflow's metrics, for example `1/objective/mean`."""
        head = "/".join([self.stage, *([self.group.replace("=", "-")] if self.group else []), self.score])
        spread = {} if self.sd is None else {f"{head}/sd": self.sd}
        return {f"{head}/mean": self.mean, f"{head}/n": float(self.n), **spread}


def spreads(jobs: Sequence[SweepJob], *, only_objective: bool) -> list[Spread]:
    """Return the spreads of each stage and group in the order of the jobs; scores that no job has are left out."""
    groups: dict[tuple[str, str], list[SweepJob]] = {}
    for job in jobs:
        others = " ".join(f"{key}={value}" for key, value in job.values.items() if key not in REPEATS)
        groups.setdefault((job.stage, others), []).append(job)
    return [one for (stage, group), members in groups.items() for one in _of(stage, group, members, only_objective)]


def _of(stage: str, group: str, jobs: Sequence[SweepJob], only_objective: bool) -> Iterator[Spread]:  # noqa: FBT001
    rows = [
        {OBJECTIVE: float(job.outcome), **({} if only_objective else job.outcome.scores)}
        for job in jobs
        if job.outcome is not None
    ]
    for name in dict.fromkeys(name for row in rows for name in row):
        known = [float(row[name]) for row in rows if name in row and math.isfinite(row[name])]
        if known:
            sd = statistics.stdev(known) if len(known) > 1 else None
            yield Spread(stage, group, name, statistics.fmean(known), sd, len(known), len(jobs))

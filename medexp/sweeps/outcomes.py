"""What became of a job: from what its launcher returned, or from the run's folder where nothing came back."""

import math
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from medexp.errors import JobNotStartedError, MedexpError
from medexp.runs.ledger import Run
from medexp.runs.lineage import Action, address, attempts, open_run
from medexp.sweeps.job import Outcome, outcome_of
from medexp.sweeps.plan import SweepJob
from medexp.sweeps.worker import failure_of


def take(job: SweepJob, result: JobReturn) -> None:
    """Note what a launcher returned."""
    value = result._return_value
    if result.status is JobStatus.COMPLETED and isinstance(value, Outcome):
        _finish(job, value)
        return
    job.state = "skipped" if isinstance(value, JobNotStartedError) else "failed"
    job.reason = failure_of(value).text if isinstance(value, BaseException) else f"expected a result, got {value!r}"


def found_before(job: SweepJob, output_dir: Path) -> bool:
    """Say whether a job needs no process, because it has finished before or cannot start; note which."""
    config = job.recipe.config
    resume, run_id = config.get("resume", "auto"), config.get("run")
    try:
        addressed = address(job.recipe, output_dir)
        job.folder = addressed.folder(output_dir)
        if resume == "never" or (resume == "auto" and run_id is None and not job.folder.exists()):
            return False
        run, action = open_run(addressed, output_dir, resume=resume, run_id=run_id)
    except MedexpError as error:
        job.state, job.reason = "failed", str(error)
        return True
    job.folder = run.folder
    if action is Action.REUSE:
        _finish(job, outcome_of(run, reused=True))
    return action is Action.REUSE


def found_now(job: SweepJob, output_dir: Path, *, state: str, reason: str) -> None:
    """Note what the ledger says of a job whose process gave no answer; `state` and `reason` if it says no end."""
    run = _latest(job, output_dir)
    recorded = None if run is None else run.state
    if run is not None and recorded == "finished":
        _finish(job, outcome_of(run, reused=False))
    elif run is not None and recorded == "failed":
        job.state, job.reason = "failed", str(run.read_state().get("reason", reason))
    else:
        job.state, job.reason = state, reason


def result_of(job: SweepJob) -> JobReturn:
    """Return a job's end in Hydra's form."""
    result = JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED if job.outcome else JobStatus.FAILED)
    result.return_value = job.outcome or MedexpError(job.reason)
    return result


def _latest(job: SweepJob, output_dir: Path) -> Run | None:
    try:
        folder = address(job.recipe, output_dir).folder(output_dir)
    except MedexpError:
        return None
    return next(reversed(list(attempts(folder))), None)


def _finish(job: SweepJob, outcome: Outcome) -> None:
    job.state, job.reason, job.outcome = "finished", "", outcome
    job.folder = Path(outcome.folder)


def score_text(outcome: Outcome | None) -> str:
    """Return the objective for a table; empty if there is none."""
    value = float("nan") if outcome is None else float(outcome)
    return "" if math.isnan(value) else f"{value:.4f}"

"""Sweeps run in stage order and tell the truth about what did not finish."""

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from medexp.errors import SweepFailedError
from medexp.runs.lineage import Recipe
from medexp.sweeps.job import Outcome
from medexp.sweeps.staged import SweepJob, plan, run_sweep

LINE = ["dataset=brats", "model=monai_ft", "model.weights=null"]


class RecordingLauncher(Launcher):
    """Answers every job at once; those whose line holds a word of `failing` fail."""

    def __init__(self, *failing):
        self.failing = failing
        self.waves = []

    def setup(self, *, hydra_context, task_function, config):
        raise NotImplementedError

    def launch(self, job_overrides, initial_job_idx):
        self.waves.append([" ".join(overrides) for overrides in job_overrides])
        return [self._returned(" ".join(overrides)) for overrides in job_overrides]

    def _returned(self, line):
        bad = any(word in line for word in self.failing)
        result = JobReturn(status=JobStatus.FAILED if bad else JobStatus.COMPLETED)
        result.return_value = RuntimeError(f"broke: {line}") if bad else Outcome("finished", "/out/run", 0.5)
        return result


def job(number, stage, fold, *upstream):
    line = [f"stage={stage}", f"fold={fold}"]
    recipe = Recipe(stage, "d", stage, {"fold": fold}, {}, tuple(line), upstream={"from": tuple(upstream)})
    return SweepJob(number, line, recipe, {"stage": stage, "fold": str(fold)})


def two_folds():
    first = [job(0, "1", 0), job(1, "1", 1)]
    return [*first, *(job(2 + fold, "2", fold, first[fold].recipe) for fold in (0, 1))]


def swept(jobs, launcher, tmp_path, **options):
    return run_sweep(jobs, launcher, title="test", output_dir=tmp_path, tracking_uri=None, **options)


def test_jobs_are_planned_in_stage_order_and_data_are_prepared_once():
    jobs = plan([*LINE, "stage=2,1,prepare", "fold=0,1"], [])
    assert [one.stage for one in jobs] == ["prepare", "1", "1", "2", "2"]
    assert [one.number for one in jobs] == [0, 1, 2, 3, 4]
    assert len(jobs[0].twins) == 1


def test_a_stage_runs_whole_before_the_next(tmp_path):
    launcher = RecordingLauncher()
    assert len(swept(two_folds(), launcher, tmp_path)) == 4
    assert [[line.split()[0] for line in wave] for wave in launcher.waves] == [["stage=1"] * 2, ["stage=2"] * 2]


def test_a_failed_job_skips_what_starts_from_it_and_nothing_else(tmp_path):
    jobs, launcher = two_folds(), RecordingLauncher("stage=1 fold=0")
    with pytest.raises(SweepFailedError, match="2 of 4 jobs did not finish; the first: job 0, broke"):
        swept(jobs, launcher, tmp_path)
    assert [one.state for one in jobs] == ["failed", "finished", "skipped", "finished"]
    assert "job 0 (stage 1) failed" in jobs[2].reason


def test_fail_fast_skips_every_later_stage(tmp_path):
    jobs = two_folds()
    with pytest.raises(SweepFailedError):
        swept(jobs, RecordingLauncher("stage=1 fold=0"), tmp_path, fail_fast=True)
    assert [one.state for one in jobs] == ["failed", "finished", "skipped", "skipped"]


def test_the_table_names_state_reason_and_spread(tmp_path, capsys):
    with pytest.raises(SweepFailedError):
        swept(two_folds(), RecordingLauncher("stage=2 fold=1"), tmp_path)
    shown = capsys.readouterr().out
    assert "broke: stage=2 fold=1" in shown
    assert "stage 1: 0.5000 ± 0.0000 (sd) over 2 of 2 jobs" in shown

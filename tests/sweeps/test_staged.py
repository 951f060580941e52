"""Sweeps run in stage order and tell the truth about what did not finish."""

import json

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from rich.console import Console

from medexp.errors import JobRefusedError, RunBusyError, SweepFailedError
from medexp.runs.lineage import Recipe, address, open_run
from medexp.sweeps.board import Board
from medexp.sweeps.job import outcome_of
from medexp.sweeps.plan import SweepJob, plan
from medexp.sweeps.record import SweepRecord, read_record
from medexp.sweeps.staged import Settings, run_sweep

LINE = ["dataset=brats", "model=monai_ft", "model.weights=null"]


class RecordingLauncher(Launcher):
    """Answers every job at once, with a run in the ledger; those whose line holds a word of `failing` fail.

    With `deaf` it runs them all and then ends without an answer, as launchers do when a job's process dies.
    """

    def __init__(self, *failing, error=RuntimeError, deaf=False):
        self.failing, self.error, self.deaf = failing, error, deaf
        self.waves, self.jobs, self.output_dir = [], {}, None

    def setup(self, *, hydra_context, task_function, config):
        raise NotImplementedError

    def launch(self, job_overrides, initial_job_idx):
        self.waves.append([" ".join(overrides) for overrides in job_overrides])
        results = [self._returned(" ".join(overrides)) for overrides in job_overrides]
        if self.deaf:
            raise BrokenPipeError("a worker has died")
        return results

    def _returned(self, line):
        bad = any(word in line for word in self.failing)
        result = JobReturn(status=JobStatus.FAILED if bad else JobStatus.COMPLETED)
        result.return_value = self.error(f"broke: {line}") if bad else self._run(self.jobs[line].recipe)
        return result

    def _run(self, recipe):
        run, _ = open_run(address(recipe, self.output_dir), self.output_dir, resume="auto", run_id=None)
        run.begin()
        run.write_outputs({}, digest=None, scores={"val/dice": 0.25}, objective=0.5, lines=[], elapsed_s=1.0)
        run.end("finished")
        return outcome_of(run, reused=False)


def job(number, stage, fold, *upstream):
    line = [f"stage={stage}", f"fold={fold}"]
    recipe = Recipe(stage, "d", stage, {"fold": fold}, {}, tuple(line), upstream={"from": tuple(upstream)})
    return SweepJob(number, line, recipe, {"stage": stage, "fold": str(fold)})


def two_folds():
    first = [job(0, "1", 0), job(1, "1", 1)]
    return [*first, *(job(2 + fold, "2", fold, first[fold].recipe) for fold in (0, 1))]


def swept(jobs, launcher, tmp_path, **options):
    launcher.jobs = {" ".join(one.overrides): one for one in jobs}
    launcher.output_dir = tmp_path
    return run_sweep(jobs, launcher, Settings("test", tmp_path, command="the line", **options))


def test_jobs_are_planned_in_stage_order_and_data_are_prepared_once():
    jobs = plan([*LINE, "stage=2,1,prepare", "fold=0,1"], [])
    assert [one.stage for one in jobs] == ["prepare", "1", "1", "2", "2"]
    assert [one.number for one in jobs] == [0, 1, 2, 3, 4]
    assert len(jobs[0].twins) == 1


def test_one_value_of_each_key_is_a_sweep_of_one_job():
    assert [one.stage for one in plan([*LINE, "stage=1"], [])] == ["1"]


def test_a_stage_runs_whole_before_the_next(tmp_path):
    launcher = RecordingLauncher()
    assert len(swept(two_folds(), launcher, tmp_path)) == 4
    assert [[line.split()[0] for line in wave] for wave in launcher.waves] == [["stage=1"] * 2, ["stage=2"] * 2]


def test_a_failed_job_skips_what_starts_from_it_and_nothing_else(tmp_path):
    jobs, launcher = two_folds(), RecordingLauncher("stage=1 fold=0")
    with pytest.raises(SweepFailedError, match="2 of 4 jobs did not finish; the first: job 0, RuntimeError: broke"):
        swept(jobs, launcher, tmp_path)
    assert [one.state for one in jobs] == ["failed", "finished", "skipped", "finished"]
    assert "job 0 (stage 1) failed" in jobs[2].reason


def test_a_failure_is_felt_through_a_chain(tmp_path):
    first = job(0, "1", 0)
    second = job(1, "2", 0, first.recipe)
    jobs = [first, second, job(2, "predict", 0, second.recipe)]
    with pytest.raises(SweepFailedError):
        swept(jobs, RecordingLauncher("stage=1"), tmp_path)
    assert [one.state for one in jobs] == ["failed", "skipped", "skipped"]


def test_a_job_that_starts_from_what_no_job_makes_is_named_before_the_others_run(tmp_path, caplog):
    first = job(0, "1", 0)
    missing = job(9, "2", 0, first.recipe)
    jobs, launcher = [first, job(1, "predict", 0, missing.recipe)], RecordingLauncher("stage=predict")
    with pytest.raises(SweepFailedError):
        swept(jobs, launcher, tmp_path)
    (warning,) = [one.getMessage() for one in caplog.records if "will fail" in one.getMessage()]
    assert warning.startswith(
        "job 1 (stage predict fold=0) will fail, for no job makes what that starts from: expected a"
    )
    caplog.clear()
    with pytest.raises(SweepFailedError):
        swept(two_folds(), RecordingLauncher("stage=2"), tmp_path)
    assert "will fail" not in caplog.text


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
    assert "next, once what the logs name is mended (finished jobs are not redone):\n  the line" in shown


def test_brackets_in_a_reason_are_shown_not_read_as_a_style(tmp_path, capsys):
    jobs = two_folds()
    with pytest.raises(SweepFailedError):
        swept(jobs, RecordingLauncher("fold=0", error=lambda text: RuntimeError(f"no [conv1] here: {text}")), tmp_path)
    table = capsys.readouterr().out.partition("record ")[0]
    assert "no [conv1] here" in table
    console = Console(width=200)
    with console.capture() as captured:
        console.print(Board(jobs, "test", SweepRecord(jobs, output_dir=tmp_path, command="the line")).render())
    assert "no [conv1] here" in captured.get()


def test_what_has_finished_is_not_started_again(tmp_path):
    with pytest.raises(SweepFailedError):
        swept(two_folds(), RecordingLauncher("stage=2 fold=1"), tmp_path)
    jobs, launcher = two_folds(), RecordingLauncher()
    swept(jobs, launcher, tmp_path)
    assert launcher.waves == [["stage=2 fold=1"]]
    assert [one.is_reused for one in jobs] == [True, True, True, False]


def test_the_record_says_what_became_of_every_job(tmp_path):
    with pytest.raises(SweepFailedError):
        swept(two_folds(), RecordingLauncher("stage=1 fold=0"), tmp_path)
    (folder,) = (tmp_path / "sweeps").iterdir()
    record = read_record(folder)
    assert record["state"] == "failed"
    assert record["command"] == "the line"
    assert [one["state"] for one in record["jobs"]] == ["failed", "finished", "skipped", "finished"]
    assert "broke" in record["jobs"][0]["reason"]
    assert record["jobs"][1]["run"].startswith("d/1-")
    assert record["jobs"][1]["score"] == 0.5


def test_a_failed_job_is_tried_again_with_every_launcher(tmp_path):
    jobs, launcher = two_folds(), RecordingLauncher("stage=1 fold=0")
    with pytest.raises(SweepFailedError):
        swept(jobs, launcher, tmp_path, retry=2)
    assert launcher.waves[:3] == [["stage=1 fold=0", "stage=1 fold=1"], ["stage=1 fold=0"], ["stage=1 fold=0"]]


def test_a_refused_configuration_is_not_tried_again(tmp_path):
    launcher = RecordingLauncher("stage=1 fold=0", error=JobRefusedError)
    with pytest.raises(SweepFailedError):
        swept(two_folds(), launcher, tmp_path, retry=2)
    assert len(launcher.waves) == 2


def test_the_ledger_answers_where_a_launcher_does_not(tmp_path):
    jobs, launcher = two_folds(), RecordingLauncher("stage=1 fold=0", deaf=True)
    with pytest.raises(SweepFailedError):
        swept(jobs, launcher, tmp_path)
    assert [one.state for one in jobs] == ["failed", "finished", "skipped", "finished"]
    assert "no answer came from its process (BrokenPipeError: a worker has died)" in jobs[0].reason


def test_a_job_whose_upstream_is_missing_needs_no_process(tmp_path):
    jobs, launcher = [job(0, "2", 0, job(0, "1", 0).recipe)], RecordingLauncher()
    with pytest.raises(SweepFailedError, match="expected a finished stage 1 of this configuration"):
        swept(jobs, launcher, tmp_path)
    assert launcher.waves == []


def test_one_sweep_runs_once_at_a_time(tmp_path):
    import subprocess
    import sys

    jobs = two_folds()
    record = SweepRecord(jobs, output_dir=tmp_path, command="")
    record.folder.mkdir(parents=True)
    record.path.write_text(json.dumps({"state": "running", "pid": 7, "host": "elsewhere"}))
    code = f"import fcntl, time; f = open({str(record.folder / 'lock')!r}, 'a+'); fcntl.lockf(f, fcntl.LOCK_EX)"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{code}; print('held', flush=True); time.sleep(60)"], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert read_record(record.folder)["state"] == "running"
        with pytest.raises(RunBusyError, match="process 7 on elsewhere is running this sweep"):
            swept(jobs, RecordingLauncher(), tmp_path)
    finally:
        holder.kill()
        holder.wait()
    assert read_record(record.folder)["state"] == "interrupted"
    assert len(swept(jobs, RecordingLauncher(), tmp_path)) == 4

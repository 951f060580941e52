"""The small parts of a sweep: slots, progress, spread, the board, the family of a line."""

import json
import math

import pytest
from rich.console import Console

from medexp.composition import compose
from medexp.composition.families import shape_of
from medexp.composition.recipes import composed_recipe, recipe_of
from medexp.errors import ConfigurationError
from medexp.runs.lineage import Recipe
from medexp.sweeps.board import Board
from medexp.sweeps.job import Outcome
from medexp.sweeps.next_step import next_step
from medexp.sweeps.plan import SweepJob
from medexp.sweeps.preload import modules_of
from medexp.sweeps.progress import duration, progress_of
from medexp.sweeps.record import SweepRecord
from medexp.sweeps.slots import slots_of
from medexp.sweeps.spread import spreads


def recipe(stage="1", **received):
    return Recipe(stage, "d", stage, received, {"dataset": {"_target_": "medexp.datasets.x.Y"}}, (f"stage={stage}",))


def job(number, score, **values):
    outcome = None if score is None else Outcome("finished", "/out/d/run", score, {"val/dice": score})
    state = "running" if score is None else "finished"
    return SweepJob(number, [], recipe(number=number), {"stage": "1", **values}, state, "", outcome)


def test_a_slot_is_a_device_or_several():
    assert slots_of(None) == []
    assert slots_of([0, 1, "2,3"]) == ["0", "1", "2,3"]
    assert slots_of("auto", {"CUDA_VISIBLE_DEVICES": "4, 7"}) == ["4", "7"]


@pytest.mark.parametrize(
    ("gpus", "environment", "text"),
    [
        ("all", {}, "expected null, auto or a list"),
        ([], {}, "expected at least one device"),
        ("auto", {"CUDA_VISIBLE_DEVICES": ""}, "expected a CUDA device, found none"),
    ],
)
def test_slots_that_cannot_be_are_refused(gpus, environment, text):
    with pytest.raises(ConfigurationError, match=text):
        slots_of(gpus, environment)


def test_progress_is_read_from_the_end_of_the_metrics(tmp_path):
    trained = recipe(
        model={"curriculum": {"stage_1": {"max_epochs": 10}}},
        curriculum="stage_1",
        callbacks={"best": {"monitor": "val/dice/mean"}},
    )
    assert progress_of(tmp_path, trained).text == ""
    lines = [{"step": step, "train/loss": 0.5} for step in range(5000)]
    lines += [{"step": 5000, "epoch": 3, "val/dice/mean": 0.75}, {"step": 5000, "epoch_time_s": 20.0}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 5001, "tra')
    assert progress_of(tmp_path, trained).text == "epoch 4/10, 0.7500, 2 min 00 s left"


def test_times_are_said_in_the_units_that_matter():
    assert [duration(seconds) for seconds in (0.4, 59.0, 61.0, 7261.0)] == ["0 s", "59 s", "1 min 01 s", "2 h 01 min"]


def test_mean_and_sd_are_taken_over_folds_and_seeds_only():
    jobs = [job(0, 0.5, fold="0", model="a"), job(1, 0.7, fold="1", model="a"), job(2, 0.9, fold="0", model="b")]
    first, second = spreads(jobs, only_objective=True)
    assert (first.group, first.n, first.num_jobs) == ("model=a", 2, 2)
    assert math.isclose(first.mean, 0.6)
    assert math.isclose(first.sd, math.sqrt(0.02))
    assert (second.group, second.n, second.sd) == ("model=b", 1, None)
    assert {"1/model-a/objective/mean", "1/model-a/val/dice/sd"} <= {
        key for one in spreads(jobs, only_objective=False) for key in one.metrics
    }


def test_a_missing_score_is_counted():
    (one,) = spreads([job(0, 0.5), job(1, float("nan")), job(2, None)], only_objective=True)
    assert "0.5000 ± 0.0000 (sd) over 1 of 3 jobs" in one.line


def test_the_board_shows_what_runs_and_what_is_done(tmp_path):
    jobs = [job(0, 0.5, fold="0"), job(1, None, fold="1")]
    console = Console(force_terminal=True, width=100, record=True, file=(tmp_path / "shown").open("w"))
    board = Board(jobs, "brats", SweepRecord(jobs, output_dir=tmp_path, command=""), console=console)
    with board:
        console.print(board.render())
    shown = console.export_text()
    assert "brats: 2 jobs; 1 finished, 1 running" in shown
    assert "1 fold=1" in shown


def test_a_hundred_jobs_fit_on_the_board(tmp_path):
    jobs = [job(number, 0.5 if number < 90 else None, fold=str(number)) for number in range(100)]
    board = Board(jobs, "brats", SweepRecord(jobs, output_dir=tmp_path, command=""))
    console = Console(width=100, record=True, file=(tmp_path / "shown").open("w"))
    console.print(board.render())
    assert len(console.export_text().splitlines()) < 25


def test_the_server_imports_what_all_stages_need():
    trained = recipe(datamodule={"name": "d"}, trainer={"_target_": "lightning.Trainer"})
    assert {"lightning", "medexp.datasets.x", "mlflow.tracking"} <= modules_of([trained], is_tracked=True)
    assert "mlflow.tracking" not in modules_of([trained], is_tracked=False)
    assert modules_of([], is_tracked=False) == set()


def test_lines_that_differ_in_bare_values_are_one_family():
    groups = {"model"}
    line = ["model=a", "fold=1", "+extra=1", "x=[1,2]", "hydra.verbose=true"]
    assert shape_of(line, groups) == ("model=a", "fold", "+extra=1", "x=[1,2]", "hydra.verbose=true")


def test_a_varied_line_means_what_a_composed_one_does():
    line = ("dataset=brats", "model.weights=null", "stage='2'", "model.curriculum.stage_2.optimizer.lr=1e-3", "fold=0")
    other = (*line[:3], "model.curriculum.stage_2.optimizer.lr=2e-4", "fold=3")
    for overrides in (line, other, line):
        config = compose(overrides, with_hydra=True)
        whole = recipe_of(config, overrides, dict(config.hydra.runtime.choices))
        assert composed_recipe(overrides, ()) == whole
        assert composed_recipe(overrides, ()).config == whole.config


def test_a_varied_line_is_checked_too():
    composed_recipe(("dataset=brats", "model.weights=null", "stage='1'", "fold=1"), ())
    with pytest.raises(ConfigurationError, match="fold"):
        composed_recipe(("dataset=brats", "model.weights=null", "stage='1'", "fold=9"), ())
    with pytest.raises(ConfigurationError, match="fold"):
        composed_recipe(("dataset=brats", "model.weights=null", "stage='1'", "fold=one"), ())


def test_the_last_line_says_what_to_run_next():
    line = "python -m medexp.run -m dataset=brats stage='1','2' fold=0,1"
    trained = [job(0, 0.5, fold="0"), job(1, 0.6, fold="1")]
    assert next_step(trained, line).endswith("-m dataset=brats stage=predict,evaluate fold=0,1")
    assert line in next_step([*trained, job(2, None)], line)
    scored = [SweepJob(n, ["dataset=brats", f"fold={n}"], recipe("evaluate"), {}, "finished") for n in (0, 1)]
    assert next_step(scored, line).endswith("python -m medexp.run dataset=brats stage=compare")
    assert next_step(scored[:1], line) is None

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from medexp.composition.jobs import read_sweep, sweeper_lines


def _sweep(*overrides):
    return read_sweep(OverridesParser.create().parse_overrides(list(overrides)), ["stage", "dataset"])


def test_groups_are_structural_and_bare_values_are_not():
    sweep = _sweep("stage='1','2'", "fold=0,1,2", "seed=7", "model.x={a:1},{a:2}")
    assert list(sweep.structural_jobs()) == [
        ("stage='1'", "fold=0", "seed=7", "model.x={a:1}"),
        ("stage='1'", "fold=0", "seed=7", "model.x={a:2}"),
        ("stage='2'", "fold=0", "seed=7", "model.x={a:1}"),
        ("stage='2'", "fold=0", "seed=7", "model.x={a:2}"),
    ]
    assert list(sweep.bare_values()) == ["fold=1", "fold=2"]
    assert len(list(sweep.jobs())) == 12


def test_an_interval_is_tried_at_its_ends():
    assert list(_sweep("lr=interval(0.1,0.5)").jobs()) == [("lr=0.1",), ("lr=0.5",)]


def test_a_single_run_is_no_sweep():
    assert not _sweep("fold=0").is_several
    assert _sweep("fold=0,1").is_several


@pytest.mark.parametrize("given", ["stage=2", "+stage=2", "stage@x=2"])
def test_the_command_line_replaces_the_sweepers_own_choice(given):
    assert sweeper_lines({"stage": "1,2", "fold": "0,1"}, [given]) == ["fold=0,1"]


def test_a_sweeper_without_parameters_adds_nothing():
    assert sweeper_lines(None, []) == []

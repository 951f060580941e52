"""Phases: schedules with known values, and freezing that cannot miss."""

from functools import partial

import pytest
import torch
from torch import nn

from medexp.errors import ConfigurationError
from medexp.models.curriculum import constant, cosine, find_frozen_modules, freeze, polynomial
from tests.synthetic.segmentation import phase


def network() -> nn.Module:
    return nn.ModuleDict(
        {
            "convInit": nn.Conv1d(1, 2, 1),
            "down_layers": nn.ModuleList([nn.Sequential(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2), nn.Dropout(0.5))]),
            "down_layers_extra": nn.Conv1d(2, 2, 1),
            "head": nn.Conv1d(2, 3, 1),
        }
    )


def rates(schedule, *, steps: int, warmup: int = 0) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = phase(schedule=schedule, warmup_steps=warmup).build_scheduler(optimizer, total_steps=steps)
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def test_constant_keeps_the_rate():
    assert rates(constant, steps=3) == [1.0, 1.0, 1.0]


def test_polynomial_falls_to_zero_after_the_last_step():
    assert rates(partial(polynomial, power=1.0), steps=4) == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_polynomial_agrees_with_torch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=10, power=0.9)
    wanted = []
    for _ in range(10):
        wanted.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert rates(partial(polynomial, power=0.9), steps=10) == pytest.approx(wanted)


def test_cosine_is_halfway_in_the_middle():
    found = rates(partial(cosine, final_share=0.1), steps=10)
    assert found[0] == 1.0
    assert found[5] == pytest.approx(0.55)


def test_warm_up_rises_to_the_full_rate_and_the_schedule_follows():
    found = rates(partial(polynomial, power=1.0), steps=7, warmup=3)
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25])


def test_scheduler_state_is_plain():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    state = phase(warmup_steps=2).build_scheduler(optimizer, total_steps=9).state_dict()
    assert state["lr_lambdas"] == [None]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        pytest.param(["convInit"], {"convInit.weight", "convInit.bias"}, id="module"),
        pytest.param(["convInit.bias"], {"convInit.bias"}, id="parameter"),
        pytest.param(["down_layers.*.0"], {"down_layers.0.0.weight", "down_layers.0.0.bias"}, id="pattern"),
        pytest.param([], set(), id="nothing"),
    ],
)
def test_freezes_what_is_named_and_nothing_else(patterns, expected):
    net = network()
    assert set(freeze(net, patterns)) == expected
    assert {name for name, parameter in net.named_parameters() if not parameter.requires_grad} == expected


def test_name_is_no_prefix_of_another_name():
    assert not any(name.startswith("down_layers_extra") for name in freeze(network(), ["down_layers"]))


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [("down_layer", "down_layers"), ("convinit", "convInit"), ("encoder", "head"), ("down*.9", "down")],
)
def test_pattern_that_matches_nothing_is_refused_with_the_nearest_names(pattern, nearest):
    with pytest.raises(
        ConfigurationError, match=f"'{pattern}'.*matches no parameter.*{nearest}".replace("*.9", r"\*\.9")
    ):
        freeze(network(), ["head", pattern])


def test_freezing_everything_is_refused():
    with pytest.raises(ConfigurationError, match="parameters left to train"):
        freeze(network(), ["*"])


def test_frozen_norm_and_dropout_are_found():
    net = network()
    freeze(net, ["down_layers"])
    kinds = {type(module) for module in find_frozen_modules(net, ["down_layers"])}
    assert {nn.BatchNorm1d, nn.Dropout} <= kinds
    assert net["head"] not in find_frozen_modules(net, ["down_layers"])


@pytest.mark.parametrize("changes", [{"max_epochs": 0}, {"accumulate_grad_batches": 0}, {"warmup_steps": -1}])
def test_phase_that_trains_nothing_is_refused(changes):
    [name] = changes
    with pytest.raises(ConfigurationError, match=f"{name}: expected at least"):
        phase(**changes)

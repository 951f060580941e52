import pytest
import torch

from medexp.errors import ConfigurationError
from medexp.models.curriculum import Phase, Plateau
from tests.synthetic.segmentation import build, phase

SCORES = [0.1, 0.3, 0.2, 0.3, 0.29, 0.31, 0.1, 0.1, 0.1, 0.1, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]


def plateau(**changes) -> Plateau:
    given = {"monitor": "val/dice/mean", "mode": "max", "factor": 0.5, "patience": 2, "min_delta": 1e-4}
    return Plateau(**{**given, "least_share": 0.1, **changes})


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [0, 1, 2, 5])
def test_agrees_with_torch(mode, patience):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=0.5, patience=patience, threshold=1e-4, threshold_mode="abs", min_lr=0.1
    )
    ours = plateau(mode=mode, patience=patience)
    for score in SCORES:
        theirs.step(score)
        ours.look_at({"val/dice/mean": score})
        assert ours(0, total_steps=1) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_nan_is_no_improvement_and_anything_improves_on_it():
    rule = plateau(patience=0)
    rule.look_at({"val/dice/mean": float("nan")})
    assert rule(0, total_steps=1) == 0.5
    rule.look_at({"val/dice/mean": 0.1})
    rule.look_at({"val/dice/mean": 0.2})
    assert rule(0, total_steps=1) == 0.5


def test_state_goes_on_where_it_was():
    whole, first = plateau(), plateau()
    for score in SCORES:
        whole.look_at({"val/dice/mean": score})
    for score in SCORES[:7]:
        first.look_at({"val/dice/mean": score})
    second = plateau()
    second.load_state_dict(first.state_dict())
    for score in SCORES[7:]:
        second.look_at({"val/dice/mean": score})
    assert second.state_dict() == whole.state_dict()


def test_a_score_that_nobody_logs_is_named():
    with pytest.raises(ConfigurationError, match="expected one of .*val/dice/a.*, got 'val/dice/mean'"):
        plateau().look_at({"val/dice/a": 1.0})


def test_warm_up_comes_before_and_the_share_after():
    rule = plateau(patience=0)
    entry: Phase = phase(schedule=rule, warmup_steps=2)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = entry.build_scheduler(optimizer, total_steps=10)
    rates = []
    for step in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        if step == 3:
            rule.look_at({"val/dice/mean": 0.5})
            rule.look_at({"val/dice/mean": 0.4})
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0, 0.5, 0.5])


def test_a_checkpoint_holds_what_was_counted():
    model = build(curriculum={"stage_2": phase(schedule=plateau())})
    model._plateau.look_at({"val/dice/mean": 0.7})
    checkpoint = {}
    model.on_save_checkpoint(checkpoint)
    other = build(curriculum={"stage_2": phase(schedule=plateau())})
    other.on_load_checkpoint(checkpoint)
    assert other._plateau.state_dict() == model._plateau.state_dict()

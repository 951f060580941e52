"""Rules that combine terms: their values, their best points, and what they refuse."""

import json
import math

import pytest
import torch

from medexp.errors import ConfigurationError
from medexp.losses.weighting import FixedWeights, UncertaintyWeights

PARTS = {"mse": torch.tensor(0.04), "dvh": torch.tensor(3.0)}
NAMES = tuple(PARTS)


def test_fixed_weights_are_the_terms_factors():
    loss = FixedWeights(names=NAMES, weights={"dvh": 0.5, "mse": 2.0})
    assert loss(PARTS).item() == pytest.approx(2.0 * 0.04 + 0.5 * 3.0)


def test_term_of_weight_zero_has_no_part_whatever_its_value():
    loss = FixedWeights(names=NAMES, weights={"mse": 1.0, "dvh": 0.0})
    assert loss({**PARTS, "dvh": torch.tensor(float("nan"))}).item() == pytest.approx(0.04)


def test_uncertainty_starts_at_half_of_each_term():
    assert UncertaintyWeights(names=NAMES)(PARTS).item() == pytest.approx((0.04 + 3.0) / 2)


def test_uncertainty_has_kendalls_value():
    loss = UncertaintyWeights(names=NAMES)
    sigma = torch.tensor([0.5, 2.0])
    with torch.no_grad():
        loss.log_variances.copy_(2 * sigma.log())
    expected = 0.04 / (2 * 0.25) + math.log(0.5) + 3.0 / (2 * 4.0) + math.log(2.0)
    assert loss(PARTS).item() == pytest.approx(expected, rel=1e-5)


def test_learned_variances_go_to_the_terms_values():
    loss = UncertaintyWeights(names=NAMES)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss(PARTS).backward()
        optimizer.step()
    assert loss.log_variances.exp().tolist() == pytest.approx([0.04, 3.0], rel=0.05)


def test_calibrated_start_is_where_the_gradient_vanishes(tmp_path):
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({"dvh": 3.0, "mse": 0.04}))
    loss = UncertaintyWeights(names=NAMES, calibration=file)
    loss(PARTS).backward()
    assert loss.log_variances.grad.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_learned_variances_are_part_of_a_checkpoint():
    assert list(UncertaintyWeights(names=NAMES).state_dict()) == ["log_variances"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{", id="no JSON"),
        pytest.param("[1, 2]", id="no names"),
        pytest.param('{"mse": 1.0}', id="a term is missing"),
        pytest.param('{"mse": 1.0, "dvh": 0.0}', id="zero"),
        pytest.param('{"mse": 1.0, "dvh": NaN}', id="not a number"),
        pytest.param('{"mse": 1.0, "dvh": true}', id="a truth value"),
    ],
)
def test_refuses_a_calibration_that_is_none(tmp_path, text):
    file = tmp_path / "calibration.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"model\.loss\.combine\.calibration="):
        UncertaintyWeights(names=NAMES, calibration=file)


def test_refuses_a_calibration_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="No such file"):
        UncertaintyWeights(names=NAMES, calibration=tmp_path / "none.json")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        pytest.param({"mse": 1.0}, "a weight for each term", id="a term is missing"),
        pytest.param({"mse": 1.0, "dvh": 1.0, "mae": 1.0}, "a weight for each term", id="a term too many"),
        pytest.param({"mse": 1.0, "dvh": -1.0}, "none below 0", id="negative"),
        pytest.param({"mse": 0.0, "dvh": 0.0}, "one above", id="all zero"),
    ],
)
def test_refuses_weights_that_do_not_fit(weights, message):
    with pytest.raises(ConfigurationError, match=message):
        FixedWeights(names=NAMES, weights=weights)

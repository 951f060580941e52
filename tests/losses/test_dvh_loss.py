"""The DVH loss: its smoothed metrics against exact ones and brute force, and which structures count."""

import math

import numpy as np
import pytest
import torch

from medexp.errors import ConfigurationError
from medexp.losses.dvh_loss import DvhError
from tests.losses.dose_setting import CONTRACT, image_of, mask_distances

SETTINGS = {
    "d95_weights": [1.0, 0.5, 0.3],
    "d95_weight": 0.0,
    "volumes": {},
    "volume_weight": 0.0,
    "mean_weight": 0.0,
    "num_bins": 100,
    "temperature": 0.1,
}
SIZE = (4, 4, 4)
BIAS = 0.1 * math.log(19)  # sigmoid(log 19) = 0.95


def loss_of(**changes):
    return DvhError(contract=CONTRACT, **{**SETTINGS, **changes})


def uniform(value):
    return torch.full((1, 1, *SIZE), value)


def everywhere(*structures):
    return image_of(SIZE, **dict.fromkeys(structures, -10.0))


def ptv_doses(seed=0, num=4000):
    generator = torch.Generator().manual_seed(seed)
    return 1.0 + 0.03 * torch.randn(num, generator=generator) - 0.2 * (torch.rand(num, generator=generator) < 0.03)


@pytest.mark.parametrize("dose", [0.0, 0.2, 0.7, 1.0, 1.1])
def test_d95_of_a_uniform_dose_is_the_dose_less_what_smoothing_takes(dose):
    found = loss_of().dose_covering(torch.full((50,), dose)).item()
    assert found == pytest.approx(dose - BIAS, abs=2e-3)


def test_d95_agrees_with_a_sum_of_sigmoids():
    doses = ptv_doses().double()
    low, high = -1.0, 2.0
    for _ in range(60):  # bisection
        middle = (low + high) / 2
        covered = ((doses - middle) / 0.1).sigmoid().mean().item()
        low, high = (middle, high) if covered > 0.95 else (low, middle)
    assert loss_of().dose_covering(doses).item() == pytest.approx(low, abs=1e-3)


def test_d95_comes_near_the_exact_one_as_the_temperature_falls():
    doses = ptv_doses()
    exact = float(np.percentile(doses.numpy(), 5))
    errors = [
        abs(loss_of(temperature=temperature, num_bins=bins).dose_covering(doses).item() - exact)
        for temperature, bins in ((0.1, 100), (0.03, 200), (0.005, 1000))
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.003


def test_gradient_of_d95_reaches_every_voxel_and_sums_to_one():
    """Moving all voxels by the same dose moves D95 by it."""
    doses = ptv_doses().double().requires_grad_()
    loss_of(num_bins=400).dose_covering(doses).backward()
    assert bool((doses.grad > 0).all())
    assert doses.grad.sum().item() == pytest.approx(1.0, abs=0.02)


def test_gradient_of_d95_has_a_bound_where_no_voxel_is_near_it():
    doses = torch.cat((torch.ones(95), torch.zeros(5))).requires_grad_()
    loss_of(temperature=0.01, num_bins=400).dose_covering(doses).backward()
    assert doses.grad.abs().sum().item() < 100.0


def test_hand_worked_d95_term_counts_each_target_by_its_weight():
    loss = loss_of(d95_weight=10.0)
    doses = (uniform(0.9), uniform(1.0))
    high = loss(*doses, everywhere("PTV70")).item()
    low = loss(*doses, everywhere("PTV56")).item()
    assert high == pytest.approx(10 * 0.1**2, rel=0.02)
    assert low == pytest.approx(high / 2)
    assert loss(*doses, everywhere("PTV70", "PTV56")).item() == pytest.approx((high + low) / 2)


def test_more_dose_than_planned_is_no_loss_of_d95():
    assert loss_of(d95_weight=10.0)(uniform(1.1), uniform(1.0), everywhere("PTV70")).item() == 0.0


def test_organs_have_no_d95():
    assert loss_of(d95_weight=10.0)(uniform(0.5), uniform(1.0), everywhere("Rectum")).item() == 0.0


def test_hand_worked_volume_term():
    loss = loss_of(volume_weight=2.0, volumes={"Rectum": [35.0]})
    found = loss(uniform(0.5), uniform(0.6), everywhere("Rectum")).item()
    assert found == pytest.approx(2 * (1 / (1 + math.exp(-1)) - 0.5) ** 2, rel=1e-5)


def test_temperature_of_a_volume_is_in_fractions_of_the_prescription():
    """The VMAT system's slip: a sigmoid ten times as wide, whose slope at the level is 0.25 instead of 2.5."""
    dose = torch.full((10,), 0.5, requires_grad=True)
    loss_of().volume_above(dose, 0.5).backward()
    assert dose.grad.sum().item() == pytest.approx(0.25 / 0.1)


def test_volume_comes_near_the_exact_share_as_the_temperature_falls():
    doses = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    exact = (doses >= 0.7).float().mean().item()
    assert loss_of(temperature=0.02).volume_above(doses, 0.7).item() == pytest.approx(exact, abs=1e-3)


def test_hand_worked_mean_term_is_averaged_over_what_is_there():
    left = torch.zeros(SIZE, dtype=torch.bool)
    left[:2] = True
    prediction = torch.where(left, 0.8, 0.5)[None, None]
    image = image_of(SIZE, Rectum=mask_distances(left), Bladder=mask_distances(~left))
    loss = loss_of(mean_weight=1.0)(prediction, uniform(0.4), image)
    assert loss.item() == pytest.approx((0.4**2 + 0.1**2) / 2, rel=1e-5)


def test_example_without_the_structure_does_not_dilute_the_others():
    one = (uniform(0.8), uniform(1.0), everywhere("PTV70"))
    other = (uniform(0.1), uniform(1.0), everywhere())
    both = [torch.cat(volumes) for volumes in zip(one, other, strict=True)]
    loss = loss_of(d95_weight=10.0, mean_weight=1.0)
    assert loss(*both).item() == pytest.approx(loss(*one).item())


def test_examples_have_histograms_of_their_own():
    """Half of a patient's target at 0 is not made good by another one's dose."""
    doses = torch.cat((uniform(0.5), uniform(1.5)))
    image = torch.cat((everywhere("PTV70"),) * 2)
    loss = loss_of(mean_weight=1.0)(doses, torch.ones(2, 1, *SIZE), image)
    assert loss.item() == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"volumes": {"Rectm": [50.0]}}, r"expected structures.*got \['Rectm'\]", id="no such structure"),
        pytest.param({"d95_weights": [1.0]}, r"each target \['PTV70', 'PTV56'\], got \[1\.0\]", id="weight missing"),
        pytest.param({"d95_weights": [1.0, -1.0]}, "at least 0", id="negative weight"),
        pytest.param({"temperature": 0.01}, "take more bins", id="too coarse"),
    ],
)
def test_refuses_what_does_not_fit_the_dataset(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        loss_of(**changes)

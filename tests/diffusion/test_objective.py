"""The denoising loss: hand-worked values, and no timestep that outweighs the others."""

import pytest
import torch

from medexp.diffusion.objective import DenoisingLoss
from medexp.diffusion.scaling import DoseScale
from medexp.diffusion.schedules import PREDICTION_TYPES, NoiseSchedule
from medexp.errors import ConfigurationError

SCHEDULE = NoiseSchedule(kind="cosine", num_timesteps=1000, least_beta=1e-4, largest_beta=0.9999)
PLAIN = DoseScale(center=0.0, half_width=1.0)
CENTERED = DoseScale(center=0.6, half_width=0.6)


def loss_of(prediction_type, *, weight=0.1, scale=PLAIN):
    return DenoisingLoss(schedule=SCHEDULE, scale=scale, prediction_type=prediction_type, negative_dose_weight=weight)


def volumes(batch=1):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, 1, 4, 4, 4, generator=generator), torch.randn(batch, 1, 4, 4, 4, generator=generator)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("timestep", [0, 500, 900])
def test_right_prediction_costs_nothing(prediction_type, timestep):
    clean, noise = volumes()
    time = torch.tensor([timestep])
    target = SCHEDULE.target(clean, noise, time, prediction_type=prediction_type)
    assert loss_of(prediction_type)(target, clean, noise, time).item() == pytest.approx(0.0, abs=1e-6)


def test_hand_worked_value_of_a_negative_dose():
    clean, noise, time = torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2), torch.tensor([500])
    value = loss_of("x0")(torch.full_like(clean, -0.3), clean, noise, time).item()
    assert value == pytest.approx(0.3**2 + 0.1 * 0.492096 * 0.3, rel=1e-5)


def test_negative_dose_is_negative_in_fractions_of_the_prescription():
    """-1 in a scale of center 0.6 and half-width 0.6 is no dose, and nothing below it."""
    clean, noise, time = torch.full((1, 1, 2, 2, 2), -1.0), torch.zeros(1, 1, 2, 2, 2), torch.tensor([500])
    loss = loss_of("x0", scale=CENTERED)
    assert loss(clean, clean, noise, time).item() == pytest.approx(0.0, abs=1e-7)
    below = loss(clean - 0.5, clean, noise, time).item()
    assert below == pytest.approx(0.25 + 0.1 * 0.492096 * 0.3, rel=1e-5)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_penalty_of_no_timestep_outweighs_the_error(prediction_type):
    clean, noise = volumes()
    for timestep in (0, 500, 990, 999):
        time = torch.tensor([timestep])
        prediction = torch.zeros(1, 1, 4, 4, 4)
        plain = loss_of(prediction_type, weight=0.0)(prediction, clean, noise, time)
        penalized = loss_of(prediction_type)(prediction, clean, noise, time)
        assert 0 <= (penalized - plain).item() < 0.1


def test_unweighted_penalty_would_have_been_that_of_the_last_timesteps():
    """What the weighting is for: the mean factor of a predicted noise in the clean volume."""
    alphas = torch.tensor(SCHEDULE.alphas_cumprod, dtype=torch.float64)
    assert ((1 - alphas) / alphas).sqrt().mean().item() == pytest.approx(68.7, abs=0.1)
    weighted = alphas * ((1 - alphas) / alphas).sqrt()
    assert weighted.max().item() <= 0.5


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_gradient_is_finite_at_the_last_timestep(prediction_type):
    clean, noise = volumes()
    prediction = torch.zeros(1, 1, 4, 4, 4, requires_grad=True)
    loss_of(prediction_type)(prediction, clean, noise, torch.tensor([999])).backward()
    assert bool(prediction.grad.isfinite().all())
    assert prediction.grad.abs().max().item() < 1.0


def test_half_precision_gives_the_loss_in_full_precision():
    clean, noise = volumes()
    loss = loss_of("v")(noise.bfloat16(), clean, noise, torch.tensor([10]))
    assert loss.dtype == torch.float32


def test_scale_brings_a_dose_there_and_back():
    dose = torch.tensor([0.0, 0.6, 1.2])
    assert CENTERED.encode(dose).tolist() == pytest.approx([-1.0, 0.0, 1.0], abs=1e-6)
    assert torch.allclose(CENTERED.decode(CENTERED.encode(dose)), dose)


def test_refuses_a_scale_without_width():
    with pytest.raises(ConfigurationError, match="half_width"):
        DoseScale(center=0.0, half_width=0.0)

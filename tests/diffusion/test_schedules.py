"""Noise schedules: the published curves, and that noise, clean volume and velocity can be turned into each other."""

import pytest
import torch

from medexp.diffusion.schedules import (
    PREDICTION_TYPES,
    NoiseSchedule,
    cosine_alphas_cumprod,
    linear_alphas_cumprod,
)
from medexp.errors import ConfigurationError

PAPER = {"kind": "cosine", "num_timesteps": 1000, "least_beta": 0.0, "largest_beta": 0.999}
VMAT = {**PAPER, "least_beta": 1e-4, "largest_beta": 0.9999}
LINEAR = {"kind": "linear", "num_timesteps": 1000, "least_beta": 1e-4, "largest_beta": 0.02}


def volumes(schedule, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 5, 1, 3, 4, 2, generator=generator)
    return clean, noise, torch.tensor([0, 1, 400, 700, schedule.num_timesteps - 50])


@pytest.mark.parametrize(
    ("timestep", "value"),
    [
        (0, 0.999959),
        (100, 0.971576),
        (250, 0.845888),
        (500, 0.492285),
        (750, 0.143179),
        (900, 0.0236161),
        (980, 8.765e-4),
        (999, 2.43e-9),
    ],
)
def test_cosine_with_the_papers_clipping_has_the_published_values(timestep, value):
    assert cosine_alphas_cumprod(1000)[timestep].item() == pytest.approx(value, rel=6e-4)


@pytest.mark.parametrize(
    ("timestep", "value"), [(0, 0.9999), (500, 0.492096), (900, 0.0236070), (980, 8.762e-4), (999, 2.43e-10)]
)
def test_cosine_with_the_vmat_systems_clipping_has_its_values(timestep, value):
    found = cosine_alphas_cumprod(1000, beta_range=(1e-4, 0.9999))[timestep].item()
    assert found == pytest.approx(value, rel=1e-3)


def test_lower_clip_of_the_vmat_system_holds_for_13_timesteps():
    curve = cosine_alphas_cumprod(1000, beta_range=(1e-4, 0.9999))
    expected = (1 - 1e-4) ** torch.arange(1, 15, dtype=torch.float64)
    assert torch.isclose(curve[:14], expected, rtol=1e-12, atol=0).tolist() == [True] * 13 + [False]


def test_linear_has_the_last_value_that_follows_from_its_betas():
    product = 1.0
    for step in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * step / 999)
    assert linear_alphas_cumprod(1000)[-1].item() == pytest.approx(product, rel=1e-10)


@pytest.mark.parametrize(
    ("ours", "name"),
    [(cosine_alphas_cumprod, "cosine"), (linear_alphas_cumprod, "linear_beta")],
    ids=["cosine", "linear"],
)
def test_agrees_with_monai(ours, name):
    from monai.networks.schedulers import DDPMScheduler

    theirs = DDPMScheduler(1000, schedule=name).alphas_cumprod.double()
    assert torch.allclose(ours(1000), theirs, rtol=1e-4, atol=0)


@pytest.mark.parametrize("settings", [PAPER, VMAT, LINEAR], ids=["paper", "vmat", "linear"])
def test_signal_and_noise_keep_unit_variance_at_every_timestep(settings):
    schedule = NoiseSchedule(**settings)
    assert torch.allclose(schedule.signal**2 + schedule.spread**2, torch.ones(1000), atol=1e-6)
    assert bool((schedule.signal.diff() < 0).all())


def test_noise_is_added_with_each_examples_own_factors():
    schedule = NoiseSchedule(**PAPER)
    clean, noise = torch.full((2, 1, 1, 1, 1), 2.0), torch.full((2, 1, 1, 1, 1), -1.0)
    noisy = schedule.add_noise(clean, noise, torch.tensor([100, 900])).flatten()
    expected = [2 * 0.971576**0.5 - 0.028424**0.5, 2 * 0.0236161**0.5 - 0.9763839**0.5]
    assert noisy.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_clean_volume_comes_back_from_every_type_of_target(prediction_type):
    schedule = NoiseSchedule(**LINEAR)
    clean, noise, timestep = volumes(schedule)
    noisy = schedule.add_noise(clean, noise, timestep)
    target = schedule.target(clean, noise, timestep, prediction_type=prediction_type)
    denoised = schedule.denoised(target, noisy, timestep, prediction_type=prediction_type)
    assert torch.allclose(denoised, clean, atol=1e-3)


@pytest.mark.parametrize(
    ("monai_name", "prediction_type"), [("epsilon", "epsilon"), ("sample", "x0"), ("v_prediction", "v")]
)
def test_clean_volume_agrees_with_monai(monai_name, prediction_type):
    from monai.networks.schedulers import DDIMScheduler

    schedule = NoiseSchedule(**LINEAR)
    theirs = DDIMScheduler(1000, schedule="linear_beta", clip_sample=False, prediction_type=monai_name)
    prediction, noisy, _ = volumes(schedule)
    _, expected = theirs.step(prediction, 400, noisy)
    found = schedule.denoised(prediction, noisy, torch.full((5,), 400), prediction_type=prediction_type)
    assert torch.allclose(found, expected, atol=1e-4)


def test_velocity_agrees_with_monai():
    from monai.networks.schedulers import DDPMScheduler

    schedule = NoiseSchedule(**LINEAR)
    clean, noise, timestep = volumes(schedule)
    expected = DDPMScheduler(1000, schedule="linear_beta").get_velocity(clean, noise, timestep)
    assert torch.allclose(schedule.target(clean, noise, timestep, prediction_type="v"), expected, atol=1e-5)


def test_schedule_is_no_part_of_a_checkpoint():
    assert NoiseSchedule(**PAPER).state_dict() == {}


def test_record_builds_the_same_schedule():
    schedule = NoiseSchedule(**VMAT)
    assert NoiseSchedule(**schedule.to_json()).alphas_cumprod == schedule.alphas_cumprod


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"num_timesteps": 0}, id="no timestep"),
        pytest.param({"least_beta": 0.9999}, id="range upside down"),
        pytest.param({"largest_beta": 1.0}, id="nothing left"),
        pytest.param({"largest_beta": 0.0}, id="no noise at all"),
        pytest.param({"kind": "linear"}, id="no noise at first"),
    ],
)
def test_refuses_a_schedule_that_is_none(changes):
    with pytest.raises(ConfigurationError, match="schedule"):
        NoiseSchedule(**{**PAPER, **changes})

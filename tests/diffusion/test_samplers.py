"""Samplers: perfect denoisers, Gaussian data that can be solved by hand, MONAI, and the number of calls."""

import math
from itertools import pairwise

import pytest
import torch

from medexp.diffusion.samplers import Ddim, Ddpm, spaced_timesteps
from medexp.diffusion.schedules import PREDICTION_TYPES, NoiseSchedule, target_of
from medexp.errors import ConfigurationError

COSINE = NoiseSchedule(kind="cosine", num_timesteps=1000, least_beta=0.0, largest_beta=0.999)
LINEAR = NoiseSchedule(kind="linear", num_timesteps=50, least_beta=1e-3, largest_beta=0.3)
MEAN, DEVIATION = 0.4, 0.25


def noise_of(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


class PerfectDenoiser:
    """Answers for one known clean volume, or for Gaussian data, and remembers what it was asked."""

    def __init__(self, schedule, prediction_type, denoise):
        self.schedule, self.prediction_type, self.denoise = schedule, prediction_type, denoise
        self.asked = []

    def __call__(self, noisy, timestep):
        self.asked.append((timestep, noisy))
        alpha = self.schedule.alphas_cumprod[timestep]
        signal, spread = math.sqrt(alpha), math.sqrt(1 - alpha)
        clean = self.denoise(noisy, signal, spread)
        noise = (noisy - signal * clean) / spread
        return target_of(clean, noise, signal, spread, prediction_type=self.prediction_type)


def knows(clean):
    return lambda noisy, signal, spread: clean


def gaussian(noisy, signal, spread):
    """The best guess of x_0 ~ N(MEAN, DEVIATION^2), by Bayes."""
    precision = signal**2 / spread**2 + 1 / DEVIATION**2
    return (signal / spread**2 * noisy + MEAN / DEVIATION**2) / precision


def run(sampler, denoise, noise, *, schedule=COSINE, prediction_type="v", seed=1):
    denoiser = PerfectDenoiser(schedule, prediction_type, denoise)
    result = sampler(denoiser, noise, schedule=schedule, prediction_type=prediction_type, generator=generator(seed))
    return result, denoiser.asked


@pytest.mark.parametrize("num_steps", [1, 2, 7, 50])
@pytest.mark.parametrize("sampler", [Ddim, Ddpm])
def test_calls_the_network_once_per_step(sampler, num_steps):
    _, asked = run(sampler(num_steps=num_steps), knows(noise_of(1, 1, 2, 2, 2)), noise_of(1, 1, 2, 2, 2))
    assert len(asked) == num_steps


def test_starts_at_the_last_timestep_and_ends_at_the_first():
    times = spaced_timesteps(1000, 50)
    assert (times[0], times[-1]) == (999, 0)
    assert {first - second for first, second in pairwise(times)} == {20, 21}


def test_single_step_is_the_last_timestep_and_all_steps_are_all():
    assert spaced_timesteps(1000, 1) == (999,)
    assert spaced_timesteps(5, 5) == (4, 3, 2, 1, 0)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("sampler", [Ddim(num_steps=10), Ddim(num_steps=10, eta=1.0), Ddpm(num_steps=10)])
def test_perfect_denoiser_leads_to_the_clean_volume(sampler, prediction_type):
    clean = noise_of(2, 1, 4, 3, 2, seed=5)
    found, _ = run(sampler, knows(clean), noise_of(2, 1, 4, 3, 2), prediction_type=prediction_type)
    assert torch.allclose(found, clean, atol=1e-5)


@pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(Ddim(num_steps=200), id="ddim"),
        pytest.param(Ddim(num_steps=200, eta=0.5), id="ddim with some noise"),
        pytest.param(Ddpm(num_steps=1000), id="ddpm"),
        pytest.param(Ddpm(num_steps=1000, variance="large"), id="ddpm, large variance"),
    ],
)
def test_gaussian_data_come_back_with_their_mean_and_deviation(sampler):
    found, _ = run(sampler, gaussian, noise_of(1, 1, 20, 40, 50))
    assert found.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert found.std().item() == pytest.approx(DEVIATION, rel=0.03)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_volumes_on_the_way_have_the_schedules_signal_and_spread(eta):
    clean = torch.full((1, 1, 20, 40, 50), 0.7)
    _, asked = run(Ddim(num_steps=6, eta=eta), knows(clean), noise_of(1, 1, 20, 40, 50))
    for timestep, noisy in asked:
        alpha = COSINE.alphas_cumprod[timestep]
        assert noisy.mean().item() == pytest.approx(0.7 * math.sqrt(alpha), abs=0.02)
        assert noisy.std().item() == pytest.approx(math.sqrt(1 - alpha), rel=0.02)


@pytest.mark.parametrize("num_steps", [6, 50])
def test_ddim_with_all_its_noise_is_ddpm(num_steps):
    noise = noise_of(1, 1, 4, 4, 4)
    ddim, _ = run(Ddim(num_steps=num_steps, eta=1.0), gaussian, noise, schedule=LINEAR)
    ddpm, _ = run(Ddpm(num_steps=num_steps), gaussian, noise, schedule=LINEAR)
    assert torch.allclose(ddim, ddpm, atol=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "x0"])
def test_types_of_prediction_agree(prediction_type):
    noise = noise_of(1, 1, 4, 4, 4)
    expected, _ = run(Ddim(num_steps=20), gaussian, noise, prediction_type="v")
    found, _ = run(Ddim(num_steps=20), gaussian, noise, prediction_type=prediction_type)
    assert torch.allclose(found, expected, atol=1e-4)


def monai_names(prediction_type):
    return {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}[prediction_type]


def sample_with_monai(scheduler, denoise, noise, seed=1, **options):
    draws, noisy = generator(seed), noise
    scheduler.set_timesteps(50)
    for timestep in scheduler.timesteps.tolist():
        noisy, _ = scheduler.step(denoise(noisy, timestep), timestep, noisy, generator=draws, **options)
    return noisy


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("kind", ["ddim", "ddim with noise", "ddpm"])
def test_all_steps_agree_with_monai(kind, prediction_type):
    from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

    settings = {
        "num_train_timesteps": 50,
        "schedule": "linear_beta",
        "beta_start": 1e-3,
        "beta_end": 0.3,
        "clip_sample": False,
        "prediction_type": monai_names(prediction_type),
    }
    noise = noise_of(1, 1, 4, 4, 4)
    denoise = PerfectDenoiser(LINEAR, prediction_type, gaussian)
    if kind == "ddpm":
        sampler, theirs = Ddpm(num_steps=50), sample_with_monai(DDPMScheduler(**settings), denoise, noise)
    else:
        eta = 0.6 if "noise" in kind else 0.0
        sampler = Ddim(num_steps=50, eta=eta)
        theirs = sample_with_monai(DDIMScheduler(**settings), denoise, noise, eta=eta)
    ours, _ = run(sampler, gaussian, noise, schedule=LINEAR, prediction_type=prediction_type)
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_noise_is_computed_anew_from_the_clipped_volume():
    """Two steps by hand: x_0 of 3 is clipped to 2, and the noise is what then remains of x_t."""
    [last, first] = spaced_timesteps(50, 2)
    start = torch.ones(1, 1, 1, 1, 1)
    seen = []

    def denoise(noisy, timestep):
        seen.append(noisy.item())
        return torch.full_like(noisy, 3.0)

    result = Ddim(num_steps=2, clip=(-1.0, 2.0))(denoise, start, schedule=LINEAR, prediction_type="x0")
    alpha_last, alpha_first = LINEAR.alphas_cumprod[last], LINEAR.alphas_cumprod[first]
    remaining = (1.0 - math.sqrt(alpha_last) * 2.0) / math.sqrt(1 - alpha_last)
    assert seen == pytest.approx([1.0, math.sqrt(alpha_first) * 2.0 + math.sqrt(1 - alpha_first) * remaining])
    assert result.item() == 2.0


def test_same_seed_gives_the_same_volume_and_another_one_does_not():
    noise = noise_of(1, 1, 4, 4, 4)
    first, _ = run(Ddpm(num_steps=5), gaussian, noise)
    again, _ = run(Ddpm(num_steps=5), gaussian, noise)
    other, _ = run(Ddpm(num_steps=5), gaussian, noise, seed=2)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_initial_noise_stays_as_it_was():
    noise = noise_of(1, 1, 4, 4, 4)
    before = noise.clone()
    run(Ddim(num_steps=3), gaussian, noise)
    assert torch.equal(noise, before)


@pytest.mark.parametrize("sampler", [Ddim(num_steps=2, eta=0.5), Ddpm(num_steps=2)])
def test_noise_on_the_way_needs_a_generator(sampler):
    with pytest.raises(ConfigurationError, match="expected a generator"):
        sampler(lambda noisy, timestep: noisy, noise_of(1, 1, 2, 2, 2), schedule=LINEAR, prediction_type="x0")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        pytest.param(lambda: Ddim(num_steps=0), "num_steps.*got 0", id="no step"),
        pytest.param(lambda: Ddim(num_steps=2, eta=1.5), r"eta.*got 1\.5", id="more noise than there is"),
        pytest.param(lambda: Ddpm(num_steps=2, clip=(1.0, 0.0)), "clip", id="clip upside down"),
        pytest.param(lambda: spaced_timesteps(50, 51), "at most the schedule's 50 timesteps, got 51", id="too many"),
    ],
)
def test_refuses_what_cannot_be_sampled(build, message):
    with pytest.raises(ConfigurationError, match=message):
        build()

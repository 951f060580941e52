"""Turn noise into a volume, one call of the network per step.

The samplers take a function `denoise(noisy, timestep) -> prediction`, in which a sliding window may cover a whole
volume: all windows then see the same noise, and their predictions are blended at every step, so overlaps agree
(Bar-Tal et al., ICML 2023, "MultiDiffusion").

They stand in for MONAI's `DDIMScheduler` and `DDPMScheduler` (1.6.1), which differ in three ways: the former visits
times spaced evenly from T - 1 to 0 but steps by the constant T // n, so that the noise removed is not the noise that
the network is told of next; it does not recompute the noise after clipping the clean volume; the latter always steps
by one, so that fewer than T steps end in noise. With all T steps and nothing clipped both agree with these here
(tests/diffusion/test_samplers.py).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from medexp.diffusion.schedules import NoiseSchedule, PredictionType, denoised_of
from medexp.errors import ConfigurationError
from medexp.types import Amount, Count

Denoise = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class _Level:
    """How much signal and noise there is at one time; the end of the way has no timestep and no noise."""

    timestep: int | None
    signal: float
    spread: float


_CLEAN = _Level(None, 1.0, 0.0)


class Sampler(ABC):
    """What turns noise into a volume, step by step.

    Attributes:
        num_steps: Calls of the network.
        clip: Least and largest value of a clean volume, in the network's scale; None: not clipped.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    num_steps: Count
    clip: Sequence[float] | None

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ConfigurationError(f"sampler.num_steps: expected at least 1, got {self.num_steps}")
        if self.clip is not None and (len(self.clip) != 2 or self.clip[0] >= self.clip[1]):
            found = list(self.clip)
            raise ConfigurationError(f"sampler.clip: expected the least and the largest value, got {found}")

    @torch.no_grad()
    def __call__(
        self,
        denoise: Denoise,
        noise: Float[Tensor, "batch *shape"],
        *,
        schedule: NoiseSchedule,
        prediction_type: PredictionType,
        generator: Generator | None = None,
    ) -> Float[Tensor, "batch *shape"]:
        """Return the volume that `noise` becomes; a sampler that adds noise on the way needs `generator`.

        Raises:
            ConfigurationError: More steps than timesteps, or no generator.
        """
        noisy = noise
        for now, then in _ways(schedule, self.num_steps):
            assert now.timestep is not None
            prediction = denoise(noisy, now.timestep).to(noisy.dtype)
            denoised = denoised_of(prediction, noisy, now.signal, now.spread, prediction_type=prediction_type)
            clipped = denoised if self.clip is None else denoised.clamp(*self.clip)
            noisy = self._step(noisy, clipped, now, then, generator)
        return noisy

    @abstractmethod
    def _step(
        self,
        noisy: Float[Tensor, "batch *shape"],
        denoised: Float[Tensor, "batch *shape"],
        now: _Level,
        then: _Level,
        generator: Generator | None,
    ) -> Float[Tensor, "batch *shape"]:
        """Return the less noisy volume, given the noisy one and what the network takes for the clean one."""


@dataclass(frozen=True)
class Ddim(Sampler):
    """Denoising diffusion implicit models: few steps, without noise on the way unless `eta` asks for it.

    Attributes:
        num_steps: Calls of the network; the first is at the last timestep, the last (of two or more) at 0.
        eta: 0 is deterministic, 1 adds as much noise as `Ddpm`.
        clip: Least and largest value of a clean volume, in the network's scale; None: not clipped.

    Raises:
        ConfigurationError: A value is out of its range.

    Source:
        Song et al., ICLR 2021, equations 12 and 16. The noise is computed anew from the clipped volume.
    """

    num_steps: Count
    eta: Amount = 0.0
    clip: Sequence[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ConfigurationError(f"sampler.eta: expected 0 (deterministic) to 1 (as DDPM), got {self.eta}")

    def _step(
        self,
        noisy: Float[Tensor, "batch *shape"],
        denoised: Float[Tensor, "batch *shape"],
        now: _Level,
        then: _Level,
        generator: Generator | None,
    ) -> Float[Tensor, "batch *shape"]:
        direction = (noisy - now.signal * denoised) / now.spread
        sigma = self.eta * math.sqrt(_posterior_variance(now, then))
        less = then.signal * denoised + math.sqrt(max(then.spread**2 - sigma**2, 0.0)) * direction
        return less + sigma * draw_noise(less, generator) if sigma > 0 else less


@dataclass(frozen=True)
class Ddpm(Sampler):
    """Denoising diffusion probabilistic models: ancestral sampling, noise at every step but the last.

    Attributes:
        num_steps: Calls of the network; fewer than the schedule's timesteps skip some, evenly.
        variance: Of the noise added: "small", that of the posterior for a known clean volume, or "large", that of
            the forward step.
        clip: Least and largest value of a clean volume, in the network's scale; None: not clipped.

    Raises:
        ConfigurationError: A value is out of its range.

    Source:
        Ho et al., NeurIPS 2020, equations 6 and 7, between the times that are visited.
    """

    num_steps: Count
    variance: Literal["small", "large"] = "small"
    clip: Sequence[float] | None = None

    def _step(
        self,
        noisy: Float[Tensor, "batch *shape"],
        denoised: Float[Tensor, "batch *shape"],
        now: _Level,
        then: _Level,
        generator: Generator | None,
    ) -> Float[Tensor, "batch *shape"]:
        kept = now.signal / then.signal  # of the signal, by the forward step
        beta = 1 - kept**2
        less = (then.signal * beta * denoised + kept * then.spread**2 * noisy) / now.spread**2
        if then.timestep is None:
            return less
        variance = _posterior_variance(now, then) if self.variance == "small" else beta
        return less + math.sqrt(variance) * draw_noise(less, generator)


def spaced_timesteps(num_timesteps: int, num_steps: int) -> tuple[int, ...]:
    """Return timesteps in falling order, evenly spaced from the last one to 0; a single one is the last.

    Raises:
        ConfigurationError: There are fewer timesteps than steps.
    """
    if num_steps > num_timesteps:
        raise ConfigurationError(
            f"sampler.num_steps: expected at most the schedule's {num_timesteps} timesteps, got {num_steps}"
        )
    last = num_timesteps - 1
    return tuple(last - round(last * step / max(num_steps - 1, 1)) for step in range(num_steps))


def draw_noise(like: Float[Tensor, "*shape"], generator: Generator | None) -> Float[Tensor, "*shape"]:
    """Return standard normal noise; one generator gives the same on every device that it does not live on.

    Raises:
        ConfigurationError: There is no generator: noise that nobody can draw again is refused.
    """
    if generator is None:
        raise ConfigurationError("sampler: expected a generator for the noise on the way, got none: give one")
    return torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def _ways(schedule: NoiseSchedule, num_steps: int) -> Iterator[tuple[_Level, _Level]]:
    """Yield where each step starts and where it leads."""
    levels = [
        _Level(time, math.sqrt(schedule.alphas_cumprod[time]), math.sqrt(1 - schedule.alphas_cumprod[time]))
        for time in spaced_timesteps(schedule.num_timesteps, num_steps)
    ]
    return pairwise([*levels, _CLEAN])


def _posterior_variance(now: _Level, then: _Level) -> float:
    """Return the variance of the less noisy volume, given the noisier and the clean one."""
    return (then.spread / now.spread) ** 2 * (1 - (now.signal / then.signal) ** 2)

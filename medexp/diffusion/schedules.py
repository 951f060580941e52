"""How fast noise takes over, and what a network is asked to say of a noisy volume."""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Float64, Integer
from torch import Tensor, nn

from medexp.errors import ConfigurationError
from medexp.types import Count, Share

ScheduleKind = Literal["cosine", "linear"]
PredictionType = Literal["epsilon", "x0", "v"]
PREDICTION_TYPES: tuple[PredictionType, ...] = ("epsilon", "x0", "v")

_OFFSET = 0.008  # of the cosine: keeps the first betas from vanishing


def cosine_alphas_cumprod(
    num_timesteps: int, *, beta_range: tuple[float, float] = (0.0, 0.999)
) -> Float64[Tensor, " timestep"]:
    """Return the share of the signal's variance that is left after each timestep, on a squared cosine.

    Args:
        num_timesteps: Timesteps 0 to `num_timesteps` - 1.
        beta_range: What the variance added in one timestep is clipped to. The paper's range is (0, 0.999); the VMAT
            system's (1e-4, 0.9999), whose lower end holds for the first 13 of 1000 timesteps.

    Source:
        Nichol and Dhariwal, ICML 2021, equation 17.
    """
    times = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
    curve = torch.cos((times + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2
    betas = 1 - curve[1:] / curve[:-1]
    return torch.cumprod(1 - betas.clamp(*beta_range), dim=0)


def linear_alphas_cumprod(
    num_timesteps: int, *, beta_range: tuple[float, float] = (1e-4, 0.02)
) -> Float64[Tensor, " timestep"]:
    """Return the share of the signal's variance that is left after each timestep, for betas that rise linearly.

    Source:
        Ho et al., NeurIPS 2020, section 4.
    """
    return torch.cumprod(1 - torch.linspace(*beta_range, num_timesteps, dtype=torch.float64), dim=0)


_CURVES = {"cosine": cosine_alphas_cumprod, "linear": linear_alphas_cumprod}


class NoiseSchedule(nn.Module):
    """x_t = signal_t * x_0 + spread_t * noise, and the ways between clean volume, noise and velocity.

    Both factors are computed in float64 and kept in float32; nothing is saved with a checkpoint, because all follows
    from the arguments. `monai.networks.schedulers` agrees on the linear curve; its cosine knows the paper's clipping
    only and is computed in float32, within 1e-4 of this one (tests/diffusion/test_schedules.py). Its samplers are not
    used: see `medexp.diffusion.samplers`.

    Args:
        kind: "cosine" or "linear".
        num_timesteps: Timesteps 0 to `num_timesteps` - 1.
        least_beta: Least variance added in one timestep; where a linear schedule starts.
        largest_beta: Largest variance added in one timestep; where a linear schedule ends.

    Raises:
        ConfigurationError: There is no timestep, or the range of betas is none.
    """

    signal: Tensor
    spread: Tensor

    def __init__(self, *, kind: ScheduleKind, num_timesteps: Count, least_beta: Share, largest_beta: Share) -> None:
        super().__init__()
        least_of_any = 0.0 if kind == "cosine" else math.ulp(0.0)  # a first beta of 0 leaves no noise to predict
        if num_timesteps < 1 or not least_of_any <= least_beta <= largest_beta < 1 or largest_beta == 0:
            raise ConfigurationError(
                f"schedule: expected at least one timestep and 0 <= least_beta <= largest_beta < 1, more than 0 where "
                f"linear, got num_timesteps {num_timesteps}, least_beta {least_beta}, largest_beta {largest_beta}"
            )
        self.kind, self.num_timesteps = kind, num_timesteps
        self.least_beta, self.largest_beta = least_beta, largest_beta
        # A copy for samplers, which need single numbers: reading them from a device would wait for it.
        self.alphas_cumprod = tuple(_CURVES[kind](num_timesteps, beta_range=(least_beta, largest_beta)).tolist())
        exact = torch.tensor(self.alphas_cumprod, dtype=torch.float64)
        self.register_buffer("signal", exact.sqrt().float(), persistent=False)
        self.register_buffer("spread", (1 - exact).sqrt().float(), persistent=False)

    def to_json(self) -> dict[str, Any]:
        """Return what a checkpoint records, so that weights are not used with another schedule."""
        return {
            "kind": self.kind,
            "num_timesteps": self.num_timesteps,
            "least_beta": self.least_beta,
            "largest_beta": self.largest_beta,
        }

    def add_noise(
        self,
        clean: Float[Tensor, "batch *shape"],
        noise: Float[Tensor, "batch *shape"],
        timestep: Integer[Tensor, " batch"],
    ) -> Float[Tensor, "batch *shape"]:
        """Return the noisy volumes at each one's timestep."""
        signal, spread = self.factors(timestep, like=clean)
        return signal * clean + spread * noise

    def target(
        self,
        clean: Float[Tensor, "batch *shape"],
        noise: Float[Tensor, "batch *shape"],
        timestep: Integer[Tensor, " batch"],
        *,
        prediction_type: PredictionType,
    ) -> Float[Tensor, "batch *shape"]:
        """Return what a network of this type is to predict."""
        return target_of(clean, noise, *self.factors(timestep, like=clean), prediction_type=prediction_type)

    def denoised(
        self,
        prediction: Float[Tensor, "batch *shape"],
        noisy: Float[Tensor, "batch *shape"],
        timestep: Integer[Tensor, " batch"],
        *,
        prediction_type: PredictionType,
    ) -> Float[Tensor, "batch *shape"]:
        """Return the clean volumes that a prediction implies."""
        return denoised_of(prediction, noisy, *self.factors(timestep, like=noisy), prediction_type=prediction_type)

    def factors(
        self, timestep: Integer[Tensor, " batch"], *, like: Float[Tensor, "batch *shape"]
    ) -> tuple[Float[Tensor, "batch *ones"], Float[Tensor, "batch *ones"]]:
        """Return signal and spread of each example, shaped to multiply a batch."""
        shape = (-1, *(1 for _ in like.shape[1:]))
        return self.signal[timestep].view(shape), self.spread[timestep].view(shape)


Factor = float | Float[Tensor, "batch *ones"]


def target_of(
    clean: Float[Tensor, "*shape"],
    noise: Float[Tensor, "*shape"],
    signal: Factor,
    spread: Factor,
    *,
    prediction_type: PredictionType,
) -> Float[Tensor, "*shape"]:
    """Return noise ("epsilon"), clean volume ("x0") or velocity ("v": signal * noise - spread * clean).

    Source:
        Velocity: Salimans and Ho, ICLR 2022, appendix D.
    """
    if prediction_type == "epsilon":
        return noise
    return clean if prediction_type == "x0" else signal * noise - spread * clean


def denoised_of(
    prediction: Float[Tensor, "*shape"],
    noisy: Float[Tensor, "*shape"],
    signal: Factor,
    spread: Factor,
    *,
    prediction_type: PredictionType,
) -> Float[Tensor, "*shape"]:
    """Return the clean volume that a prediction implies; "epsilon" divides by the signal, which ends near zero."""
    if prediction_type == "epsilon":
        return (noisy - spread * prediction) / signal
    return prediction if prediction_type == "x0" else signal * noisy - spread * prediction

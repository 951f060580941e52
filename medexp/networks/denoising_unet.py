"""Predict what noise hides of a dose: the dose U-Net, told how noisy its input is."""

import math

import torch
from jaxtyping import Float, Integer
from torch import Tensor, cat, nn

from medexp.networks.film_blocks import TOTAL_STRIDE, FilmUNet, embed
from medexp.types import Count

_EMBEDDING_FEATURES = 128  # of the timestep and of the constraints, each
_LONGEST_PERIOD = 10_000.0


class DenoisingUNet(nn.Module):
    """Noise, clean dose or velocity from a noisy dose and its condition.

    Args:
        in_channels: The noisy dose, the CT and a signed distance per structure.
        out_channels: 1.
        num_constraints: Length of the protocol's vector.
        base_features: Features of the full-resolution level; a multiple of 8.

    Raises:
        ConfigurationError: `base_features` is no multiple of 8; in use, a side of the image is none of 16.

    Source:
        `SimpleUNet3D` of the VMAT dose system; the number of parameters agrees
        (tests/networks/test_denoising_unet.py). Timesteps: Ho et al., NeurIPS 2020.
    """

    total_stride = TOTAL_STRIDE

    def __init__(self, in_channels: int, out_channels: int, num_constraints: int, *, base_features: Count) -> None:
        super().__init__()
        self.unet = FilmUNet(
            in_channels, out_channels, embedding_features=2 * _EMBEDDING_FEATURES, base_features=base_features
        )
        self.num_waves = base_features
        self.embed_timestep = embed(base_features, _EMBEDDING_FEATURES)
        self.embed_constraints = embed(num_constraints, _EMBEDDING_FEATURES)

    def forward(
        self,
        noisy_and_condition: Float[Tensor, "batch channel i j k"],
        timestep: Integer[Tensor, " batch"],
        constraints: Float[Tensor, "batch constraint"],
    ) -> Float[Tensor, "batch output i j k"]:
        """Return the prediction; the first channel is the noisy dose."""
        waves = waves_of(timestep, self.num_waves).to(constraints.dtype)
        embedding = cat((self.embed_timestep(waves), self.embed_constraints(constraints)), dim=1)
        return self.unet(noisy_and_condition, embedding)


def waves_of(timestep: Integer[Tensor, " batch"], num_waves: int) -> Float[Tensor, "batch wave"]:
    """Return sines, then cosines, of the timestep, with periods from 2 pi to 10,000 times as much.

    Source:
        Vaswani et al., NeurIPS 2017, section 3.5.
    """
    half = num_waves // 2
    exponents = torch.arange(half, device=timestep.device, dtype=torch.float32) / half
    angles = timestep[:, None].float() * torch.exp(-math.log(_LONGEST_PERIOD) * exponents)
    return cat((angles.sin(), angles.cos()), dim=1)

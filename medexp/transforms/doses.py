"""From Hounsfield units to what a network of doses gets, and what lies outside of a volume."""

import torch
from jaxtyping import Float32, Int16
from torch import Tensor

from medexp.transforms.intensity import add_noise

AIR_HU, METAL_HU = -1000, 3000  # what is darker or brighter is not told apart
AIR, BRIGHTEST = 0.25, 1.25  # the same, as a network gets them
FAR = 1.0  # a signed distance, as a share of its clip, outside of the volume
_SPAN_HU, _MIDDLE = 4000.0, 0.5


def normalize_ct(ct_hu: Int16[Tensor, "*region"], out: Float32[Tensor, "*region"]) -> None:
    """Fill `out` with clip(HU, -1000, 3000) / 4000 + 0.5, which is 0.25 for air and 0.5 for water."""
    out.copy_(ct_hu)
    out.clamp_(AIR_HU, METAL_HU).div_(_SPAN_HU).add_(_MIDDLE)


def add_ct_noise(ct: Float32[Tensor, "*patch"], *, deviation: float, seed: int) -> None:
    """Add normal noise to a normalized CT, in place; the sum is clipped as Hounsfield units are.

    Args:
        ct: Changed.
        deviation: Of the noise, in units of the normalized CT: 0.02 are 80 HU.
        seed: Of the noise.
    """
    add_noise(ct, deviation=deviation, generator=torch.Generator(ct.device).manual_seed(seed))
    ct.clamp_(AIR, BRIGHTEST)

"""A contract, settings and batches for tests of dose models."""

from functools import partial
from typing import Any

import torch

from medexp.diffusion.objective import DenoisingLoss
from medexp.diffusion.samplers import Ddim
from medexp.diffusion.scaling import DoseScale
from medexp.diffusion.schedules import NoiseSchedule
from medexp.inference.sliding_window import SlidingWindow
from medexp.keys import CASE, CONSTRAINTS, DOSE, IMAGE, POSSIBLE, SPACING
from medexp.losses.doses import DoseLoss, SquaredError
from medexp.losses.weighting import FixedWeights
from medexp.models.curriculum import Phase, constant
from medexp.networks.denoising_unet import DenoisingUNet
from medexp.networks.dose_unet import DoseUNet
from medexp.types import DoseContract, Plan

SIZE = 16
CONTRACT = DoseContract(
    name="toy",
    structures=("PTV70", "Femur_L", "Femur_R"),
    targets={"PTV70": 70.0},
    mirrored=(("Femur_L", "Femur_R"),),
    num_constraints=13,
    prescription_gy=70.0,
    distance_clip_mm=50.0,
    plan=Plan((2.0, 2.0, 3.0), (SIZE, SIZE, SIZE), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3), (3, 3, 3))),
    patch_size=(SIZE, SIZE, SIZE),
)
LOSS = partial(
    DoseLoss,
    terms={"mse": partial(SquaredError, negative_dose_weight=0.1)},
    combine=partial(FixedWeights, weights={"mse": 1.0}),
)


def phase(**changes: Any) -> Phase:
    values = {
        "max_epochs": 1,
        "accumulate_grad_batches": 1,
        "freeze": [],
        "optimizer": partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01),
        "schedule": constant,
        "warmup_steps": 0,
    }
    return Phase(**{**values, **changes})


def settings(**changes: Any) -> dict[str, Any]:
    """Return what both kinds of models take."""
    values = {
        "contract": CONTRACT,
        "phase": "stage_1",
        "weights": None,
        "weights_sha256": None,
        "weights_channels": None,
        "min_weight_coverage": 0.99,
        "compile": False,
        "channels_last": False,
        "window": SlidingWindow(overlap=0.5, batch_size=1, skip_background=True),
        "gamma_proxy_subsample": None,
        "monitor": "val/mae_gy",
        "monitor_mode": "min",
        "curriculum": {"stage_1": phase(), "stage_2": phase()},
    }
    return {**values, **changes}


def regression_settings(**changes: Any) -> dict[str, Any]:
    own = {"network": partial(DoseUNet, base_features=8), "loss": LOSS}
    return settings(**{**own, **changes})


def diffusion_settings(**changes: Any) -> dict[str, Any]:
    own = {
        "network": partial(DenoisingUNet, base_features=8),
        "schedule": NoiseSchedule(kind="cosine", num_timesteps=100, least_beta=0.0, largest_beta=0.999),
        "scale": DoseScale(center=0.6, half_width=0.6),
        "prediction_type": "x0",
        "loss": partial(DenoisingLoss, negative_dose_weight=0.1),
        "sampler": Ddim(num_steps=4),
        "noise_seed": 0,
    }
    return settings(**{**own, **changes})


def batch(size: tuple[int, int, int] = (SIZE, SIZE, SIZE), *, seed: int = 0) -> dict[str, Any]:
    """Return two cases: a target in the middle of tissue, its dose, and a femur on either side."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, side) for side in size], indexing="ij")
    distance = torch.stack(axes).square().sum(0).sqrt()
    left, right = (((axes[0] - place) ** 2 + axes[1] ** 2 + axes[2] ** 2).sqrt() for place in (-0.7, 0.7))
    ct = 0.5 + 0.02 * torch.randn(size, generator=generator)
    image = torch.stack([ct, *(one.clamp(-1, 1) for one in (distance - 0.4, left - 0.2, right - 0.2))])
    dose = (1.1 - distance).clamp(0, 1)[None]
    return {
        IMAGE: torch.stack([image, image]),
        DOSE: torch.stack([dose, dose]),
        POSSIBLE: torch.ones((2, *size), dtype=torch.bool),
        SPACING: torch.tensor([CONTRACT.plan.spacing_mm] * 2),
        CONSTRAINTS: torch.rand((2, 13), generator=generator),
        CASE: ["one", "two"],
    }

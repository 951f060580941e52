"""A small segmentation model and the contract that it is completed with."""

from functools import partial
from typing import Any

import torch
from torch import nn

from medexp.inference.sliding_window import SlidingWindow
from medexp.losses.overlap import DiceCrossEntropy
from medexp.models.curriculum import Phase, constant, polynomial
from medexp.models.segmentation import Segmentation
from medexp.networks.unet import UNet
from medexp.types import DataContract, Plan

PLAN = Plan(
    spacing_mm=(1.0, 1.0, 1.0),
    patch_size=(16, 16, 16),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernel_sizes=((3, 3, 3),) * 3,
)
CONTRACT = DataContract(
    name="toy",
    channels=("t1", "t2"),
    labels={"core": 1, "edema": 2},
    regions={"whole": ("core", "edema")},
    label_weights={"edema": 2.0},
    plan=PLAN,
    patch_size=(16, 16, 16),
)
UNET = partial(UNet, base_features=4, max_features=16, convs_per_level=1)
WINDOW = SlidingWindow(overlap=0.5, batch_size=1, skip_background=True)


def phase(**changes: Any) -> Phase:
    """Return a phase that trains everything at a constant rate."""
    values: dict[str, Any] = {
        "max_epochs": 2,
        "accumulate_grad_batches": 1,
        "freeze": (),
        "optimizer": partial(torch.optim.AdamW, lr=1e-2),
        "schedule": constant,
        "warmup_steps": 0,
    }
    return Phase(**{**values, **changes})


def settings(**changes: Any) -> dict[str, Any]:
    """Return what conf/model/unet3d.yaml says, smaller."""
    values: dict[str, Any] = {
        "network": UNET,
        "head": "heads",
        "weights": None,
        "weights_sha256": None,
        "weights_channels": None,
        "min_weight_coverage": 0.99,
        "monitor": "val/dice/mean",
        "monitor_mode": "max",
        "loss": partial(DiceCrossEntropy, dice_weight=1.0, cross_entropy_weight=1.0, smooth=1e-5),
        "weigh_labels": True,
        "deep_supervision": True,
        "compile": False,
        "channels_last": False,
        "window": WINDOW,
        "curriculum": {
            "stage_1": phase(freeze=("encoder",), schedule=partial(polynomial, power=0.9)),
            "stage_2": phase(),
        },
    }
    return {**values, **changes}


def build(*, contract: DataContract = CONTRACT, phase: str | None = "stage_2", **changes: Any) -> Segmentation:
    """Return a model with reproducible random weights."""
    torch.manual_seed(0)
    return Segmentation(contract=contract, phase=phase, **settings(**changes))


def batch(*, size: int = 16, cases: int = 2, seed: int = 0) -> dict[str, Any]:
    """Return images whose labels follow from the first channel."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(cases, 2, size, size, size, generator=generator)
    image = nn.functional.avg_pool3d(image, 3, 1, 1) * 5
    label = (image[:, 0] > 0.6).to(torch.uint8) + (image[:, 0] > 1.4).to(torch.uint8)
    return {"image": image, "label": label, "case": [f"case_{index}" for index in range(cases)]}

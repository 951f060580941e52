"""A small dose dataset's contract and inputs with structures where a test wants them."""

import torch

from medexp.types import DoseContract, Plan

STRUCTURES = ("PTV70", "PTV56", "Rectum", "Bladder")
CONTRACT = DoseContract(
    name="vmat",
    structures=STRUCTURES,
    targets={"PTV56": 56.0, "PTV70": 70.0},
    mirrored=(),
    num_constraints=13,
    prescription_gy=70.0,
    distance_clip_mm=50.0,
    plan=Plan(spacing_mm=(1.0, 1.0, 1.0), patch_size=(16, 16, 16), strides=((1, 1, 1),), kernel_sizes=((3, 3, 3),)),
    patch_size=(16, 16, 16),
)


def image_of(size, *, batch=1, **distances):
    """Return inputs in which a structure has the given signed distances in mm, others are absent."""
    image = torch.ones(batch, 1 + len(STRUCTURES), *size)
    for name, distance in distances.items():
        image[:, CONTRACT.channel_of(name)] = torch.as_tensor(distance, dtype=torch.float32) / 50.0
    return image


def mask_distances(mask, *, inside=-20.0, outside=20.0):
    return torch.where(mask, inside, outside)


def random_case(*, size=(6, 5, 7), batch=2, seed=0, dtype=torch.float32):
    """Return a prediction, a target and inputs with all structures, at random places."""
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.rand(2, batch, 1, *size, generator=generator, dtype=dtype)
    image = torch.rand(batch, 1 + len(STRUCTURES), *size, generator=generator, dtype=dtype) * 2 - 1
    return prediction, target, image

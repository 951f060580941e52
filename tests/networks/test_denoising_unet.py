"""The denoising U-Net: its published size, its sense of time, and that it can learn."""

import io

import pytest
import torch
from torch.nn import functional as F

from medexp.errors import ConfigurationError
from medexp.networks.denoising_unet import DenoisingUNet, waves_of


def small(seed=0):
    torch.manual_seed(seed)
    return DenoisingUNet(3, 1, 5, base_features=8)


def inputs(size=(16, 16, 16), timesteps=(3, 700), seed=0):
    generator = torch.Generator().manual_seed(seed)
    batch = len(timesteps)
    image = torch.randn(batch, 3, *size, generator=generator)
    return image, torch.tensor(timesteps), torch.randn(batch, 5, generator=generator)


@pytest.mark.parametrize(
    ("channels", "base", "expected"),
    [
        (10, 24, 6_151_297),
        (10, 32, 10_731_905),
        (10, 48, 23_705_857),
        (11, 24, 6_151_969),
        (11, 32, 10_732_801),
        (11, 48, 23_707_201),
    ],
)
def test_has_the_published_number_of_parameters(channels, base, expected):
    network = DenoisingUNet(channels, 1, 13, base_features=base)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_waves_are_monais():
    from monai.networks.nets.diffusion_model_unet import get_timestep_embedding

    timesteps = torch.tensor([0, 1, 499, 999])
    cosines, sines = get_timestep_embedding(timesteps, 48).chunk(2, dim=1)
    assert torch.allclose(waves_of(timesteps, 48), torch.cat((sines, cosines), dim=1), atol=5e-4)


def test_waves_tell_all_timesteps_apart():
    waves = waves_of(torch.arange(1000), 16)
    distances = torch.cdist(waves, waves).fill_diagonal_(1.0)
    assert distances.min().item() > 0.1


@pytest.mark.parametrize("changed", ["timestep", "constraints"])
def test_timestep_and_constraints_change_the_prediction(changed):
    image, timestep, constraints = inputs()
    network = small()
    other = (image, timestep + 100, constraints) if changed == "timestep" else (image, timestep, constraints + 1)
    assert not torch.allclose(network(image, timestep, constraints), network(*other))


def test_each_example_has_a_timestep_of_its_own():
    image, timestep, constraints = inputs()
    network = small()
    alone = network(image[1:], timestep[1:], constraints[1:])
    assert torch.allclose(network(image, timestep, constraints)[1:], alone, atol=1e-5)


def test_loss_falls_on_one_batch():
    network, given = small(), inputs()
    target = given[0][:, :1] - given[0][:, 1:2]
    optimizer, losses = torch.optim.AdamW(network.parameters(), lr=1e-2), []
    for _ in range(15):
        loss = F.mse_loss(network(*given), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_saved_and_loaded_weights_give_the_same_prediction():
    network, other, file = small(0), small(1), io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(network(*inputs()), other(*inputs()))


def test_refuses_sides_that_the_pools_would_round():
    with pytest.raises(ConfigurationError, match=r"dataset\.patch_size.*got \(16, 16, 8\)"):
        small()(*inputs((16, 16, 8)))

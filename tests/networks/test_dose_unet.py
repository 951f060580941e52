"""The dose U-Net: its published size, its blocks by hand, its variants, and that it can learn."""

import io

import pytest
import torch
from torch.nn import functional as F

from medexp.errors import ConfigurationError
from medexp.networks.dose_unet import DoseUNet
from medexp.networks.film_blocks import AttentionGate, FilmBlock, SelfAttention, enlarge

VARIANTS = [
    pytest.param({}, id="plain"),
    pytest.param({"attention_gates": True}, id="gates"),
    pytest.param({"bottleneck_attention": True}, id="attention"),
    pytest.param({"attention_gates": True, "bottleneck_attention": True}, id="both"),
]


def small(seed=0, **changes):
    torch.manual_seed(seed)
    return DoseUNet(3, 1, 5, **{"base_features": 8, **changes})


def inputs(size=(16, 16, 16), batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *size, generator=generator), torch.randn(batch, 5, generator=generator)


def num_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("base", "expected"), [(24, 6_181_985), (32, 10_761_345), (48, 23_732_801)])
def test_has_the_published_number_of_parameters(base, expected):
    assert num_parameters(DoseUNet(9, 1, 13, base_features=base)) == expected


def test_a_ninth_structure_adds_its_first_convolution_and_shortcut():
    more, less = (num_parameters(DoseUNet(channels, 1, 13, base_features=24)) for channels in (10, 9))
    assert more - less == 24 * 27 + 24


@pytest.mark.parametrize("variant", VARIANTS)
def test_output_has_the_images_size(variant):
    image, constraints = inputs((32, 16, 48))
    assert small(**variant)(image, constraints).shape == (2, 1, 32, 16, 48)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_a_gradient(variant):
    network = small(**variant)
    if network.unet.attention is not None:  # whose way out starts at zero
        torch.nn.init.normal_(network.unet.attention.project.weight)
    network(*inputs((32, 32, 32))).square().mean().backward()
    assert [name for name, value in network.named_parameters() if not value.grad.abs().max() > 0] == []


def test_block_is_what_the_formula_says():
    torch.manual_seed(0)
    block, features, modulation = FilmBlock(3, 8, 6), torch.randn(2, 3, 4, 4, 4), torch.randn(2, 6)
    scale, shift = block.modulate(modulation)[:, :8], block.modulate(modulation)[:, 8:]

    def norm(values, layer):
        groups = values.reshape(2, 8, -1)
        centered = groups - groups.mean(2, keepdim=True)
        scaled = centered / (centered.square().mean(2, keepdim=True) + 1e-5).sqrt()
        return scaled.reshape(values.shape) * layer.weight.view(8, 1, 1, 1) + layer.bias.view(8, 1, 1, 1)

    hidden = norm(block.convolve_1(features), block.norm_1)
    hidden = hidden * torch.sigmoid(hidden)
    hidden = hidden * (1 + scale.view(2, 8, 1, 1, 1)) + shift.view(2, 8, 1, 1, 1)
    hidden = norm(block.convolve_2(hidden), block.norm_2)
    expected = hidden * torch.sigmoid(hidden) + block.shortcut(features)
    assert torch.allclose(block(features, modulation), expected, atol=1e-5)


def test_constraints_change_the_dose():
    image, constraints = inputs()
    network = small()
    assert not torch.allclose(network(image, constraints), network(image, constraints + 1))


def test_examples_do_not_see_each_other():
    image, constraints = inputs()
    network = small().eval()
    assert torch.allclose(network(image, constraints)[:1], network(image[:1], constraints[:1]), atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_prediction_without_gradients_gives_the_same(variant):
    network = small(**variant)
    image, constraints = inputs()
    before = image.clone()
    trained = network(image, constraints)
    with torch.no_grad():
        predicted = network(image, constraints)
    assert torch.allclose(predicted, trained, atol=1e-6)
    assert torch.equal(image, before)


def test_channels_last_gives_the_same():
    network, (image, constraints) = small(), inputs()
    expected = network(image, constraints)
    network.to(memory_format=torch.channels_last_3d)
    found = network(image.to(memory_format=torch.channels_last_3d), constraints)
    assert torch.allclose(found, expected, atol=1e-5)


def test_low_precision_inside_does_not_round_the_dose():
    network, (image, constraints) = small(), inputs()
    with torch.no_grad():
        network.unet.head.bias.fill_(1.0)  # where neighbors in bfloat16 are 0.0078 apart
        expected = network(image, constraints)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = network(image, constraints)
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())
    assert torch.allclose(found, expected, atol=0.05)


def test_bottleneck_attention_starts_as_the_plain_network():
    plain, attending = small(), small(bottleneck_attention=True)
    missing = attending.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert all(name.startswith("unet.attention.") for name in missing)
    assert torch.equal(plain(*inputs()), attending(*inputs()))


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    ours, theirs = SelfAttention(16), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        torch.nn.init.normal_(ours.project.weight)
        theirs.in_proj_weight.copy_(ours.query_key_value.weight.flatten(1))
        theirs.in_proj_bias.copy_(ours.query_key_value.bias)
        theirs.out_proj.weight.copy_(ours.project.weight.flatten(1))
        theirs.out_proj.bias.copy_(ours.project.bias)
    features = torch.randn(2, 16, 2, 3, 4)
    tokens = ours.norm(features).flatten(2).transpose(1, 2)  # batch voxel feature
    expected = features + theirs(tokens, tokens, tokens)[0].transpose(1, 2).reshape(features.shape)
    assert torch.allclose(ours(features), expected, atol=1e-5)


def test_gate_is_the_same_as_one_that_enlarges_first():
    torch.manual_seed(0)
    gate, deeper, skip = AttentionGate(6, 4), torch.randn(1, 6, 3, 2, 4), torch.randn(1, 4, 6, 4, 8)
    hidden = F.relu(gate.from_skip(skip) + gate.from_deeper(enlarge(deeper)))
    assert torch.allclose(gate(deeper, skip), skip * gate.weigh(hidden).sigmoid(), atol=1e-5)


def test_loss_falls_on_one_batch():
    network, (image, constraints) = small(), inputs()
    target = image.mean(1, keepdim=True).sigmoid()
    optimizer, losses = torch.optim.AdamW(network.parameters(), lr=1e-2), []
    for _ in range(15):
        loss = F.mse_loss(network(image, constraints), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_and_loaded_weights_give_the_same_dose(variant):
    network, other, file = small(0, **variant), small(1, **variant), io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(network(*inputs()), other(*inputs()))


def test_refuses_sides_that_the_pools_would_round():
    with pytest.raises(ConfigurationError, match=r"dataset\.patch_size.*\(16, 16, 16\).*got \(16, 24, 16\)"):
        small()(*inputs((16, 24, 16)))


@pytest.mark.parametrize("base", [0, 12])
def test_refuses_features_that_the_norms_cannot_group(base):
    with pytest.raises(ConfigurationError, match=rf"base_features: expected a multiple of 8.*got {base}"):
        small(base_features=base)

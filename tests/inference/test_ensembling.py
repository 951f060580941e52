"""Averages over mirrored copies and over models."""

import pytest
import torch
from torch import nn

from medexp.inference.ensembling import average, average_flips, flip_subsets


@pytest.mark.parametrize(("axes", "number"), [(2, 4), (3, 8)])
def test_every_subset_of_axes_is_flipped_once(axes, number):
    subsets = flip_subsets(range(axes))
    assert len(set(subsets)) == len(subsets) == number
    assert subsets[0] == ()


@pytest.mark.parametrize("size", [(5, 6), (5, 6, 7)])
def test_identity_survives_the_flips(size):
    image = torch.randn(2, 3, *size)
    assert torch.allclose(average_flips(nn.Identity(), range(len(size)))(image), image, atol=1e-6)


def test_flipped_average_commutes_with_a_flip():
    torch.manual_seed(0)
    network = average_flips(nn.Conv3d(1, 2, 3, padding=1), (0, 1, 2))
    image = torch.randn(1, 1, 5, 6, 7)
    assert torch.allclose(network(image.flip(3)), network(image).flip(3), atol=1e-5)


def test_flipped_average_is_the_mean_over_copies():
    convolution = nn.Conv2d(1, 1, 3, padding=1)
    image = torch.randn(1, 1, 5, 6)
    copies = [convolution(image.flip(axes)).flip(axes) for axes in ((), (2,), (3,), (2, 3))]
    assert torch.allclose(average_flips(convolution, (0, 1))(image), torch.stack(copies).mean(0), atol=1e-6)
    assert torch.allclose(average_flips(convolution, (1,))(image), torch.stack(copies[::2]).mean(0), atol=1e-6)


def test_average_of_models_is_their_mean():
    outputs = [torch.rand(3, 4) for _ in range(5)]
    wanted = torch.stack(outputs).mean(0)
    assert torch.allclose(average(iter(outputs)), wanted)


def test_average_of_one_is_bit_identical():
    output = torch.rand(3, 4)
    assert torch.equal(average([output]), output)


def test_average_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one output"):
        average([])

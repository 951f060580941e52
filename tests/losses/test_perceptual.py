"""The perceptual loss: which slices it looks at, and how, with a network that can be followed by hand."""

import pytest
import torch
from torch import nn

from medexp.losses.perceptual import SlicePerceptualError
from tests.losses.dose_setting import CONTRACT, image_of, random_case


class Doubled(nn.Module):
    """Two "blocks": the picture, and twice the picture; remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, picture):
        self.seen.append(picture.detach())
        return [picture, 2 * picture]


def loss_of(every=8):
    return SlicePerceptualError(contract=CONTRACT, features=Doubled, every=every)


def test_mean_over_blocks_of_the_squared_difference():
    prediction, target = torch.full((1, 1, 4, 4, 16), 0.7), torch.full((1, 1, 4, 4, 16), 0.5)
    assert loss_of()(prediction, target, image_of((4, 4, 16))).item() == pytest.approx((0.04 + 0.16) / 2, rel=1e-5)


@pytest.mark.parametrize(("num_slices", "expected"), [(16, [3, 11]), (17, [0, 8, 16]), (5, [2]), (1, [0])])
def test_sees_every_eighth_axial_slice_of_every_example(num_slices, expected):
    volume = torch.arange(float(num_slices)).expand(2, 1, 3, 4, num_slices) + torch.tensor([0.0, 100.0]).view(
        2, 1, 1, 1, 1
    )
    loss = loss_of()
    loss(volume, volume, image_of((3, 4, num_slices), batch=2))
    pictures = loss.features.seen[0]
    assert pictures.shape == (2 * len(expected), 1, 3, 4)
    assert pictures[:, 0, 0, 0].tolist() == [*expected, *(100 + index for index in expected)]


def test_equal_doses_cost_nothing():
    _, target, image = random_case()
    assert loss_of(every=2)(target, target, image).item() == 0.0


def test_gradient_agrees_with_finite_differences():
    prediction, target, image = random_case(size=(3, 3, 3), dtype=torch.float64)
    loss = loss_of(every=2)
    assert torch.autograd.gradcheck(lambda dose: loss(dose, target, image), (prediction.requires_grad_(),))

"""Dice and cross-entropy: agreement with MONAI, hand-worked values, low precision."""

import math

import pytest
import torch

from medexp.errors import ConfigurationError
from medexp.losses.overlap import DiceBinaryCrossEntropy, DiceCrossEntropy

SETTINGS = {"dice_weight": 1.0, "cross_entropy_weight": 1.0, "smooth": 1e-5}


def random_case(axes=3, labels=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = (6, 7, 5)[:axes]
    logits = torch.randn(2, labels, *size, generator=generator, requires_grad=True)
    return logits, torch.randint(0, labels, (2, *size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 1.0, 1.5]], ids=["alike", "weighted"])
def test_agrees_with_monai_in_value_and_gradient(axes, weights):
    from monai.losses import DiceCELoss

    logits, target = random_case(axes)
    weight = None if weights is None else torch.tensor(weights)
    theirs = DiceCELoss(
        softmax=True, to_onehot_y=True, smooth_nr=1e-5, smooth_dr=1e-5, weight=weight, lambda_dice=0.7, lambda_ce=1.3
    )(logits, target.unsqueeze(1))
    ours = DiceCrossEntropy(dice_weight=0.7, cross_entropy_weight=1.3, smooth=1e-5, label_weights=weights)(
        logits, target
    )
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    [wanted], [found] = (torch.autograd.grad(loss, logits) for loss in (theirs, ours))
    assert torch.allclose(found, wanted, atol=1e-7)


def test_is_zero_for_a_certain_and_right_segmentation():
    _, target = random_case()
    logits = 40.0 * torch.nn.functional.one_hot(target.long(), 4).movedim(-1, 1).float()
    assert DiceCrossEntropy(**SETTINGS)(logits, target).item() == pytest.approx(0.0, abs=1e-5)


def test_hand_worked_value_of_an_undecided_segmentation():
    target = torch.tensor([[0, 0, 1, 1]], dtype=torch.uint8)
    loss = DiceCrossEntropy(dice_weight=1.0, cross_entropy_weight=1.0, smooth=0.0)(torch.zeros(1, 2, 4), target)
    assert loss.item() == pytest.approx(0.5 + math.log(2))  # Dice 2 * 1 / (2 + 2) for both labels


def test_label_that_neither_side_has_costs_nothing():
    target = torch.zeros(1, 4, dtype=torch.uint8)
    logits = torch.tensor([[[60.0] * 4, [0.0] * 4]])
    assert DiceCrossEntropy(**SETTINGS)(logits, target).item() == pytest.approx(0.0, abs=1e-6)


def test_half_precision_gives_a_finite_float32_loss():
    logits, target = random_case()
    loss = DiceCrossEntropy(**SETTINGS)((1000 * logits.detach()).half(), target)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_autocast_does_not_lower_the_precision():
    logits, target = random_case()
    loss = DiceCrossEntropy(**SETTINGS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(logits, target)
    assert torch.equal(inside, loss(logits, target))


def test_weights_are_no_part_of_a_checkpoint():
    assert DiceCrossEntropy(**SETTINGS, label_weights=[1.0, 2.0]).state_dict() == {}


def test_label_beyond_the_outputs_is_an_error():
    logits, target = random_case()
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        DiceCrossEntropy(**SETTINGS)(logits, target + 4)


@pytest.mark.parametrize(
    "changes", [{"dice_weight": -1.0}, {"label_weights": [0.0, 0.0]}, {"label_weights": [1.0, -1.0]}]
)
def test_refuses_negative_or_vanishing_weights(changes):
    with pytest.raises(ConfigurationError, match="none is negative"):
        DiceCrossEntropy(**{**SETTINGS, **changes})


def binary_case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 1, 9, 11, generator=generator, requires_grad=True)
    return logits, torch.randint(0, 2, (3, 9, 11), generator=generator, dtype=torch.uint8)


def test_binary_loss_agrees_with_monai_and_torch_in_value_and_gradient():
    from monai.losses import DiceLoss

    logits, target = binary_case()
    mask = target.float().unsqueeze(1)
    dice = DiceLoss(sigmoid=True, smooth_nr=1e-6, smooth_dr=1e-6)(logits, mask)
    theirs = 0.4 * dice + 0.6 * torch.nn.BCEWithLogitsLoss()(logits, mask)
    ours = DiceBinaryCrossEntropy(dice_weight=0.4, cross_entropy_weight=0.6, smooth=1e-6)(logits, target)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    [wanted], [found] = (torch.autograd.grad(loss, logits) for loss in (theirs, ours))
    assert torch.allclose(found, wanted, atol=1e-7)


def test_binary_loss_weighs_object_and_background():
    logits, target = binary_case()
    only = {"dice_weight": 0.0, "cross_entropy_weight": 1.0, "smooth": 0.0}
    parts = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], target.float(), reduction="none")
    weights = torch.where(target == 1, 3.0, 0.5)
    found = DiceBinaryCrossEntropy(**only, label_weights=(0.5, 3.0))(logits, target)
    assert found.item() == pytest.approx(((parts * weights).sum() / weights.sum()).item(), abs=1e-6)


def test_binary_loss_of_a_certain_and_right_segmentation_is_zero():
    _, target = binary_case()
    logits = 40.0 * (2.0 * target.float().unsqueeze(1) - 1.0)
    for mask in (target, torch.zeros_like(target)):
        right = 40.0 * (2.0 * mask.float().unsqueeze(1) - 1.0)
        assert DiceBinaryCrossEntropy(**SETTINGS)(right, mask).item() == pytest.approx(0.0, abs=1e-4)
    assert DiceBinaryCrossEntropy(**SETTINGS)(-logits, target).item() > 10.0


def test_binary_loss_in_half_precision_is_finite():
    logits, target = binary_case()
    loss = DiceBinaryCrossEntropy(**SETTINGS)((1000 * logits.detach()).half(), target)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)

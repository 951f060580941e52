"""Losses of a dose: hand-worked values, gradients, and that nothing is asked of structures that are not there."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import ndimage

from medexp.errors import ConfigurationError
from medexp.losses.doses import (
    AbsoluteError,
    AsymmetricTargetError,
    DoseLoss,
    GradientError,
    SquaredError,
    StructureWeightedError,
)
from medexp.losses.dvh_loss import DvhError
from medexp.losses.weighting import FixedWeights, UncertaintyWeights
from tests.losses.dose_setting import CONTRACT, image_of, mask_distances, random_case

TERMS = {
    "mse": partial(SquaredError, negative_dose_weight=0.1),
    "absolute": partial(AbsoluteError, negative_dose_weight=0.1, no_dose_weight=0.1),
    "gradient": GradientError,
    "dvh": partial(
        DvhError,
        d95_weights=[1.0, 0.5, 0.3],
        d95_weight=10.0,
        volumes={"Rectum": [50.0, 60.0], "Bladder": [65.0]},
        volume_weight=2.0,
        mean_weight=1.0,
        num_bins=100,
        temperature=0.1,
    ),
    "structures": partial(
        StructureWeightedError, target_weight=2.0, boundary_weight=1.5, background_weight=0.5, margin_mm=5.0
    ),
    "asymmetric": partial(AsymmetricTargetError, under_dose_weight=3.0, over_dose_weight=1.0),
}


def term(name, **changes):
    return TERMS[name](contract=CONTRACT, **changes)


def left_half(size=(4, 4, 4)):
    mask = torch.zeros(size, dtype=torch.bool)
    mask[:2] = True
    return mask


@pytest.mark.parametrize("name", TERMS)
def test_equal_doses_cost_nothing(name):
    _, target, image = random_case()
    assert term(name)(target, target, image).item() == 0.0


def test_absolute_error_weighs_voxels_without_dose_less():
    target = torch.tensor([0.0, 0.0, 1.0, 1.0]).view(1, 1, 4, 1, 1)
    loss = AbsoluteError(contract=CONTRACT, negative_dose_weight=0.0, no_dose_weight=0.5)
    assert loss(target + 0.3, target, image_of((4, 1, 1))).item() == pytest.approx(0.3)
    only_air = torch.tensor([0.3, 0.3, 1.0, 1.0]).view(1, 1, 4, 1, 1)
    assert loss(only_air, target, image_of((4, 1, 1))).item() == pytest.approx(0.3 * 1.0 / 3.0)


@pytest.mark.parametrize("name", TERMS)
def test_different_doses_cost_something(name):
    prediction, target, image = random_case()
    assert term(name)(prediction * 0.5, target, image).item() > 0.0


@pytest.mark.parametrize("name", TERMS)
def test_gradient_agrees_with_finite_differences(name):
    prediction, target, image = random_case(size=(3, 4, 3), dtype=torch.float64)
    loss = term(name)
    assert torch.autograd.gradcheck(lambda dose: loss(dose, target, image), (prediction.requires_grad_(),))


@pytest.mark.parametrize("name", TERMS)
def test_patch_without_structures_has_a_finite_loss_and_gradient(name):
    prediction, target, _ = random_case()
    prediction.requires_grad_()
    loss = term(name)(prediction, target, image_of((6, 5, 7), batch=2))
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(prediction.grad.isfinite().all())


@pytest.mark.parametrize("name", ["dvh", "asymmetric"])
def test_patch_outside_every_structure_costs_nothing(name):
    prediction, target, _ = random_case()
    assert term(name)(prediction, target, image_of((6, 5, 7), batch=2)).item() == 0.0


@pytest.mark.parametrize("name", [name for name in TERMS if name != "gradient"])
def test_order_of_voxels_does_not_matter(name):
    prediction, target, image = random_case()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    shuffled = [volume[:, :, order] for volume in (prediction, target, image)]
    assert term(name)(*shuffled).item() == pytest.approx(term(name)(prediction, target, image).item(), rel=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_half_precision_gives_a_finite_loss_in_full_precision(name):
    prediction, target, image = random_case()
    loss = term(name)(prediction.bfloat16(), target, image)
    assert loss.dtype == torch.float32
    assert bool(loss.isfinite())


@pytest.mark.parametrize("name", TERMS)
def test_terms_are_no_part_of_a_checkpoint(name):
    assert term(name).state_dict() == {}


def test_squared_error_of_a_negative_dose():
    prediction, target = torch.full((1, 1, 2, 2, 2), -0.2), torch.full((1, 1, 2, 2, 2), 0.3)
    assert term("mse")(prediction, target, image_of((2, 2, 2))).item() == pytest.approx(0.25 + 0.1 * 0.2)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gradient_of_a_ramp_is_its_slope_along_one_axis_of_three(axis):
    shape = [1, 1, 1, 1, 1]
    shape[2 + axis] = 6
    ramp = (0.3 * torch.arange(6.0)).view(shape).expand(1, 1, 6, 6, 6)
    loss = term("gradient")(ramp, torch.zeros(1, 1, 6, 6, 6), image_of((6, 6, 6)))
    assert loss.item() == pytest.approx(0.3 / 3, rel=1e-5)


def test_gradient_agrees_with_scipys_sobel_filters():
    prediction, target, image = random_case(batch=1)
    error = (prediction - target)[0, 0].numpy()
    sobel = [ndimage.sobel(error, axis=axis)[1:-1, 1:-1, 1:-1] / 32 for axis in range(3)]
    assert term("gradient")(prediction, target, image).item() == pytest.approx(np.abs(sobel).mean(), rel=1e-5)


def test_gradient_of_a_patch_too_small_for_the_filters_is_nothing():
    prediction, target, image = random_case(size=(2, 5, 5))
    assert term("gradient")(prediction, target, image).item() == 0.0


def test_structure_weights_put_target_before_boundary_before_background():
    line = torch.tensor([-20.0, -4.0, 4.9, 20.0]).view(4, 1, 1)
    target = torch.tensor([1.0, 1.0, -1.0, 1.0]).view(4, 1, 1)
    weights = term("structures").weights(image_of((4, 1, 1), Rectum=line, PTV56=target))
    assert weights.flatten().tolist() == [0.5, 1.5, 2.0, 0.5]


def test_structure_weights_multiply_the_squared_error():
    prediction, target = torch.full((1, 1, 4, 4, 4), 0.5), torch.zeros(1, 1, 4, 4, 4)
    image = image_of((4, 4, 4), PTV70=mask_distances(left_half()))
    assert term("structures")(prediction, target, image).item() == pytest.approx(0.25 * (2.0 + 0.5) / 2)


def test_too_little_dose_in_a_target_costs_three_times_as_much_as_too_much():
    image = image_of((4, 4, 4), PTV56=mask_distances(left_half()))
    target = torch.full((1, 1, 4, 4, 4), 0.8)
    under, over = (term("asymmetric")(target + change, target, image).item() for change in (-0.1, 0.1))
    assert (under, over) == pytest.approx((0.03, 0.01), rel=1e-4)


def test_asymmetric_error_looks_at_targets_only():
    image = image_of((4, 4, 4), PTV70=mask_distances(left_half()), Rectum=-10.0)
    prediction = torch.where(left_half(), 1.0, 0.2)[None, None]
    assert term("asymmetric")(prediction, torch.ones(1, 1, 4, 4, 4), image).item() == 0.0


def combined(combine=None, names=("mse", "asymmetric")):
    rule = combine or partial(FixedWeights, weights={"mse": 1.0, "asymmetric": 0.5})
    return DoseLoss(contract=CONTRACT, terms={name: TERMS[name] for name in names}, combine=rule)


def test_terms_are_added_with_their_weights():
    prediction, target, image = random_case()
    parts = combined().parts(prediction, target, image)
    assert list(parts) == ["mse", "asymmetric"]
    expected = parts["mse"] + 0.5 * parts["asymmetric"]
    assert combined()(prediction, target, image).item() == pytest.approx(expected.item())


def test_loss_without_learned_weights_has_no_parameters():
    assert list(combined().parameters()) == []


def test_loss_with_learned_weights_has_those_only():
    loss = combined(UncertaintyWeights)
    assert [name for name, _ in loss.named_parameters()] == ["weigh.log_variances"]


def test_autocast_does_not_lower_the_precision():
    prediction, target, image = random_case()
    loss = combined(partial(FixedWeights, weights=dict.fromkeys(TERMS, 1.0)), names=tuple(TERMS))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(prediction, target, image)
    assert torch.equal(inside, loss(prediction, target, image))


def test_refuses_a_loss_without_terms():
    with pytest.raises(ConfigurationError, match="at least one term"):
        DoseLoss(contract=CONTRACT, terms={}, combine=UncertaintyWeights)

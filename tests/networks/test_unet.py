"""The planned U-Net: nnU-Net's numbers, any dimension, outputs per level."""

import pytest
import torch

from medexp.errors import ConfigurationError
from medexp.networks.unet import UNet

BRATS_STRIDES = ((1, 1, 1), *((2, 2, 2),) * 4, (2, 2, 1))


def small(*, axes: int = 3, **changes) -> UNet:
    settings = {
        "strides": ((1,) * axes, (2,) * axes, (2,) * axes),
        "kernel_sizes": ((3,) * axes,) * 3,
        "base_features": 4,
        "max_features": 8,
        "convs_per_level": 2,
    }
    return UNet(2, 3, **{**settings, **changes})


def test_has_as_many_parameters_as_nnunets_plain_unet():
    network = UNet(
        4,
        5,
        strides=BRATS_STRIDES,
        kernel_sizes=((3, 3, 3),) * 6,
        base_features=32,
        max_features=320,
        convs_per_level=2,
        deep_supervision=True,
    )
    assert sum(parameter.numel() for parameter in network.parameters()) == 30_791_001


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_keeps_the_size_in_any_dimension(axes):
    assert small(axes=axes)(torch.randn(2, 2, *(8,) * axes)).shape == (2, 3, *(8,) * axes)


def test_has_an_output_per_level_but_the_deepest_while_training_with_deep_supervision():
    outputs = small(deep_supervision=True)(torch.randn(1, 2, 8, 8, 8))
    assert [tuple(output.shape[2:]) for output in outputs] == [(8, 8, 8), (4, 4, 4)]


def test_has_one_output_in_evaluation():
    network = small(deep_supervision=True)
    image = torch.randn(1, 2, 8, 8, 8)
    supervised = network(image)[0]
    assert torch.equal(network.eval()(image), supervised)


def test_strides_and_kernels_may_differ_by_axis():
    network = small(strides=((1, 1, 1), (2, 2, 1), (2, 2, 1)), kernel_sizes=((3, 3, 1), (3, 3, 1), (3, 3, 3)))
    assert network.total_stride == (4, 4, 1)
    assert network(torch.randn(1, 2, 8, 8, 5)).shape == (1, 3, 8, 8, 5)


def test_features_never_exceed_the_maximum():
    assert max(parameter.shape[0] for parameter in small().encoder.parameters()) == 8


def test_refuses_a_size_that_the_strides_do_not_divide():
    with pytest.raises(ConfigurationError, match=r"multiples of \(4, 4, 4\).*got \(8, 8, 10\)"):
        small()(torch.randn(1, 2, 8, 8, 10))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"strides": ((2, 2, 2), (2, 2, 2), (2, 2, 2))}, id="first level strides"),
        pytest.param({"strides": ((1, 1, 1), (2, 2, 2))}, id="a level too few"),
        pytest.param({"strides": ((1, 1), (2, 2), (2, 2))}, id="axes differ"),
        pytest.param({"kernel_sizes": ((3, 3, 3), (3, 3, 3), (3, 3, 2))}, id="even kernel"),
    ],
)
def test_refuses_a_plan_that_does_not_fit_together(changes):
    with pytest.raises(ConfigurationError, match=r"model\.network"):
        small(**changes)

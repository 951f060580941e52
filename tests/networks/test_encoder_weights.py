"""ImageNet's weights in an encoder: the file's layout is torchvision's, made here; nothing is fetched."""

from functools import partial

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file

from medexp.errors import CheckpointMismatchError, ConfigurationError
from medexp.inference.decisions import Sigmoid
from medexp.losses.overlap import DiceBinaryCrossEntropy
from medexp.models.segmentation import Segmentation
from medexp.networks.pretrained import load_part
from medexp.networks.weights import read_weights
from medexp.runs.files import sha256_of
from medexp.types import DataContract, Plan
from tests.synthetic.segmentation import settings

PLAN = Plan((1.0, 1.0), (64, 64), ((1, 1), (2, 2)), ((3, 3), (3, 3)))
CONTRACT = DataContract("wells", ("gray",), {"spheroid": 1}, {}, {}, PLAN, (64, 64))
NETWORK = partial(smp.Unet, encoder_name="resnet18", encoder_weights=None)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A file as torchvision writes it: three input channels and a classifier."""
    torch.manual_seed(1)
    encoder = smp.encoders.get_encoder("resnet18", in_channels=3, weights=None)
    tensors = {**encoder.state_dict(), "fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def model(**changes):
    values = settings(
        network=NETWORK,
        head=None,
        loss=partial(DiceBinaryCrossEntropy, dice_weight=0.5, cross_entropy_weight=0.5, smooth=1e-6),
        deep_supervision=False,
        weights_part="encoder",
        decision=Sigmoid(0.5),
        **changes,
    )
    return Segmentation(contract=CONTRACT, phase=None, **values)


def test_the_network_is_segoids():
    assert sum(weight.numel() for weight in model().network.parameters()) == 14_321_937


def test_gray_gives_what_equal_colors_give(imagenet):
    colored = smp.Unet("resnet18", encoder_weights=None, in_channels=3, classes=1).eval()
    load_part(colored, read_weights(imagenet), part="encoder", min_coverage=0.99)
    gray = model(weights=str(imagenet), weights_sha256=sha256_of(imagenet)).network.eval()
    image = torch.rand(1, 1, 64, 64)
    for ours, theirs in zip(gray.encoder(image), colored.encoder(image.expand(1, 3, 64, 64)), strict=True):
        if ours.shape == theirs.shape:  # the first is the image itself
            assert torch.allclose(ours, theirs, atol=1e-4)


def test_the_report_says_what_was_summed_and_what_was_left_over(imagenet):
    report = model(weights=str(imagenet)).weights_report
    assert "1 summed over colors for gray images (conv1.weight)" in report
    assert "2 unexpected (fc.bias, fc.weight)" in report
    assert sha256_of(imagenet) in report


def test_another_file_is_refused_by_its_digest(imagenet):
    with pytest.raises(CheckpointMismatchError, match="expected sha256"):
        model(weights=str(imagenet), weights_sha256="0" * 64)


def test_weights_of_another_encoder_are_refused(imagenet):
    other = smp.Unet("resnet34", encoder_weights=None, in_channels=1, classes=1)
    with pytest.raises(CheckpointMismatchError, match="at least 99 % of the values of encoder"):
        load_part(other, read_weights(imagenet), part="encoder", min_coverage=0.99)


def test_a_part_that_is_not_there_is_named(imagenet):
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=1)
    with pytest.raises(ConfigurationError, match="expected one of .*encoder.*, got 'enocder'"):
        load_part(network, read_weights(imagenet), part="enocder", min_coverage=0.99)

"""Foreign weights: every value is accounted for, channels are permuted by name, the head starts anew."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medexp.errors import CheckpointMismatchError, ConfigurationError
from medexp.networks.pretrained import find_input_weights, load_all, load_weights, match_channels, reset_head
from medexp.networks.weights import Weights

TRAINED_ON = ("t1c", "t1n", "t2w", "t2f")


class Net(nn.Module):
    """An input convolution, a body, a head."""

    def __init__(self, inputs: int = 4, outputs: int = 3, body: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv3d(inputs, 8, 3, padding=1)
        self.body = nn.Sequential(nn.Conv3d(8, body, 3, padding=1), nn.BatchNorm3d(body))
        self.head = nn.Conv3d(body, outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(self.stem(image)))


def weights_of(tensors: Mapping[str, Tensor]) -> Weights:
    return Weights(path=Path("weights.pt"), sha256="0" * 64, tensors=dict(tensors))


def load(network, tensors, **changes):
    return load_weights(network, weights_of(tensors), **{"head": "head", "min_coverage": 0.99, **changes})


def test_equal_network_is_loaded_whole():
    source, target = Net(), Net()
    coverage = load(target, source.state_dict())
    assert (coverage.share, coverage.missing, coverage.unexpected, coverage.replaced) == (1.0, (), (), ())
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())


def test_head_with_other_labels_starts_anew_and_the_rest_is_loaded():
    source, target = Net(outputs=3), Net(outputs=5)
    coverage = load(target, source.state_dict())
    assert coverage.replaced == ("head.weight", "head.bias")
    assert coverage.share == 1.0
    assert torch.equal(target.stem.weight, source.stem.weight)
    assert not target.head.bias.any()


def test_new_head_is_kaiming_normal_over_its_outputs():
    network = nn.ModuleDict({"head": nn.Conv3d(400, 50, 1)})
    reset_head(network, "head")
    assert network["head"].weight.std().item() == pytest.approx((2 / 50) ** 0.5, rel=0.02)


@pytest.mark.parametrize("prefix", ["module.", "network.", "module.network.", "_orig_mod.", "model.module."])
def test_wrappers_prefixes_are_dropped(prefix):
    source = Net()
    coverage = load(Net(), {prefix + name: value for name, value in source.state_dict().items()})
    assert coverage.share == 1.0


def test_names_that_begin_like_a_wrapper_are_kept():
    source, target = (nn.Sequential() for _ in range(2))
    source.add_module("model", Net())
    target.add_module("model", Net())
    assert load(target, source.state_dict(), head="model.head").share == 1.0


def test_two_tensors_for_one_name_are_refused():
    tensors = Net().state_dict()
    with pytest.raises(CheckpointMismatchError, match=r"one tensor for stem\.weight, got several"):
        load(Net(), {**tensors, "module.stem.weight": tensors["stem.weight"]})


def test_report_names_what_is_missing_unexpected_and_of_another_shape():
    tensors = dict(Net(body=4).state_dict())
    tensors["foreign.weight"] = torch.zeros(2)
    del tensors["stem.bias"]
    coverage = load(Net(body=8), tensors, min_coverage=0.0)
    assert "stem.bias" in coverage.missing
    assert coverage.unexpected == ("foreign.weight",)
    assert ("body.0.weight", (4, 8, 3, 3, 3), (8, 8, 3, 3, 3)) in coverage.mismatched
    assert coverage.loaded == ("stem.weight", "body.1.num_batches_tracked")


def test_share_counts_values_and_not_tensors():
    tensors = {name: value for name, value in Net().state_dict().items() if not name.startswith("body.0")}
    coverage = load(Net(), tensors, min_coverage=0.0)
    body, stem, norm = 8 * 8 * 27 + 8, 4 * 8 * 27 + 8, 4 * 8 + 1
    assert coverage.share == pytest.approx((stem + norm + 27) / (body + stem + norm + 27))  # 27: the head


def test_weights_that_cover_too_little_are_refused_and_change_nothing():
    target = Net()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    tensors = {name: value for name, value in Net().state_dict().items() if name.startswith("stem")}
    with pytest.raises(CheckpointMismatchError, match=r"at least 99 %.*model\.min_weight_coverage.*missing"):
        load(target, tensors)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


@pytest.mark.parametrize("order", [("t2f", "t1n", "t1c", "t2w"), ("t1n", "t1c", "t2f", "t2w"), TRAINED_ON])
def test_permuted_network_equals_the_original_on_reordered_input(order):
    source, target = Net().eval(), Net().eval()
    load(target, source.state_dict(), channels=order, weights_channels=TRAINED_ON, image_size=(4, 4, 4))
    image = torch.randn(2, 4, 6, 6, 6)  # channels in `order`
    as_trained = image[:, [order.index(name) for name in TRAINED_ON]]
    assert torch.allclose(target(image), source(as_trained), atol=1e-5)
    assert order == TRAINED_ON or not torch.allclose(target(image), source(image), atol=1e-2)


def test_segresnet_is_permuted_at_its_first_convolution():
    from monai.networks.nets import SegResNet

    source, target = (SegResNet(init_filters=8, in_channels=4, out_channels=3).eval() for _ in range(2))
    order = ("t2f", "t1n", "t1c", "t2w")
    sizes = {"channels": order, "weights_channels": TRAINED_ON, "image_size": (16, 16, 16)}
    coverage = load(target, source.state_dict(), head="conv_final.2", **sizes)
    assert coverage.permuted == ("convInit.conv.weight",)
    image = torch.randn(1, 4, 16, 16, 16)
    as_trained = image[:, [order.index(name) for name in TRAINED_ON]]
    assert torch.allclose(target(image), source(as_trained), atol=1e-4)


@pytest.mark.parametrize(("outputs", "parameters"), [(3, 4_702_227), (5, 4_702_261)])
def test_segresnet_of_the_bundle_has_its_number_of_parameters(outputs, parameters):
    from monai.networks.nets import SegResNet

    bundle = {"init_filters": 16, "in_channels": 4, "dropout_prob": 0.2, "blocks_down": (1, 2, 2, 4)}
    source = SegResNet(**bundle, blocks_up=(1, 1, 1), out_channels=3)
    network = SegResNet(**bundle, blocks_up=(1, 1, 1), out_channels=outputs)
    coverage = load(network, source.state_dict(), head="conv_final.2")
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert coverage.share == 1.0
    assert bool(coverage.replaced) == (outputs != 3)


def test_missing_channel_is_named():
    with pytest.raises(ConfigurationError, match=r"dataset lacks \['t2f'\].*do not know \['flair'\]"):
        match_channels(("t1c", "t1n", "t2w", "flair"), TRAINED_ON)


def test_network_that_changes_its_input_first_cannot_be_permuted():
    network = nn.Sequential(nn.BatchNorm3d(4), Net())
    with pytest.raises(ConfigurationError, match="expected layers that take the image's 4 channels"):
        find_input_weights(network, 4, (4, 4, 4))


def test_probing_leaves_the_network_as_it_was():
    network = Net()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert find_input_weights(network, 4, (4, 4, 4)) == ("stem.weight",)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training


def test_head_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(ConfigurationError, match=r"model\.head.*'haed'.*'head'"):
        reset_head(Net(), "haed")


@pytest.mark.parametrize("name", ["stem.bias", "head.weight"])
def test_hand_over_refuses_a_missing_tensor(name):
    tensors = dict(Net().state_dict())
    del tensors[name]
    with pytest.raises(CheckpointMismatchError, match=f"every tensor.*missing.*{name}"):
        load_all(Net(), weights_of(tensors))


def test_hand_over_refuses_another_head():
    with pytest.raises(CheckpointMismatchError, match=r"head\.weight \(3, 8, 1, 1, 1\) for \(5, 8, 1, 1, 1\)"):
        load_all(Net(outputs=5), weights_of(Net(outputs=3).state_dict()))

"""The segmentation model: it learns, freezes, loads, saves, and validates as it predicts."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

from medexp.errors import CheckpointMismatchError, ConfigurationError
from medexp.inference.sliding_window import SlidingWindow
from tests.synthetic.segmentation import CONTRACT, PLAN, UNET, batch, build, phase, settings

pytestmark = pytest.mark.filterwarnings("ignore:::lightning")


class Linear(nn.Module):
    """One convolution and a head: gradients can be followed by hand."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv3d(in_channels, 4, 1)
        self.norm = nn.BatchNorm3d(4)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Conv3d(4, out_channels, 1)

    def forward(self, image):
        return self.head(self.dropout(self.norm(self.stem(image))))


def trainer(**changes) -> Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return Trainer(accelerator="cpu", **quiet, **{"max_epochs": 1, "num_sanity_val_steps": 0, **changes})


def loader(batches):
    return DataLoader(batches, batch_size=None)


def fit(model, batches, validation=None, **changes):
    built = trainer(**changes)
    built.fit(model, loader(batches), None if validation is None else loader(validation))
    return built


def test_loss_falls_on_the_same_two_cases():
    model, losses = build(), []
    data = batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        losses.append(model._supervise(model._outputs(data["image"]), data["label"]))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_deeper_outputs_count_half_as_much_each():
    model = build(weigh_labels=False)
    data = batch()
    outputs = model._outputs(data["image"])
    labels = [data["label"], data["label"][:, ::2, ::2, ::2]]
    losses = [model.loss(output, label) for output, label in zip(outputs, labels, strict=True)]
    assert model._supervise(outputs, data["label"]).item() == pytest.approx((2 * losses[0] + losses[1]).item() / 3)


def test_labels_are_weighed_as_the_dataset_says():
    assert build(weigh_labels=True).loss.label_weights.tolist() == [1.0, 1.0, 2.0]
    assert build(weigh_labels=False).loss.label_weights is None


@pytest.mark.parametrize("num_batches", [4, 5, 7])
def test_last_partial_group_of_batches_counts_in_full(num_batches):
    batches = [batch(seed=seed, size=8) for seed in range(num_batches)]
    contract = replace(CONTRACT, patch_size=(8, 8, 8))
    curriculum = {"stage_2": phase(optimizer=partial(torch.optim.SGD, lr=0.1))}
    model = build(contract=contract, curriculum=curriculum)
    by_hand = build(contract=contract, curriculum=curriculum)
    fit(model, batches, accumulate_grad_batches=3)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    for first in range(0, num_batches, 3):
        group = batches[first : first + 3]
        losses = [by_hand._supervise(by_hand._outputs(data["image"]), data["label"]) for data in group]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
    pairs = zip(model.parameters(), by_hand.parameters(), strict=True)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in pairs)


def test_logged_loss_is_the_batchs_own():
    still = {"stage_2": phase(optimizer=partial(torch.optim.SGD, lr=0.0))}
    model, batches = build(curriculum=still), [batch(seed=seed) for seed in range(4)]
    logged = []
    model.log = lambda name, value, **_: logged.append(value.item())
    fit(model, batches, accumulate_grad_batches=3)
    losses = [model._supervise(model._outputs(data["image"]), data["label"]).item() for data in batches]
    assert logged == pytest.approx(losses)


def test_schedule_steps_with_the_optimizer():
    curriculum = {"stage_2": phase(schedule=lambda step, total_steps: 1 - step / total_steps)}
    built = fit(build(curriculum=curriculum), [batch(seed=seed) for seed in range(5)], accumulate_grad_batches=2)
    assert built.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0)
    assert built.lr_scheduler_configs[0].scheduler.last_epoch == 3


def test_only_what_trains_reaches_the_optimizer():
    model = build(phase="stage_1")
    built = fit(model, [batch()])
    trained = [parameter for group in built.optimizers[0].param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in trained} == {
        id(parameter) for name, parameter in model.named_parameters() if "encoder" not in name
    }


def test_frozen_part_stays_bit_identical_and_the_rest_moves():
    model = build(phase="stage_1")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, [batch(seed=seed) for seed in range(3)])
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert not any("encoder" in name for name in moved)


def test_frozen_norm_and_dropout_stay_in_evaluation_after_train():
    curriculum = {"stage_1": phase(freeze=("stem", "norm"))}
    model = build(network=Linear, head="head", deep_supervision=False, curriculum=curriculum, phase="stage_1")
    running = model.network.norm.running_mean.clone()
    model.eval()
    model.train()
    model(torch.randn(2, 2, 4, 4, 4))
    assert not model.network.norm.training
    assert model.network.dropout.training
    assert torch.equal(model.network.norm.running_mean, running)


def test_validation_scores_whole_volumes_by_label_and_region():
    model = build()
    volumes = [batch(size=20, cases=1, seed=seed) for seed in (7, 8)]
    built = fit(model, [batch()], volumes)
    names = {name for name in built.callback_metrics if name.startswith("val/")}
    shared = ("core", "edema", "whole")
    assert names == {"val/dice/mean", *(f"val/{kind}/{name}" for kind in ("dice", "cases") for name in shared)}
    assert built.callback_metrics["val/cases/core"] == 2
    mean = sum(built.callback_metrics[f"val/dice/{name}"] for name in ("core", "edema")) / 2
    assert built.callback_metrics["val/dice/mean"] == pytest.approx(float(mean))


def test_validation_returns_what_segment_decides():
    model = build().eval()
    data = batch(size=20, cases=1)
    found = model.validation_step(data, 0)["prediction"]
    assert found.shape == (1, 20, 20, 20)
    assert torch.equal(found[0], model.segment(data["image"][0], window=model.window).argmax(0).byte())


def test_probabilities_sum_to_one_and_background_is_certain_where_nothing_was_run():
    image = torch.zeros(2, 40, 16, 16)
    image[:, :8] = torch.randn(2, 8, 16, 16)
    probabilities = build().eval().segment(image, window=SlidingWindow(overlap=0.5, batch_size=1, skip_background=True))
    assert torch.allclose(probabilities.sum(0), torch.ones(40, 16, 16), atol=1e-5)
    assert probabilities[0, 30:].min() > 1 - 1e-6


def test_flips_change_the_probabilities_but_not_their_kind():
    model, image = build().eval(), batch()["image"][0]
    plain, flipped = (model.segment(image, window=model.window, flip_axes=axes) for axes in ((), (0,)))
    assert not torch.equal(plain, flipped)
    assert torch.allclose(flipped.sum(0), torch.ones(16, 16, 16), atol=1e-5)


def test_arguments_that_the_network_does_not_take_are_a_wrong_configuration():
    def network(in_channels, encoder_name):
        raise KeyError(f"Wrong encoder name `{encoder_name}`, supported encoders: ['resnet18']")

    with pytest.raises(ConfigurationError, match=r"model\.network: .*Wrong encoder name `resnet17`, supported"):
        build(network=partial(network, encoder_name="resnet17"), deep_supervision=False)


def test_saved_and_loaded_model_gives_identical_output(tmp_path):
    model = build(phase="stage_1")
    built = fit(model, [batch()])
    built.save_checkpoint(tmp_path / "one.ckpt")
    other = build(phase="stage_2")
    coverage = other.load_initial(tmp_path / "one.ckpt")
    image = batch()["image"]
    assert coverage.share == 1.0
    assert torch.equal(model.eval()(image), other.eval()(image))


def test_checkpoint_holds_plain_values_and_the_contract(tmp_path):
    fit(build(phase="stage_1"), [batch()]).save_checkpoint(tmp_path / "one.ckpt")
    content = torch.load(tmp_path / "one.ckpt", weights_only=True)
    assert content["hyper_parameters"]["contract"]["channels"] == ["t1", "t2"]
    assert content["hyper_parameters"]["phase"] == "stage_1"


def test_hand_over_refuses_a_checkpoint_of_another_network(tmp_path):
    fit(build(), [batch()]).save_checkpoint(tmp_path / "one.ckpt")
    with pytest.raises(CheckpointMismatchError, match="every tensor of the network"):
        build(network=partial(UNET, base_features=8)).load_initial(tmp_path / "one.ckpt")


def test_checkpoints_own_channel_order_counts_and_not_the_configured_one(tmp_path):
    source = build()
    trainer_ = fit(source, [batch()])
    trainer_.save_checkpoint(tmp_path / "one.ckpt")
    swapped = replace(CONTRACT, channels=("t2", "t1"))
    model = build(contract=swapped, weights=tmp_path / "one.ckpt", weights_channels=["t2", "t1"]).eval()
    image = batch()["image"]
    assert torch.allclose(model(image.flip(1)), source.eval()(image), atol=1e-5)
    assert "encoder.0.0.weight" in model.weights_report


def test_weights_without_an_order_of_channels_are_refused(tmp_path):
    torch.save(build().network.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ConfigurationError, match=r"model\.weights_channels.*\['t1', 't2'\]"):
        build(weights=tmp_path / "weights.pt")


def test_damaged_weights_are_refused(tmp_path):
    torch.save(build().network.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(CheckpointMismatchError, match="expected sha256"):
        build(weights=tmp_path / "weights.pt", weights_channels=["t1", "t2"], weights_sha256="0" * 64)


def test_absent_weights_do_not_become_random_ones(tmp_path):
    with pytest.raises(ConfigurationError, match=r"model\.weights=null starts from random values"):
        build(weights=tmp_path / "absent.pt", weights_channels=["t1", "t2"])


def test_bundles_network_gets_a_head_for_the_datasets_labels(tmp_path):
    from monai.networks.nets import SegResNet

    bundle = {"init_filters": 16, "dropout_prob": 0.2, "blocks_down": (1, 2, 2, 4), "blocks_up": (1, 1, 1)}
    (tmp_path / "models").mkdir()
    torch.save(SegResNet(**bundle, in_channels=4, out_channels=3).state_dict(), tmp_path / "models" / "model.pt")
    labels = {"NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}
    contract = replace(CONTRACT, channels=("t2f", "t1n", "t1c", "t2w"), labels=labels, regions={}, label_weights={})
    model = build(
        contract=contract,
        phase="stage_1",
        network=partial(SegResNet, spatial_dims=3, **bundle),
        head="conv_final.2",
        deep_supervision=False,
        weights=tmp_path,
        weights_channels=["t1c", "t1n", "t2w", "t2f"],
        curriculum={"stage_1": phase(freeze=("convInit", "down_layers"))},
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_702_261
    assert model.coverage.replaced == ("conv_final.2.conv.weight", "conv_final.2.conv.bias")
    assert model.coverage.permuted == ("convInit.conv.weight",)
    assert not model.network.conv_final[2].conv.bias.any()


def test_phase_that_the_model_lacks_is_refused():
    with pytest.raises(ConfigurationError, match=r"\['stage_1', 'stage_2'\], got 'stage_3'"):
        build(phase="stage_3")


def test_deep_supervision_of_a_network_with_one_output_is_refused():
    with pytest.raises(ConfigurationError, match=r"model\.deep_supervision: expected false"):
        build(network=Linear, head="head", deep_supervision=True)


def test_network_may_say_itself_what_the_plan_would():
    model = build(network=partial(UNET, strides=((1, 1, 1), (2, 2, 2)), kernel_sizes=((3, 3, 3),) * 2))
    assert model.network.total_stride == (2, 2, 2)


def test_two_dimensional_plan_makes_a_two_dimensional_model():
    plan = replace(
        PLAN, spacing_mm=(1.0, 1.0), patch_size=(16, 16), strides=((1, 1), (2, 2)), kernel_sizes=((3, 3),) * 2
    )
    model = build(contract=replace(CONTRACT, plan=plan, patch_size=(16, 16))).eval()
    assert model.segment(torch.randn(2, 21, 17), window=model.window).shape == (3, 21, 17)


def test_channels_last_changes_the_layout_and_not_the_result():
    image = batch()["image"]
    plain, inner = build().eval(), build(channels_last=True).eval()
    convolution = inner.network.encoder[1][0].weight
    assert convolution.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(plain(image), inner(image), atol=1e-4)


def test_model_for_prediction_has_nothing_to_train():
    with pytest.raises(ConfigurationError, match="expected a phase"):
        build(phase=None).configure_optimizers()


def test_settings_are_what_the_shipped_configuration_names():
    for name in ("monai_ft", "unet3d"):
        node = yaml.safe_load((Path(__file__).parents[2] / "conf" / "model" / f"{name}.yaml").read_text())
        assert set(node) - {"_target_", "_partial_"} == {*settings(), "decision"}


def test_compiling_keeps_the_names_of_the_weights():
    assert build(compile=True).state_dict().keys() == build().state_dict().keys()

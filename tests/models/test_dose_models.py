"""Both dose models: they learn, cover whole volumes, mirror the right way, and hand on their weights."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

from medexp.diffusion.samplers import Ddim
from medexp.errors import ConfigurationError
from medexp.inference.dose_volumes import Surrounded, average_mirrored, mirrored_channels
from medexp.inference.sliding_window import SlidingWindow
from medexp.keys import CONSTRAINTS, DOSE, IMAGE, POSSIBLE
from medexp.losses.doses import AsymmetricTargetError, DoseLoss, SquaredError
from medexp.losses.weighting import FixedWeights, UncertaintyWeights
from medexp.models.dose_diffusion import DoseDiffusion
from medexp.models.dose_learning import cases_of
from medexp.models.dose_regression import DoseRegression
from medexp.networks.pretrained import load_all
from medexp.networks.weights import read_weights
from medexp.transforms.doses import AIR, FAR
from tests.synthetic.dose_models import CONTRACT, batch, diffusion_settings, phase, regression_settings

pytestmark = pytest.mark.filterwarnings("ignore:::lightning")
EVERYWHERE = SlidingWindow(overlap=0.5, batch_size=1, skip_background=False)


class FromDistance(nn.Module):
    """Dose 1 inside the target, falling with the distance: known for every voxel of every window."""

    def __init__(self, in_channels: int, out_channels: int, num_constraints: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.calls: list[int] = []

    def forward(self, image, *rest):
        self.calls.append(len(image))
        structures = image[:, -3:]
        return self.weight * (1.0 - structures[:, :1].clamp(0, 1))


def fit(model, data, validation=None, **changes):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, num_sanity_val_steps=0, enable_checkpointing=False, **quiet, **changes
    )
    loaders = [None if one is None else DataLoader(one, batch_size=None) for one in (data, validation)]
    trainer.fit(model, *loaders)
    return trainer


def whole(size=(24, 20, 16)):
    return next(iter(cases_of(batch(size))))


@pytest.mark.parametrize("kind", [DoseRegression, DoseDiffusion])
def test_loss_falls_on_the_same_batch(kind):
    torch.manual_seed(0)
    model = kind(**(regression_settings() if kind is DoseRegression else diffusion_settings()))
    model.log = lambda *args, **kwargs: None
    model._group_scale = lambda batch_idx: 1.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(30):
        torch.manual_seed(step % 2)  # the same timesteps and noise every other step
        losses.append(model.training_step(batch(), 0))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def test_whole_volume_is_covered_by_windows_and_equals_the_known_dose():
    model = DoseRegression(**regression_settings(network=FromDistance)).eval()
    inputs = whole()
    dose = model.infer(inputs, window=EVERYWHERE)
    assert dose.shape == (1, 24, 20, 16)
    assert torch.allclose(dose[0], 1.0 - inputs[IMAGE][1].clamp(0, 1), atol=1e-5)


def test_volume_smaller_than_a_window_lies_in_air_far_from_every_structure():
    inputs = whole((10, 12, 8))
    volume = Surrounded.of(inputs[IMAGE], inputs[POSSIBLE], (16, 16, 16))
    assert volume.image.shape[1:] == (16, 16, 16)
    assert volume.image[0, 0, 0, 0] == AIR
    assert (volume.image[1:, 0] == FAR).all()
    model = DoseRegression(**regression_settings(network=FromDistance)).eval()
    assert model.infer(inputs, window=model.window).shape == (1, 10, 12, 8)


def test_no_dose_is_predicted_where_none_may_be():
    model, inputs = DoseRegression(**regression_settings(network=FromDistance)).eval(), whole()
    inputs[POSSIBLE][:12] = False
    dose = model.infer(inputs, window=EVERYWHERE)
    assert not dose[:, :12].any()
    assert dose[:, 12:].any()


def test_windows_of_air_are_not_run():
    model, inputs = DoseRegression(**regression_settings(network=FromDistance)).eval(), whole((16, 16, 64))
    inputs[IMAGE][0, :, :, 16:] = AIR
    inputs[IMAGE][1:, :, :, 16:] = FAR
    model.infer(inputs, window=model.window)
    skipped, model.network.calls = len(model.network.calls), []
    model.infer(inputs, window=EVERYWHERE)
    assert skipped < len(model.network.calls)


def test_mirror_exchanges_left_and_right_structures():
    assert mirrored_channels(CONTRACT) == [0, 1, 3, 2]
    assert mirrored_channels(CONTRACT, leading=1) == [0, 1, 2, 4, 3]


def test_mirrored_average_of_a_symmetric_network_changes_nothing():
    def from_femurs(image):
        return image[:, 2:3] + 2.0 * image[:, 3:4].flip(2)  # left and right, each seen from its own side

    image = batch()[IMAGE]
    averaged = average_mirrored(from_femurs, (0,), mirrored_channels(CONTRACT))(image)
    by_hand = 0.5 * (from_femurs(image) + from_femurs(image[:, [0, 1, 3, 2]].flip(2)).flip(2))
    assert torch.allclose(averaged, by_hand)


@pytest.mark.parametrize("axes", [(1,), (2,), (0, 1)])
def test_other_flips_are_refused(axes):
    with pytest.raises(ConfigurationError, match="left-right"):
        average_mirrored(lambda image: image, axes, [0, 1, 2, 3])


def test_validation_error_is_in_gray_inside_what_may_be_dosed():
    model = DoseRegression(**regression_settings(network=FromDistance, gamma_proxy_subsample=2))
    data = batch()
    data[DOSE] = (1.0 - data[IMAGE][:, 1:2].clamp(0, 1)) + 0.1
    data[POSSIBLE][:, :4] = False
    data[DOSE][:, :, :4] = 5.0  # must not count
    trainer = fit(model, [batch()], [data], limit_train_batches=0.0)
    trainer.validate(model, DataLoader([data], batch_size=None), verbose=False)
    assert trainer.callback_metrics["val/mae_gy"].item() == pytest.approx(7.0, abs=1e-3)
    assert trainer.callback_metrics["val/cases/PTV70"].item() == 2
    assert 0 <= trainer.callback_metrics["val/gamma_proxy_percent"].item() < 100


def test_phase_may_have_a_loss_of_its_own():
    own = partial(
        DoseLoss,
        terms={
            "mse": partial(SquaredError, negative_dose_weight=0.0),
            "targets": partial(AsymmetricTargetError, under_dose_weight=3.0, over_dose_weight=1.0),
        },
        combine=UncertaintyWeights,
    )
    curriculum = {"stage_1": phase(), "stage_2": phase(loss=own)}
    first, second = (
        DoseRegression(**regression_settings(curriculum=curriculum, phase=name)) for name in ("stage_1", "stage_2")
    )
    assert list(first.loss.terms) == ["mse"]
    assert list(second.loss.terms) == ["mse", "targets"]


def test_terms_of_a_loss_are_logged_each():
    loss = partial(
        DoseLoss,
        terms={
            "error": partial(SquaredError, negative_dose_weight=0.0),
            "targets": partial(AsymmetricTargetError, under_dose_weight=3.0, over_dose_weight=1.0),
        },
        combine=partial(FixedWeights, weights={"error": 1.0, "targets": 0.5}),
    )
    trainer = fit(DoseRegression(**regression_settings(loss=loss)), [batch()])
    logged = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("train/loss")}
    assert set(logged) == {"train/loss", "train/loss/error", "train/loss/targets"}
    assert logged["train/loss"] == pytest.approx(logged["train/loss/error"] + 0.5 * logged["train/loss/targets"])


def test_channels_of_weights_are_permuted_by_name(tmp_path):
    model = DoseRegression(**regression_settings())
    trainer = fit(model, [batch()])
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    turned = replace(CONTRACT, structures=("Femur_R", "PTV70", "Femur_L"))
    other = DoseRegression(**regression_settings(contract=turned, weights=tmp_path / "one.ckpt", phase=None)).eval()
    inputs = whole((16, 16, 16))
    same = {**inputs, IMAGE: inputs[IMAGE][[0, 3, 1, 2]]}
    doses = [one.infer(each, window=EVERYWHERE) for one, each in ((model.eval(), inputs), (other, same))]
    assert torch.allclose(*doses, atol=1e-5)


def test_learned_weights_of_a_loss_train_without_weight_decay_and_stay_in_their_stage(tmp_path):
    loss = partial(DoseLoss, terms={"mse": partial(SquaredError, negative_dose_weight=0.0)}, combine=UncertaintyWeights)
    curriculum = {"stage_1": phase(loss=loss), "stage_2": phase()}
    model = DoseRegression(**regression_settings(curriculum=curriculum))
    trainer = fit(model, [batch()])
    groups = trainer.optimizers[0].param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert model.loss.weigh.log_variances.item() != 0.0
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    following = DoseRegression(**regression_settings(curriculum=curriculum, phase="stage_2"))
    load_all(following, read_weights(tmp_path / "one.ckpt"))
    pairs = zip(model.network.parameters(), following.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_saved_and_loaded_weights_draw_the_same_dose(tmp_path):
    model = DoseDiffusion(**diffusion_settings())
    trainer = fit(model, [batch()])
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    weights = read_weights(tmp_path / "one.ckpt")
    other = DoseDiffusion(**diffusion_settings(phase=None))
    load_all(other, weights)
    inputs = whole((16, 16, 16))
    drawn = [one.eval().infer(inputs, window=EVERYWHERE) for one in (model, other)]
    assert torch.equal(*drawn)
    assert weights.contract["diffusion"]["prediction_type"] == "x0"


def test_perfect_denoiser_draws_the_dose_itself():
    settings = diffusion_settings(
        network=FromDistance, scale=replace(diffusion_settings()["scale"], center=0.0, half_width=1.0)
    )
    model, inputs = DoseDiffusion(**settings).eval(), whole()
    dose = model.infer(inputs, window=EVERYWHERE)
    assert torch.allclose(dose[0], 1.0 - inputs[IMAGE][1].clamp(0, 1), atol=1e-4)


@pytest.mark.parametrize("num_steps", [1, 3, 5])
def test_each_step_costs_one_pass_over_the_windows(num_steps):
    model, inputs = DoseDiffusion(**diffusion_settings(network=FromDistance)).eval(), whole((16, 16, 40))
    windows = len(list(EVERYWHERE.places((16, 16, 40), (16, 16, 16))))
    model.set_sampling(steps=num_steps, seed=3)
    model.infer(inputs, window=EVERYWHERE)
    assert sum(model.network.calls) == num_steps * windows


def test_same_seed_draws_the_same_dose_and_another_one_another():
    model, inputs = DoseDiffusion(**diffusion_settings()).eval(), whole((16, 16, 24))
    first, again = (model.infer(inputs, window=EVERYWHERE) for _ in range(2))
    model.set_sampling(steps=None, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, model.infer(inputs, window=EVERYWHERE))


def test_air_that_no_window_saw_gets_no_dose():
    model, inputs = DoseDiffusion(**diffusion_settings(sampler=Ddim(num_steps=2))).eval(), whole((16, 16, 64))
    inputs[IMAGE][0, :, :, 16:] = AIR
    inputs[IMAGE][1:, :, :, 16:] = FAR
    dose = model.infer(inputs, window=model.window)
    assert not dose[..., 40:].any()
    assert dose[..., :16].any()


def test_regression_draws_no_samples():
    with pytest.raises(ConfigurationError, match=r"predict\.sampling_steps: expected null"):
        DoseRegression(**regression_settings()).set_sampling(steps=5, seed=None)


@pytest.mark.parametrize(
    ("model", "own"), [(DoseRegression, regression_settings), (DoseDiffusion, diffusion_settings)], ids=["unet", "ddpm"]
)
def test_a_window_that_would_mirror_a_patient_is_refused(model, own):
    mirroring = SlidingWindow(overlap=0.5, batch_size=1, skip_background=True, padding="reflect")
    with pytest.raises(ConfigurationError, match=r"model\.window\.padding: expected zeros"):
        model(**own(window=mirroring))


def test_windows_of_the_published_volume():
    window = SlidingWindow(overlap=0.25, batch_size=1, skip_background=False)
    assert len(list(window.places((512, 512, 256), (128, 128, 128)))) == 75


def test_constraints_reach_the_network():
    torch.manual_seed(0)
    model, inputs = DoseRegression(**regression_settings()).eval(), whole((16, 16, 16))
    changed = {**inputs, CONSTRAINTS: inputs[CONSTRAINTS] + 1.0}
    assert not torch.equal(model.infer(inputs, window=EVERYWHERE), model.infer(changed, window=EVERYWHERE))

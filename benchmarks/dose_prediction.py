"""What a full-volume dose costs beyond the forward passes of its windows.

    python benchmarks/dose_prediction.py [--rounds 3] [--threads 1] [--base-features 16] [--steps 4]

A patient of 160 x 128 x 112 voxels with three structures, windows of 64^3, overlap 0.25. The yardstick is the network
alone on the windows that the prediction runs, as often as it runs them; prediction is what `stage=predict` asks of the
model: surroundings, windows, blending, noise, steps and the cut to where dose may be. Both are timed in turns, in one
process, and the least of all rounds counts: processor time, which a busy machine does not distort, on one thread.
A larger network makes the ratio smaller. Targets: the U-Net at most 1.2 x the forward time of its windows; DDIM of n
steps at most 1.1 x n times that.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from medexp.diffusion.objective import DenoisingLoss
from medexp.diffusion.samplers import Ddim
from medexp.diffusion.scaling import DoseScale
from medexp.diffusion.schedules import NoiseSchedule
from medexp.inference.sliding_window import SlidingWindow
from medexp.keys import CONSTRAINTS, IMAGE, POSSIBLE
from medexp.losses.doses import DoseLoss, SquaredError
from medexp.losses.weighting import FixedWeights
from medexp.models.dose_diffusion import DoseDiffusion
from medexp.models.dose_regression import DoseRegression
from medexp.models.learning import Learning
from medexp.networks.denoising_unet import DenoisingUNet
from medexp.networks.dose_unet import DoseUNet
from medexp.types import DoseContract, Plan

SHAPE, WINDOW, SPACING_MM = (160, 128, 112), (64, 64, 64), (2.0, 2.0, 3.0)
LIMIT_UNET, LIMIT_DDIM = 1.2, 1.1
PREDICTION_WINDOW = SlidingWindow(overlap=0.25, batch_size=1, skip_background=True)
CONTRACT = DoseContract(
    name="benchmark",
    structures=("PTV70", "Femur_L", "Femur_R"),
    targets={"PTV70": 70.0},
    mirrored=(("Femur_L", "Femur_R"),),
    num_constraints=13,
    prescription_gy=70.0,
    distance_clip_mm=50.0,
    plan=Plan(SPACING_MM, WINDOW, ((1, 1, 1), (2, 2, 2)), ((3, 3, 3), (3, 3, 3))),
    patch_size=WINDOW,
)


def make_patient() -> dict[str, Tensor]:
    """Return an elliptic body with a target in the middle and a femur on either side, as a datamodule gives it."""
    axes = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    body = (axes[0] / 0.95).square() + (axes[1] / 0.8).square() < 1
    centers = (0.0, -0.5, 0.5)  # along the first axis
    structures = [((axes[0] - at).square() + axes[1].square() + axes[2].square()).sqrt() - 0.2 for at in centers]
    ct = torch.where(body, 0.5, 0.25)
    image = torch.stack([ct, *(one.clamp(-1, 1) for one in structures)])
    return {IMAGE: image, CONSTRAINTS: torch.rand(13), POSSIBLE: torch.ones(SHAPE, dtype=torch.bool)}


def make_models(base_features: int, num_steps: int) -> dict[str, Learning]:
    torch.manual_seed(0)
    shared = {
        "contract": CONTRACT,
        "weights": None,
        "weights_sha256": None,
        "weights_channels": None,
        "min_weight_coverage": 1.0,
        "compile": False,
        "channels_last": False,
        "window": PREDICTION_WINDOW,
        "curriculum": {},
        "monitor": "val/mae_gy",
        "monitor_mode": "min",
    }
    loss = partial(
        DoseLoss,
        terms={"error": partial(SquaredError, negative_dose_weight=0.1)},
        combine=partial(FixedWeights, weights={"error": 1.0}),
    )
    unet = DoseRegression(network=partial(DoseUNet, base_features=base_features), loss=loss, **shared)
    ddpm = DoseDiffusion(
        network=partial(DenoisingUNet, base_features=base_features),
        schedule=NoiseSchedule(kind="cosine", num_timesteps=1000, least_beta=0.0, largest_beta=0.999),
        scale=DoseScale(center=0.6, half_width=0.6),
        prediction_type="v",
        loss=partial(DenoisingLoss, negative_dose_weight=0.1),
        sampler=Ddim(num_steps=num_steps, clip=(-1.0, 1.5)),
        noise_seed=0,
        **shared,
    )
    return {"dose_unet": unet.eval(), "dose_ddpm": ddpm.eval()}


class Recorder(nn.Module):
    """Stands for the network while its calls are written down, and is nearly free."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, ...]] = []

    def forward(self, *inputs: Tensor) -> Tensor:
        """Answer with the first channel."""
        self.calls.append(inputs)
        return inputs[0][:, :1]


def calls_of(model: Learning, patient: dict[str, Tensor]) -> list[tuple[Tensor, ...]]:
    """Return what the network is called with for a prediction."""
    network, model.network = model.network, Recorder()
    model.infer(patient, window=PREDICTION_WINDOW)
    calls, model.network = model.network.calls, network
    return calls


def processor_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def compare(name: str, model: Learning, patient: dict[str, Tensor], rounds: int) -> float:
    calls = calls_of(model, patient)

    def run_windows() -> None:
        for inputs in calls:
            model.network(*inputs)

    found: dict[str, list[float]] = {"forward": [], "prediction": []}
    for _ in range(rounds):
        found["forward"].append(processor_seconds(run_windows))
        found["prediction"].append(processor_seconds(lambda: model.infer(patient, window=PREDICTION_WINDOW)))
    forward, prediction = min(found["forward"]), min(found["prediction"])
    print(
        f"{name}: {len(calls)} forwards {forward:6.2f} s, prediction {prediction:6.2f} s, {prediction / forward:.3f} x"
    )
    return prediction / forward


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--base-features", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4, help="of DDIM")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    patient, models = make_patient(), make_models(options.base_features, options.steps)
    print(f"{'x'.join(map(str, SHAPE))} voxels, windows of {WINDOW[0]}^3, base features {options.base_features}")
    with torch.inference_mode():
        ratios = {name: compare(name, model, patient, options.rounds) for name, model in models.items()}
    good = ratios["dose_unet"] <= LIMIT_UNET and ratios["dose_ddpm"] <= LIMIT_DDIM
    limits = f"{LIMIT_UNET} x (U-Net) and {LIMIT_DDIM} x (DDIM of {options.steps} steps)"
    print(f"{'met' if good else 'MISSED'}: at most {limits}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""How a network learns to draw doses from noise, given CT and structures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from medexp.diffusion.samplers import Ddim, Ddpm, draw_noise
from medexp.diffusion.scaling import DoseScale
from medexp.diffusion.schedules import NoiseSchedule, PredictionType
from medexp.inference.decisions import Dose
from medexp.inference.dose_volumes import Surrounded, average_mirrored, mirrored_channels
from medexp.inference.sliding_window import SlidingWindow
from medexp.keys import CONSTRAINTS, DOSE, IMAGE, POSSIBLE
from medexp.metrics.dose_validation import DoseValidation
from medexp.models.curriculum import Phase
from medexp.models.dose_targets import dose_record, in_air, validated
from medexp.models.learning import Learning, Mode, build_network, loss_of
from medexp.types import Count, DoseContract, Index, Share

NOISY = "noisy_dose"  # the network's first channel


class DoseDiffusion(Learning):
    """A denoising network completed with a dose dataset's contract, and one phase of its curriculum.

    A whole volume is drawn from one field of noise: at every step all windows see the same noisy dose and their
    predictions are blended, so that overlaps agree and n steps cost n passes over the windows. Validation is that of
    `medexp.models.dose_regression`.

    Args:
        contract: What the dataset promises.
        phase: The curriculum's entry to train; None: the model only predicts.
        network: Takes `in_channels`, `out_channels` and `num_constraints`; its first channel is the noisy dose.
        weights: A file, or a run's checkpoint; None: random values.
        weights_sha256: What the file must hash to; None: it is recorded, not checked.
        weights_channels: The order of channels that the weights were trained on. A checkpoint of medexp knows its own.
        min_weight_coverage: Share of the network's values that the weights must fill.
        schedule: How noise is added.
        scale: The dose's scale inside the network.
        prediction_type: What the network says of a noisy dose.
        loss: Takes schedule, scale and prediction type (`medexp.diffusion.objective`).
        sampler: Draws whole volumes in validation and prediction.
        noise_seed: Of the field of noise.
        compile: Compile the network.
        channels_last: Keep channels innermost in memory.
        window: Covers whole volumes in validation.
        gamma_proxy_subsample: In validation, judge every n-th voxel along each axis; None: no gamma.
        curriculum: The phases by name.
        monitor: The validation score that chooses the best checkpoint.
        monitor_mode: Whether less or more of it is better.

    Raises:
        ConfigurationError: The phase, channels or freeze patterns name nothing that is there, or the window mirrors.
        CheckpointMismatchError: The weights are damaged or cover too little.
    """

    decision: Dose
    scores: DoseValidation

    def __init__(
        self,
        *,
        contract: DoseContract,
        phase: str | None = None,
        network: Callable[..., nn.Module],
        weights: str | Path | None,
        weights_sha256: str | None,
        weights_channels: Sequence[str] | None,
        min_weight_coverage: Share,
        schedule: NoiseSchedule,
        scale: DoseScale,
        prediction_type: PredictionType,
        loss: Callable[..., nn.Module],
        sampler: Ddim | Ddpm,
        noise_seed: Index,
        compile: bool,  # noqa: A002 - the configuration's word
        channels_last: bool,
        window: SlidingWindow,
        gamma_proxy_subsample: Count | None,
        curriculum: Mapping[str, Phase],
        monitor: str,
        monitor_mode: Mode,
    ) -> None:
        decision, channels = Dose(contract.prescription_gy), (NOISY, *contract.channels)
        diffusion = {
            "schedule": schedule.to_json(),
            "scale": [scale.center, scale.half_width],
            "prediction_type": prediction_type,
        }
        record = {**dose_record(contract, channels, decision), "diffusion": diffusion}
        super().__init__(
            contract=contract,
            phase=phase,
            curriculum=curriculum,
            monitor=monitor,
            monitor_mode=monitor_mode,
            record=record,
        )
        self.window, self.decision = in_air(window), decision
        self.schedule, self.scale, self.sampler = schedule, scale, sampler
        self.prediction_type: PredictionType = prediction_type
        self.noise_seed = noise_seed
        offered = {"in_channels": len(channels), "out_channels": 1, "num_constraints": contract.num_constraints}
        self.network = build_network(network, offered)
        if weights is not None:
            self.coverage = self._load_weights(
                str(weights),
                weights_sha256,
                channels=channels,
                weights_channels=weights_channels,
                min_coverage=min_weight_coverage,
                further_inputs=(torch.zeros(1, dtype=torch.long), torch.zeros(1, contract.num_constraints)),
            )
        self.loss = loss_of(self.phase, loss)(schedule=schedule, scale=scale, prediction_type=prediction_type)
        self.scores = DoseValidation(gamma_proxy_subsample=gamma_proxy_subsample)
        self._take_phase(channels_last=channels_last, compile_network=compile)

    @property
    def sampling(self) -> dict[str, int]:
        """How many steps a drawn volume takes, and from which noise it starts."""
        return {"sampling_steps": self.sampler.num_steps, "noise_seed": self.noise_seed}

    def set_sampling(self, *, steps: int | None, seed: int | None) -> None:
        """Draw volumes in so many steps and from this seed's noise from now on; None leaves a value as it is."""
        self.sampler = self.sampler if steps is None else replace(self.sampler, num_steps=steps)
        self.noise_seed = self.noise_seed if seed is None else seed

    def forward(
        self,
        noisy_and_condition: Float[Tensor, "batch channel i j k"],
        timestep: Integer[Tensor, " batch"],
        constraints: Float[Tensor, "batch constraint"],
    ) -> Float[Tensor, "batch 1 i j k"]:
        """Return what the network says of noisy doses."""
        return self.network(self._in_memory_format(noisy_and_condition), timestep, constraints)

    def infer(
        self,
        inputs: Mapping[str, Tensor],
        *,
        window: SlidingWindow,
        flip_axes: Sequence[int] = (),
        tile: Sequence[int] | None = None,
    ) -> Float[Tensor, "1 i j k"]:
        """Return a dose drawn for a whole case as a fraction of the prescription; see `Learning.infer`."""
        size = self.contract.patch_size if tile is None else tuple(tile)
        volume = Surrounded.of(inputs[IMAGE], inputs[POSSIBLE], size)
        constraints = inputs[CONSTRAINTS][None]
        channels = mirrored_channels(self.contract, leading=1)

        def denoise(noisy: Float[Tensor, "1 1 i j k"], timestep: int) -> Float[Tensor, "1 1 i j k"]:
            def run(patches: Float[Tensor, "batch channel i j k"]) -> Float[Tensor, "batch 1 i j k"]:
                count = len(patches)
                return self(patches, constraints.new_full((count,), timestep).long(), constraints.expand(count, -1))

            network = average_mirrored(run, flip_axes, channels)
            whole = torch.cat([noisy[0].to(volume.image.dtype), volume.image])
            return window(network, whole, patch_size=size, foreground=volume.sought)[None]

        generator = torch.Generator().manual_seed(self.noise_seed)
        noise = draw_noise(volume.image[None, :1], generator)
        drawn = self.sampler(
            denoise, noise, schedule=self.schedule, prediction_type=self.prediction_type, generator=generator
        )
        dose = self.scale.decode(drawn[0])
        if window.skip_background:
            dose = dose.where(_covered(window, volume, size), 0.0)
        return volume.cut(dose, inputs[POSSIBLE])

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Float[Tensor, ""]:
        """Return the loss of a batch at random timesteps, scaled so that an optimizer step uses the mean of batches."""
        clean, image = self.scale.encode(batch[DOSE]), batch[IMAGE]
        noise = torch.randn_like(clean)
        timestep = torch.randint(self.schedule.num_timesteps, (len(clean),), device=clean.device)
        noisy = self.schedule.add_noise(clean, noise, timestep)
        prediction = self(torch.cat([noisy, image], dim=1), timestep, batch[CONSTRAINTS])
        return self._scaled(self.loss(prediction, clean, noise, timestep), batch_idx, size=len(image))

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Draw whole volumes and count."""
        return validated(partial(self.infer, window=self.window), batch, self.scores, self.contract)


def _covered(window: SlidingWindow, volume: Surrounded, size: Sequence[int]) -> Bool[Tensor, "1 i j k"]:
    """Return the voxels of the windows that were run; elsewhere nothing was denoised."""
    image = volume.image[:1]
    return window(torch.ones_like, image, patch_size=size, foreground=volume.sought) > 0.5

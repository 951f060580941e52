"""How a network learns to draw doses from noise, given CT and structures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from medexp.diffusion.samplers import Ddim, Ddpm, draw_noise
from medexp.diffusion.scaling import DoseScale
from medexp.diffusion.schedules import NoiseSchedule, PredictionType
from medexp.inference.dose_volumes import Covering
from medexp.inference.sliding_window import SlidingWindow
from medexp.keys import CONSTRAINTS, DOSE, IMAGE
from medexp.models.curriculum import Phase
from medexp.models.dose_learning import DoseLearning
from medexp.models.learning import Mode
from medexp.types import Count, DoseContract, Index, Share

NOISY = "noisy_dose"  # the network's first channel


class DoseDiffusion(DoseLearning):
    """Draws doses: at a timestep, its network says of a noisy dose what would make it clean.

    A whole volume is drawn from one field of noise: at every step all windows see the same noisy dose and their
    predictions are blended, so that overlaps agree and n steps cost n passes over the windows.

    Args:
        network: Its first channel is the noisy dose.
        schedule: How noise is added.
        scale: The dose's scale inside the network.
        prediction_type: What the network says of a noisy dose.
        loss: Takes schedule, scale and prediction type (`medexp.diffusion.objective`).
        sampler: Draws whole volumes in validation and prediction.
        noise_seed: Of the field of noise.
        compile: Compile the network.

    The others are those of `DoseLearning`, and so is what it raises.
    """

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
        diffusion = {
            "schedule": schedule.to_json(),
            "scale": [scale.center, scale.half_width],
            "prediction_type": prediction_type,
        }
        super().__init__(
            contract=contract,
            leading=(NOISY,),
            further_inputs=(torch.zeros(1, dtype=torch.long),),
            phase=phase,
            network=network,
            weights=weights,
            weights_sha256=weights_sha256,
            weights_channels=weights_channels,
            min_weight_coverage=min_weight_coverage,
            loss=loss,
            loss_arguments={"schedule": schedule, "scale": scale, "prediction_type": prediction_type},
            compile_network=compile,
            channels_last=channels_last,
            window=window,
            gamma_proxy_subsample=gamma_proxy_subsample,
            curriculum=curriculum,
            monitor=monitor,
            monitor_mode=monitor_mode,
            record={"diffusion": diffusion},
        )
        self.schedule, self.scale, self.sampler = schedule, scale, sampler
        self.prediction_type: PredictionType = prediction_type
        self.noise_seed = noise_seed

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

    def _dose_of(self, covering: Covering, constraints: Float[Tensor, "1 constraint"]) -> Float[Tensor, "1 i j k"]:
        image = covering.volume.image

        def denoise(noisy: Float[Tensor, "1 1 i j k"], timestep: int) -> Float[Tensor, "1 1 i j k"]:
            def run(patches: Float[Tensor, "batch channel i j k"]) -> Float[Tensor, "batch 1 i j k"]:
                count = len(patches)
                return self(patches, constraints.new_full((count,), timestep).long(), constraints.expand(count, -1))

            return covering.run(run, torch.cat([noisy[0].to(image.dtype), image]))[None]

        generator = torch.Generator().manual_seed(self.noise_seed)
        noise = draw_noise(image[None, :1], generator)
        drawn = self.sampler(
            denoise, noise, schedule=self.schedule, prediction_type=self.prediction_type, generator=generator
        )
        return self.scale.decode(drawn[0]).where(covering.reached(), 0.0)  # elsewhere nothing was denoised

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Float[Tensor, ""]:
        """Return the loss of a batch at random timesteps, scaled so that an optimizer step uses the mean of batches."""
        clean, image = self.scale.encode(batch[DOSE]), batch[IMAGE]
        noise = torch.randn_like(clean)
        timestep = torch.randint(self.schedule.num_timesteps, (len(clean),), device=clean.device)
        noisy = self.schedule.add_noise(clean, noise, timestep)
        prediction = self(torch.cat([noisy, image], dim=1), timestep, batch[CONSTRAINTS])
        return self._scaled(self.loss(prediction, clean, noise, timestep), batch_idx, size=len(image))

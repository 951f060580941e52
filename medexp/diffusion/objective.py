"""What a denoising network is trained on."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from medexp.diffusion.scaling import DoseScale
from medexp.diffusion.schedules import NoiseSchedule, PredictionType
from medexp.types import Amount


class DenoisingLoss(nn.Module):
    """Mean squared error of the prediction, and a penalty on negative dose in the clean volume that it implies.

    The clean volume that a predicted noise implies is divided by the signal, 1.6e-5 at the last of 1000 cosine
    timesteps: unweighted, the penalty would be that of the noisiest timesteps alone (69 on average). It is
    therefore weighted by the share of the signal's variance, for all types of prediction alike. Computed in float32.

    Args:
        schedule: How noise was added.
        scale: The dose's scale inside the network.
        prediction_type: "epsilon", "x0" or "v".
        negative_dose_weight: Of the penalty, in fractions of the prescription; 0 leaves it out.
    """

    def __init__(
        self,
        *,
        schedule: NoiseSchedule,
        scale: DoseScale,
        prediction_type: PredictionType,
        negative_dose_weight: Amount,
    ) -> None:
        super().__init__()
        self.schedule, self.scale = schedule, scale
        self.prediction_type: PredictionType = prediction_type
        self.negative_dose_weight = negative_dose_weight

    def forward(
        self,
        prediction: Float[Tensor, "batch 1 i j k"],
        clean: Float[Tensor, "batch 1 i j k"],
        noise: Float[Tensor, "batch 1 i j k"],
        timestep: Integer[Tensor, " batch"],
    ) -> Float[Tensor, ""]:
        """Return the loss; `clean` is in the network's scale."""
        with torch.autocast(prediction.device.type, enabled=False):
            prediction, clean = prediction.to(clean.dtype), clean
            target = self.schedule.target(clean, noise, timestep, prediction_type=self.prediction_type)
            error = torch.nn.functional.mse_loss(prediction, target)
            if not self.negative_dose_weight:
                return error
            noisy = self.schedule.add_noise(clean, noise, timestep)
            return error + self.negative_dose_weight * self._negative_dose(prediction, noisy, timestep)

    def _negative_dose(
        self,
        prediction: Float[Tensor, "batch 1 i j k"],
        noisy: Float[Tensor, "batch 1 i j k"],
        timestep: Integer[Tensor, " batch"],
    ) -> Float[Tensor, ""]:
        denoised = self.schedule.denoised(prediction, noisy, timestep, prediction_type=self.prediction_type)
        below = (-self.scale.decode(denoised)).relu().flatten(1).mean(1)  # batch
        return (self.schedule.signal[timestep].square() * below).mean()

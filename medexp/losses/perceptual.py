"""Compare doses by what a network for pictures sees in their slices."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from medexp.losses.structures import exact, mean_of_all
from medexp.types import Count, DoseContract


class SlicePerceptualError(nn.Module):
    """Mean squared difference of the features of every n-th axial slice, averaged over a network's blocks.

    Args:
        contract: Not looked at; every term takes it.
        features: Builds a network with fixed weights that turns pictures `[picture, 1, height, width]` into a list of
            features (`medexp.networks.vgg.VggFeatures`).
        every: Slices from one that is looked at to the next.

    Source:
        Johnson et al., ECCV 2016, equation 2.
    """

    def __init__(self, *, contract: DoseContract, features: Callable[[], nn.Module], every: Count) -> None:
        super().__init__()
        self.features, self.every = features(), every

    def forward(
        self,
        prediction: Float[Tensor, "batch 1 i j k"],
        target: Float[Tensor, "batch 1 i j k"],
        image: Float[Tensor, "batch channel i j k"],
    ) -> Float[Tensor, ""]:
        """Return the loss."""
        found = self.features(self._slices(exact(prediction)))
        with torch.no_grad():
            wanted = self.features(self._slices(exact(target)))
        errors = [mean_of_all((ours - theirs).square()) for ours, theirs in zip(found, wanted, strict=True)]
        return torch.stack(errors).mean()

    def _slices(self, dose: Float[Tensor, "batch i j k"]) -> Float[Tensor, "picture 1 i j"]:
        middle = (dose.shape[-1] - 1) % self.every // 2  # as far from both ends as possible
        return dose[..., middle :: self.every].movedim(-1, 1).flatten(0, 1).unsqueeze(1)

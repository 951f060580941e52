"""Predict a dose at once: a U-Net whose blocks are modulated by the protocol's constraints."""

from jaxtyping import Float
from torch import Tensor, nn

from medexp.networks.film_blocks import TOTAL_STRIDE, FilmUNet, embed
from medexp.types import Count

_EMBEDDING_FEATURES = 256


class DoseUNet(nn.Module):
    """Regression of the dose from CT, structures and constraints.

    Args:
        in_channels: The CT and a signed distance per structure.
        out_channels: 1, the dose.
        num_constraints: Length of the protocol's vector.
        base_features: Features of the full-resolution level; a multiple of 8.
        attention_gates: Let the features from below weigh each skip connection.
        bottleneck_attention: Let the voxels of the deepest level attend to each other, in four heads.

    Raises:
        ConfigurationError: `base_features` is no multiple of 8; in use, a side of the image is none of 16.

    Source:
        The VMAT dose system's baseline; the number of parameters agrees (tests/networks/test_dose_unet.py).
    """

    total_stride = TOTAL_STRIDE

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_constraints: int,
        *,
        base_features: Count,
        attention_gates: bool = False,
        bottleneck_attention: bool = False,
    ) -> None:
        super().__init__()
        self.embed_constraints = embed(num_constraints, _EMBEDDING_FEATURES)
        self.unet = FilmUNet(
            in_channels,
            out_channels,
            embedding_features=_EMBEDDING_FEATURES,
            base_features=base_features,
            attention_gates=attention_gates,
            bottleneck_attention=bottleneck_attention,
        )

    def forward(
        self, image: Float[Tensor, "batch channel i j k"], constraints: Float[Tensor, "batch constraint"]
    ) -> Float[Tensor, "batch output i j k"]:
        """Return the dose as a fraction of the prescription; nothing keeps it from being negative."""
        return self.unet(image, self.embed_constraints(constraints))

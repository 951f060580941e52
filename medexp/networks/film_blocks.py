"""The U-Net that both dose networks share: residual blocks that a vector scales and shifts (FiLM)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, cat, nn
from torch.nn import functional as F

from medexp.errors import ConfigurationError
from medexp.types import Count

NUM_GROUPS = 8
NUM_HEADS = 4
NUM_POOLS = 4
TOTAL_STRIDE = (2**NUM_POOLS,) * 3


class FilmUNet(nn.Module):
    """Four levels down, a bottleneck, four levels up; every block is modulated by one embedding.

    Features are b, 2b, 4b, 8b on the way down, 8b at the bottom and 4b, 2b, b, b on the way up, for base features b.
    Inputs of every size are accepted whose sides the total stride of 16 divides.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of the output.
        embedding_features: Length of the vector that modulates the blocks.
        base_features: Features of the full-resolution level; a multiple of the eight groups of its norms.
        attention_gates: Let the features from below weigh each skip connection.
        bottleneck_attention: Let the voxels of the deepest level attend to each other.

    Raises:
        ConfigurationError: `base_features` is no multiple of 8.

    Source:
        Ronneberger et al., MICCAI 2015; FiLM: Perez et al., AAAI 2018.
    """

    total_stride = TOTAL_STRIDE

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding_features: int,
        base_features: Count,
        attention_gates: bool = False,
        bottleneck_attention: bool = False,
    ) -> None:
        super().__init__()
        if base_features < 1 or base_features % NUM_GROUPS:
            raise ConfigurationError(
                f"model.network.base_features: expected a multiple of {NUM_GROUPS}, the groups of its norms, "
                f"got {base_features}: round it"
            )
        features = [base_features * 2**level for level in range(NUM_POOLS)]
        self.down = nn.ModuleList(
            FilmBlock(inputs, outputs, embedding_features)
            for inputs, outputs in zip([in_channels, *features[:-1]], features, strict=True)
        )
        self.bottleneck = FilmBlock(features[-1], features[-1], embedding_features)
        self.attention = SelfAttention(features[-1]) if bottleneck_attention else None
        self.up = nn.ModuleList(
            _Up(deeper, skip, outputs, embedding_features, gated=attention_gates)
            for deeper, skip, outputs in zip(
                [features[-1], *features[-2::-1]], features[::-1], [*features[-2::-1], features[0]], strict=True
            )
        )
        self.head = nn.Conv3d(features[0], out_channels, 1)

    def forward(
        self, image: Float[Tensor, "batch channel i j k"], embedding: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, "batch output i j k"]:
        """Return the output at the image's size.

        Raises:
            ConfigurationError: A side of the image is no multiple of 16.
        """
        check_sides(image.shape[2:])
        modulation = F.silu(embedding)  # every block starts with it
        skips = []
        features = image
        for block in self.down:
            features = block(features, modulation)
            skips.append(features)
            features = F.max_pool3d(features, 2)
        features = self.bottleneck(features, modulation)
        if self.attention is not None:
            features = self.attention(features)
        for up in self.up:
            features = up(features, skips.pop(), modulation)  # popped: in prediction its memory is free afterwards
        if image.is_meta:  # a probe for shapes; torch knows no precision there
            return self.head(features)
        with torch.autocast(image.device.type, enabled=False):  # bfloat16 would round a dose of 70 Gy to 0.3 Gy
            return self.head(features.to(self.head.weight.dtype))


class FilmBlock(nn.Module):
    """Two convolutions with norm and activation, the first one modulated, beside a residual connection."""

    def __init__(self, inputs: int, outputs: int, embedding_features: int) -> None:
        super().__init__()
        self.convolve_1 = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.norm_1 = nn.GroupNorm(NUM_GROUPS, outputs)
        self.modulate = nn.Linear(embedding_features, 2 * outputs)
        self.convolve_2 = nn.Conv3d(outputs, outputs, 3, padding=1)
        self.norm_2 = nn.GroupNorm(NUM_GROUPS, outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv3d(inputs, outputs, 1)

    def forward(
        self, features: Float[Tensor, "batch input i j k"], modulation: Float[Tensor, "batch embedding"]
    ) -> Float[Tensor, "batch output i j k"]:
        """Return the features of the block's width."""
        scale, shift = self.modulate(modulation)[..., None, None, None].chunk(2, dim=1)
        hidden = _silu(self.norm_1(self.convolve_1(features)))
        hidden = torch.addcmul(shift, hidden, 1 + scale)
        hidden = _silu(self.norm_2(self.convolve_2(hidden)))
        shortcut = self.shortcut(features)
        return hidden + shortcut if torch.is_grad_enabled() else hidden.add_(shortcut)


class SelfAttention(nn.Module):
    """Let each voxel attend to all; it starts as the identity.

    Source:
        Vaswani et al., NeurIPS 2017, with the norm in front (Xiong et al., ICML 2020).
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(NUM_GROUPS, features)
        self.query_key_value = nn.Conv3d(features, 3 * features, 1)
        self.project = nn.Conv3d(features, features, 1)
        nn.init.zeros_(self.project.weight)
        assert self.project.bias is not None
        nn.init.zeros_(self.project.bias)

    def forward(self, features: Float[Tensor, "batch feature i j k"]) -> Float[Tensor, "batch feature i j k"]:
        """Return the features, to which what they attended to is added."""
        tokens = self.query_key_value(self.norm(features)).flatten(2)  # batch 3*feature voxel
        query, key, value = tokens.unflatten(1, (3, NUM_HEADS, -1)).transpose(-1, -2).unbind(1)
        attended = F.scaled_dot_product_attention(query, key, value)  # batch head voxel feature
        return features + self.project(attended.transpose(-1, -2).reshape(features.shape))


class AttentionGate(nn.Module):
    """Weigh each voxel of a skip connection between 0 and 1 by what the deeper level holds there.

    The deeper features are projected before they are enlarged, which gives the same as afterwards at an eighth of
    the cost: both steps are linear, and the weights of the interpolation sum to 1.

    Source:
        Oktay et al., MIDL 2018, "Attention U-Net".
    """

    def __init__(self, deeper: int, skip: int) -> None:
        super().__init__()
        hidden = max(skip // 2, 1)
        self.from_skip = nn.Conv3d(skip, hidden, 1)
        self.from_deeper = nn.Conv3d(deeper, hidden, 1)
        self.weigh = nn.Conv3d(hidden, 1, 1)

    def forward(
        self, deeper: Float[Tensor, "batch deep *small"], skip: Float[Tensor, "batch feature *large"]
    ) -> Float[Tensor, "batch feature *large"]:
        """Return the weighed skip connection."""
        hidden = F.relu(self.from_skip(skip) + enlarge(self.from_deeper(deeper)))
        return skip * self.weigh(hidden).sigmoid()


class _Up(nn.Module):
    """Go one level up: enlarge, put the skipped features beside it, convolve."""

    def __init__(self, deeper: int, skip: int, outputs: int, embedding_features: int, *, gated: bool) -> None:
        super().__init__()
        self.gate = AttentionGate(deeper, skip) if gated else None
        self.block = FilmBlock(deeper + skip, outputs, embedding_features)

    def forward(
        self,
        deeper: Float[Tensor, "batch deep *small"],
        skip: Float[Tensor, "batch feature *large"],
        modulation: Float[Tensor, "batch embedding"],
    ) -> Float[Tensor, "batch output *large"]:
        if self.gate is not None:
            skip = self.gate(deeper, skip)
        return self.block(cat((enlarge(deeper), skip), dim=1), modulation)


def embed(inputs: int, outputs: int) -> nn.Sequential:
    """Return the two layers that turn a vector into an embedding."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.SiLU(), nn.Linear(outputs, outputs))


def enlarge(features: Float[Tensor, "batch feature *small"]) -> Float[Tensor, "batch feature *large"]:
    """Return the features at twice the resolution, voxel centers in place."""
    return F.interpolate(features, scale_factor=2, mode="trilinear", align_corners=False)


def check_sides(size: Sequence[int]) -> None:
    """Refuse a size that the pools would round.

    Raises:
        ConfigurationError: A side is no multiple of the network's total stride.
    """
    if any(side % step for side, step in zip(size, TOTAL_STRIDE, strict=True)):
        raise ConfigurationError(
            f"dataset.patch_size (or predict.tile): expected multiples of {TOTAL_STRIDE}, the network's total stride, "
            f"got {tuple(size)}: round the patch up"
        )


def _silu(features: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Activate; in place where no gradient needs the input, which saves a volume of memory per layer."""
    return F.silu(features, inplace=not torch.is_grad_enabled())

"""A U-Net whose depth, strides and kernels follow from a plan; two or three dimensions."""

from collections.abc import Sequence
from math import prod
from typing import Any

from jaxtyping import Float
from torch import Tensor, cat, nn

from medexp.errors import ConfigurationError
from medexp.types import Count

_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMS: dict[int, Any] = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_LEAK = 0.01


class UNet(nn.Module):
    """nnU-Net's plain convolutional U-Net: strided convolutions down, transposed ones up.

    Each level doubles the features, up to `max_features`. While training with `deep_supervision`, `forward`
    returns one map of logits per level but the deepest, full resolution first; otherwise the first alone.

    Args:
        in_channels: Channels of the image.
        out_channels: Labels, background included.
        strides: Step of each level along each axis; the first level's is 1.
        kernel_sizes: Kernel of each level's convolutions along each axis; odd.
        base_features: Features of the full-resolution level.
        max_features: Features that no level exceeds.
        convs_per_level: Convolutions of each level, on the way down and on the way up.
        deep_supervision: Give every level but the deepest a head of its own.

    Raises:
        ConfigurationError: The levels of `strides` and `kernel_sizes` do not agree, or the first stride is not 1.

    Source:
        Isensee et al., Nature Methods 18, 203 (2021), and `PlainConvUNet` of dynamic-network-architectures
        (Apache-2.0), reimplemented; the number of parameters agrees (tests/networks/test_unet.py).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        strides: Sequence[Sequence[int]],
        kernel_sizes: Sequence[Sequence[int]],
        base_features: Count,
        max_features: Count,
        convs_per_level: Count,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        _check_levels(strides, kernel_sizes)
        self.deep_supervision = deep_supervision
        self.total_stride = tuple(prod(steps) for steps in zip(*strides, strict=True))
        features = [min(base_features * 2**level, max_features) for level in range(len(strides))]
        channels = [in_channels, *features]
        self.encoder = nn.ModuleList(
            _stack(channels[level], features[level], tuple(kernel_sizes[level]), tuple(strides[level]), convs_per_level)
            for level in range(len(strides))
        )
        self.decoder = nn.ModuleList(
            _Up(
                features[level],
                features[level + 1],
                tuple(kernel_sizes[level]),
                tuple(strides[level + 1]),
                convs_per_level,
            )
            for level in range(len(strides) - 1)
        )
        num_heads = len(self.decoder) if deep_supervision else 1
        convolution = _CONVOLUTIONS[len(strides[0])]
        self.heads = nn.ModuleList(convolution(features[level], out_channels, 1) for level in range(num_heads))
        self.apply(_initialize)

    def forward(
        self, image: Float[Tensor, "batch channel *spatial"]
    ) -> Float[Tensor, "batch label *spatial"] | list[Tensor]:
        """Return the logits; while training with deep supervision, those of every head, full resolution first.

        Raises:
            ConfigurationError: A side of the image is no multiple of the network's total stride.
        """
        self._check_size(image.shape[2:])
        skips = []
        features = image
        for level in self.encoder:
            features = level(features)
            skips.append(features)
        supervised = self.deep_supervision and self.training
        maps: list[Tensor] = []  # full resolution first
        for up, skip in zip(reversed(self.decoder), reversed(skips[:-1]), strict=True):
            features = up(features, skip)
            maps = [features, *maps] if supervised else [features]
        logits = [head(features) for head, features in zip(self.heads, maps, strict=supervised)]
        return logits if supervised else logits[0]

    def _check_size(self, size: Sequence[int]) -> None:
        if any(side % step for side, step in zip(size, self.total_stride, strict=True)):
            raise ConfigurationError(
                f"dataset.patch_size (or predict.tile): expected multiples of {self.total_stride}, the network's total "
                f"stride, got {tuple(size)}: round the patch up, or take the plan's (dataset.patch_size=null)"
            )


class _Up(nn.Module):
    """Go one level up: enlarge, put the skipped features beside it, convolve."""

    def __init__(
        self, features: int, deeper: int, kernel: tuple[int, ...], stride: tuple[int, ...], num_convs: int
    ) -> None:
        super().__init__()
        self.enlarge = _TRANSPOSED[len(stride)](deeper, features, stride, stride)
        self.convolve = _stack(2 * features, features, kernel, (1,) * len(stride), num_convs)

    def forward(
        self, deeper: Float[Tensor, "batch deep *small"], skip: Float[Tensor, "batch feature *large"]
    ) -> Float[Tensor, "batch feature *large"]:
        return self.convolve(cat((self.enlarge(deeper), skip), dim=1))


def _stack(
    inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...], num_convs: int
) -> nn.Sequential:
    """Return convolutions with norm and activation; the first one strides."""
    layers: list[nn.Module] = []
    for index in range(num_convs):
        first = index == 0
        layers += [
            _CONVOLUTIONS[len(kernel)](
                inputs if first else outputs,
                outputs,
                kernel,
                stride if first else 1,
                padding=tuple(size // 2 for size in kernel),
            ),
            _NORMS[len(kernel)](outputs, affine=True),
            nn.LeakyReLU(_LEAK, inplace=True),
        ]
    return nn.Sequential(*layers)


def _initialize(module: Any) -> None:
    kinds = (*_CONVOLUTIONS.values(), *_TRANSPOSED.values())
    if type(module) in kinds:
        nn.init.kaiming_normal_(module.weight, a=_LEAK)
        nn.init.zeros_(module.bias)


def _check_levels(strides: Sequence[Sequence[int]], kernel_sizes: Sequence[Sequence[int]]) -> None:
    axes = {len(level) for level in (*strides, *kernel_sizes)}
    if len(strides) != len(kernel_sizes) or len(strides) < 2 or len(axes) != 1 or not axes <= set(_CONVOLUTIONS):
        raise ConfigurationError(
            f"model.network: expected one stride and one kernel per level and axis, at least two levels, "
            f"got strides {strides} and kernel_sizes {kernel_sizes}: prepare the data again, or correct the plan"
        )
    if any(step != 1 for step in strides[0]) or any(size % 2 == 0 for kernel in kernel_sizes for size in kernel):
        raise ConfigurationError(
            f"model.network: expected a first stride of 1 and odd kernels, got strides {strides} and "
            f"kernel_sizes {kernel_sizes}: correct the plan"
        )

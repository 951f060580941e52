"""The features of a VGG16 that was trained on photographs, fixed."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, relu

from medexp.errors import CheckpointMismatchError, ConfigurationError
from medexp.networks.weights import read_weights
from medexp.types import Count

# Inputs, outputs and torchvision's index of each convolution, block by block; a pool lies between blocks.
_BLOCKS = (
    ((3, 64, 0), (64, 64, 2)),
    ((64, 128, 5), (128, 128, 7)),
    ((128, 256, 10), (256, 256, 12), (256, 256, 14)),
    ((256, 512, 17), (512, 512, 19), (512, 512, 21)),
    ((512, 512, 24), (512, 512, 26), (512, 512, 28)),
)
# Of ImageNet's colors, by which torchvision's weights expect them to be normalized.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


class VggFeatures(nn.Module):
    """The last features of the first blocks, for gray pictures between 0 and 1.

    The weights are constants: no optimizer sees them and no checkpoint holds them.

    Args:
        path: A state dict in torchvision's layout (`vgg16`), alone or with its classifier.
        sha256: What the file must hash to.
        num_blocks: Blocks that are used, one to five.

    Raises:
        ConfigurationError: There is no such file, or no such number of blocks.
        CheckpointMismatchError: The hash differs, or a tensor is missing or of another shape.

    Source:
        Simonyan and Zisserman, ICLR 2015, configuration D; agrees with `torchvision.models.vgg16`
        (tests/networks/test_vgg.py).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, *, path: str | Path, sha256: str, num_blocks: Count) -> None:
        super().__init__()
        if not 1 <= num_blocks <= len(_BLOCKS):
            raise ConfigurationError(f"num_blocks of VGG16: expected 1 to {len(_BLOCKS)}, got {num_blocks}")
        file = Path(path).expanduser()
        if not file.is_file():
            raise ConfigurationError(
                f"path of the perceptual loss: expected a local file with torchvision's weights of VGG16, got {path}: "
                f"fetch it beforehand, or leave the term out"
            )
        self.blocks = _BLOCKS[:num_blocks]
        self._keep(read_weights(file, sha256=sha256).tensors, file)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1), persistent=False)

    def forward(self, picture: Float[Tensor, "picture 1 height width"]) -> list[Tensor]:
        """Return each block's features, after its last activation."""
        features, found = (picture - self.mean) / self.deviation, []
        for number, block in enumerate(self.blocks):
            if number:
                features = max_pool2d(features, 2)
            for *_, index in block:
                weight, bias = self.get_buffer(f"weight_{index}"), self.get_buffer(f"bias_{index}")
                features = relu(conv2d(features, weight, bias, padding=1))
            found.append(features)
        return found

    def _keep(self, tensors: Mapping[str, Tensor], file: Path) -> None:
        for inputs, outputs, index in (layer for block in self.blocks for layer in block):
            for name, shape in (("weight", (outputs, inputs, 3, 3)), ("bias", (outputs,))):
                found = tensors.get(f"features.{index}.{name}")
                if found is None or tuple(found.shape) != shape:
                    got = "nothing" if found is None else tuple(found.shape)
                    raise CheckpointMismatchError(
                        f"{file}: expected features.{index}.{name} of {shape}, as torchvision's vgg16 has it, got {got}"
                    )
                self.register_buffer(f"{name}_{index}", found.float().contiguous(), persistent=False)

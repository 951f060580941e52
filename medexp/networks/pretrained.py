"""Put foreign weights into a network and account for every value that did or did not fit."""

import copy
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from medexp.errors import CheckpointMismatchError, ConfigurationError
from medexp.networks.weights import Weights

_log = logging.getLogger(__name__)

# What trainers and wrappers put before a network's own names.
_LOSS = "loss"  # where every model keeps its loss
_WRAPPERS = frozenset({"module", "network", "model", "net", "_orig_mod", "state_dict"})
_MAX_NAMED = 5


@dataclass(frozen=True)
class Coverage:
    """What became of a file's weights.

    Attributes:
        source: The file.
        sha256: Of its bytes.
        loaded: Tensors of the network that now hold the file's values.
        missing: Tensors of the network that the file lacks.
        unexpected: Tensors of the file that the network lacks.
        mismatched: Tensors of both whose shapes differ, with the file's shape and the network's.
        replaced: Tensors of the head, which starts anew; empty if the file's head fitted.
        permuted: Tensors whose input channels were brought into the dataset's order.
        share: Of the network's values, a replaced head aside, those that were loaded.
        summed: Tensors whose input channels were summed to one, for gray images.
    """

    source: str
    sha256: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    replaced: tuple[str, ...]
    permuted: tuple[str, ...]
    share: float
    summed: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return one paragraph for the log and for error messages."""
        shapes = [f"{name} {theirs} for {ours}" for name, theirs, ours in self.mismatched]
        parts = [f"{len(self.loaded)} tensors loaded ({100 * self.share:.1f} % of the values)"]
        for word, names in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", shapes),
            ("of the head started anew", self.replaced),
            ("with permuted channels", self.permuted),
            ("summed over colors for gray images", self.summed),
        ):
            if names:
                parts.append(f"{len(names)} {word} ({_abridged(names)})")
        return ", ".join(parts)


def load_weights(
    network: nn.Module,
    weights: Weights,
    *,
    head: str | None,
    min_coverage: float,
    channels: Sequence[str] | None = None,
    weights_channels: Sequence[str] | None = None,
    image_size: Sequence[int] = (),
    further_inputs: Sequence[Tensor] = (),
) -> Coverage:
    """Copy what fits into `network`; if that is too little, change nothing and refuse.

    Args:
        network: Built for the dataset at hand.
        weights: What `read_weights` returned.
        head: The layer whose outputs are the labels; it starts anew unless all of it fits. None: no layer is special.
        min_coverage: Share of the values, a replaced head aside, that must be loaded.
        channels: The order in which the dataset gives the channels. None: input is not looked at.
        weights_channels: The order that the weights were trained on.
        image_size: A size that the network accepts; needed if channels have to be permuted.
        further_inputs: What the network takes after the image, for a batch of one; only shapes and types count.

    Raises:
        CheckpointMismatchError: Too little fits, or two tensors of the file claim one name.
        ConfigurationError: `head` names no layer, or the channels' names differ.
    """
    own = network.state_dict()
    found, unexpected = _match_names(weights, own)
    permuted: tuple[str, ...] = ()
    if channels is not None and weights_channels is not None:
        order = match_channels(channels, weights_channels)
        if order != list(range(len(order))):
            permuted = find_input_weights(network, len(channels), image_size, further_inputs)
            found |= {name: found[name][:, order] for name in permuted if name in found}
    coverage = _compare(own, found, weights, head=head, unexpected=unexpected, permuted=permuted)
    if coverage.share < min_coverage:
        raise CheckpointMismatchError(
            f"{weights.path}: expected weights for at least {100 * min_coverage:.0f} % of the network's values "
            f"(model.min_weight_coverage), got {coverage}: correct model.network or give other weights"
        )
    network.load_state_dict({name: found[name] for name in coverage.loaded}, strict=False)
    if coverage.replaced and head is not None:
        reset_head(network, head)
    _log.info("%s: %s", weights.path, coverage)
    return coverage


def load_part(network: nn.Module, weights: Weights, *, part: str, min_coverage: float) -> Coverage:
    """Copy weights into one part of `network`, for example ImageNet's into its encoder.

    Where the file's first layer takes more channels than the part's, which takes one, its weights are summed over
    channels: a gray image then gives what it would give as equal channels. What else does not fit stays as it is.

    Args:
        network: Built for the dataset at hand.
        weights: What `read_weights` returned.
        part: The part's dotted name.
        min_coverage: Share of the part's values that must be loaded.

    Raises:
        ConfigurationError: There is no such part.
        CheckpointMismatchError: Too little fits.
    """
    try:
        module = network.get_submodule(part)
    except AttributeError as error:
        names = [name for name, _ in network.named_children()]
        raise ConfigurationError(f"model.weights_part: expected one of {names}, got '{part}'; choose one") from error
    own = module.state_dict()
    found, unexpected = _match_names(weights, own)
    summed = tuple(name for name, value in own.items() if name in found and _is_gray_of(value, found[name]))
    found |= {name: found[name].sum(1, keepdim=True) for name in summed}
    coverage = _compare(own, found, weights, head=None, unexpected=unexpected, permuted=())
    coverage = dataclasses.replace(coverage, summed=summed)
    if coverage.share < min_coverage:
        raise CheckpointMismatchError(
            f"{weights.path}: expected weights for at least {100 * min_coverage:.0f} % of the values of {part} "
            f"(model.min_weight_coverage), got {coverage}: correct model.network or give other weights"
        )
    module.load_state_dict({name: found[name] for name in coverage.loaded}, strict=False)
    _log.info("%s: %s", weights.path, coverage)
    return coverage


def _is_gray_of(own: Tensor, found: Tensor) -> bool:
    """Say whether a weight takes one channel where the file's takes several, and is the same otherwise."""
    shapes = own.shape, found.shape
    return (
        own.dim() == found.dim() > 2
        and own.shape[1] == 1 < found.shape[1]
        and shapes[0][2:] == shapes[1][2:]
        and (own.shape[0] == found.shape[0])
    )


def load_all(network: nn.Module, weights: Weights) -> Coverage:
    """Copy a checkpoint of the same network; each tensor of either must be in the other.

    What a loss has learned belongs to its own stage and is left out on both sides.

    Raises:
        CheckpointMismatchError: One is not; the message lists the names.
    """
    own = {name: tensor for name, tensor in network.state_dict().items() if not _is_below(name, _LOSS)}
    found, unexpected = _match_names(weights, own)
    unexpected = tuple(name for name in unexpected if not _is_below(name, _LOSS))
    coverage = _compare(own, found, weights, head=None, unexpected=unexpected, permuted=())
    if coverage.missing or coverage.unexpected or coverage.mismatched:
        raise CheckpointMismatchError(
            f"{weights.path}: expected every tensor of the network and no other, got {coverage}: "
            f"compose the network that the checkpoint was trained with"
        )
    network.load_state_dict(found, strict=False)  # every tensor but the loss's is known to be there
    _log.info("%s: %s", weights.path, coverage)
    return coverage


def reset_head(network: nn.Module, head: str) -> None:
    """Start the head's convolutions anew: Kaiming normal over their outputs, no bias.

    Raises:
        ConfigurationError: `head` names no layer, or one without weights.
    """
    layers: list[Any] = [
        part for name, part in network.named_modules() if _is_below(name, head) and _holds_weight(part)
    ]
    if not layers:
        names = [name for name, _ in network.named_modules() if name]
        raise ConfigurationError(
            f"model.head: expected a layer with weights, got '{head}'; the nearest are "
            f"{get_close_matches(head, names, n=3, cutoff=0.3) or names[-3:]}"
        )
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def match_channels(channels: Sequence[str], weights_channels: Sequence[str]) -> list[int]:
    """Return, for each of the dataset's channels, its position in the order of the weights.

    Raises:
        ConfigurationError: A name stands in one order only.
    """
    missing, extra = set(weights_channels) - set(channels), set(channels) - set(weights_channels)
    if missing or extra:
        raise ConfigurationError(
            f"model.weights_channels: expected the dataset's channels {list(channels)} in any order, got "
            f"{list(weights_channels)}: the dataset lacks {sorted(missing)} and the weights do not know {sorted(extra)}"
        )
    return [list(weights_channels).index(name) for name in channels]


def find_input_weights(
    network: nn.Module, num_channels: int, image_size: Sequence[int], further_inputs: Sequence[Tensor] = ()
) -> tuple[str, ...]:
    """Return the names of the weights that meet the image itself, found by a run without values.

    Raises:
        ConfigurationError: No layer takes the image's channels as they come.
    """
    probe = copy.deepcopy(network).to("meta").eval()
    image = torch.empty((1, num_channels, *image_size), device="meta")
    met: list[str] = []

    def note(name: str) -> Any:
        return lambda _module, inputs: met.append(f"{name}.weight") if inputs and inputs[0] is image else None

    for name, module in probe.named_modules():
        if _holds_weight(module):
            module.register_forward_pre_hook(note(name))
    with torch.no_grad():
        probe(image, *(one.to("meta") for one in further_inputs))
    shapes = {name: tuple(tensor.shape) for name, tensor in probe.state_dict().items()}
    if not met or any(len(shapes[name]) < 2 or shapes[name][1] != num_channels for name in met):
        raise ConfigurationError(
            f"model.weights_channels: expected layers that take the image's {num_channels} channels, got {met}: this "
            f"network's channels cannot be permuted; give dataset.channels in the order of the weights"
        )
    return tuple(dict.fromkeys(met))


def _match_names(weights: Weights, own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the file's tensors by the network's names, wrappers' prefixes dropped, and the names left over."""
    found: dict[str, Tensor] = {}
    unexpected = []
    for name, tensor in weights.tensors.items():
        bare = name
        while bare not in own and bare.partition(".")[0] in _WRAPPERS and "." in bare:
            bare = bare.partition(".")[2]
        if bare not in own:
            unexpected.append(name)
        elif bare in found:
            raise CheckpointMismatchError(
                f"{weights.path}: expected one tensor for {bare}, got several, one of them {name}"
            )
        else:
            found[bare] = tensor
    return found, tuple(unexpected)


def _compare(
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    weights: Weights,
    *,
    head: str | None,
    unexpected: tuple[str, ...],
    permuted: tuple[str, ...],
) -> Coverage:
    fits = {name for name in own if name in found and found[name].shape == own[name].shape}
    of_head = {name for name in own if head is not None and _is_below(name, head)}
    replaced = of_head if not of_head <= fits else set()
    counted = [name for name in own if name not in replaced]
    loaded = tuple(name for name in counted if name in fits)
    total = sum(own[name].numel() for name in counted)
    return Coverage(
        source=str(weights.path),
        sha256=weights.sha256,
        loaded=loaded,
        missing=tuple(name for name in counted if name not in found),
        unexpected=unexpected,
        mismatched=tuple(
            (name, tuple(found[name].shape), tuple(own[name].shape))
            for name in counted
            if name in found and name not in fits
        ),
        replaced=tuple(name for name in own if name in replaced),
        permuted=permuted,
        share=sum(own[name].numel() for name in loaded) / max(total, 1),
    )


def _is_below(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _holds_weight(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() > 1


def _abridged(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")

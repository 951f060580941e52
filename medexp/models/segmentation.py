"""How a network learns to give each voxel one of several labels."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor, nn

from medexp.errors import ConfigurationError
from medexp.inference.decisions import Decision, Softmax
from medexp.inference.ensembling import average_flips
from medexp.inference.sliding_window import SlidingWindow
from medexp.keys import IMAGE, LABEL
from medexp.metrics.label_dice import LabelDice
from medexp.models.curriculum import Phase
from medexp.models.learning import Learning, Mode, build_network, loss_of
from medexp.networks.pretrained import reset_head
from medexp.types import DataContract, Share

_LARGEST = Softmax()


class Segmentation(Learning):
    """A network completed with a dataset's contract, and one phase of its curriculum.

    Building it loads the configured weights, starts the head anew, and freezes what the phase says. Validation runs
    over whole volumes: `val/dice/<label or region>` is the mean over the cases in which reference or prediction
    hold it, `val/cases/<label or region>` their number, `val/dice/mean` the mean over the labels.

    Args:
        contract: What the dataset promises.
        phase: The curriculum's entry to train; None: the model only predicts.
        network: Takes `in_channels`, `out_channels` and what the plan says, as far as its signature has them.
        head: The layer whose outputs are the labels; it starts anew. None: no layer is special.
        weights: A file, a MONAI bundle folder or a hub id; None: random values.
        weights_sha256: What the file must hash to; None: it is recorded, not checked.
        weights_channels: The order of channels that the weights were trained on. A checkpoint of medexp knows its own.
        min_weight_coverage: Share of the network's values, its head aside, that the weights must fill.
        loss: Takes `label_weights`.
        weigh_labels: Weigh the loss by the dataset's label weights.
        deep_supervision: The network returns one output per level while it trains; deeper ones count half as much.
        compile: Compile the network.
        channels_last: Keep channels innermost in memory.
        window: Covers whole volumes in validation.
        curriculum: The phases by name.
        monitor: The validation score that chooses the best checkpoint.
        monitor_mode: Whether less or more of it is better.
        decision: What the outputs mean.
        weights_part: The part of the network that the weights are of, for example its encoder; None: all of it.

    Raises:
        ConfigurationError: The phase, head, channels or freeze patterns name nothing that is there.
        CheckpointMismatchError: The weights are damaged or cover too little.
    """

    decision: Decision
    scores: LabelDice

    def __init__(
        self,
        *,
        contract: DataContract,
        phase: str | None = None,
        network: Callable[..., nn.Module],
        head: str | None,
        weights: str | Path | None,
        weights_sha256: str | None,
        weights_channels: Sequence[str] | None,
        min_weight_coverage: Share,
        loss: Callable[..., nn.Module],
        weigh_labels: bool,
        deep_supervision: bool,
        compile: bool,  # noqa: A002 - the configuration's word
        channels_last: bool,
        window: SlidingWindow,
        curriculum: Mapping[str, Phase],
        monitor: str,
        monitor_mode: Mode,
        decision: Decision = _LARGEST,
        weights_part: str | None = None,
    ) -> None:
        super().__init__(
            contract=contract,
            phase=phase,
            curriculum=curriculum,
            monitor=monitor,
            monitor_mode=monitor_mode,
            record=_record(contract, decision),
        )
        self.window, self.decision = window, decision
        self.network = _build(network, contract, decision, deep_supervision=deep_supervision)
        if head is not None:
            reset_head(self.network, head)
        if weights is not None:
            self.coverage = self._load_weights(
                str(weights),
                weights_sha256,
                channels=contract.channels,
                weights_channels=weights_channels,
                part=weights_part,
                head=head,
                min_coverage=min_weight_coverage,
            )
        build_loss = loss_of(self.phase, loss)
        self.loss = build_loss(label_weights=contract.ordered_label_weights() if weigh_labels else None)
        self.scores = LabelDice(contract.labels, contract.region_values())
        self._take_phase(channels_last=channels_last, compile_network=compile)

    def forward(self, image: Float[Tensor, "batch channel *spatial"]) -> Float[Tensor, "batch label *spatial"]:
        """Return the logits at full resolution."""
        return self._outputs(image)[0]

    def infer(
        self,
        inputs: Mapping[str, Tensor],
        *,
        window: SlidingWindow,
        flip_axes: Sequence[int] = (),
        tile: Sequence[int] | None = None,
    ) -> Float[Tensor, "output *spatial"]:
        """Return the probabilities of a whole case; see `segment`."""
        return self.segment(inputs[IMAGE], window=window, flip_axes=flip_axes, tile=tile)

    def segment(
        self,
        image: Float[Tensor, "channel *spatial"],
        *,
        window: SlidingWindow,
        flip_axes: Sequence[int] = (),
        tile: Sequence[int] | None = None,
    ) -> Float[Tensor, "output *spatial"]:
        """Return the probabilities of a whole volume or image; call it in evaluation mode.

        Args:
            image: As the datamodule gives it, on the model's device.
            window: Covers the volume.
            flip_axes: Average the logits over the copies that are mirrored along these axes.
            tile: Size of the windows; None: that of the training patches.
        """
        logits = window(
            average_flips(self.forward, flip_axes) if flip_axes else self.forward,
            image,
            patch_size=self.contract.patch_size if tile is None else tile,
            background=self.decision.background(self.contract),
        )
        return self.decision.probabilities(logits)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Float[Tensor, ""]:
        """Return the loss of a batch, scaled so that each optimizer step uses the mean over its batches."""
        loss = self._supervise(self._outputs(batch[IMAGE]), batch[LABEL])
        return self._scaled(loss, batch_idx, size=len(batch[IMAGE]))

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Segment whole volumes and count."""
        prediction = torch.stack([self._decided(image) for image in batch[IMAGE]])
        for predicted, label in zip(prediction, batch[LABEL], strict=True):
            self.scores.add(predicted, label)
        return {"prediction": prediction}

    def _decided(self, image: Float[Tensor, "channel *spatial"]) -> UInt8[Tensor, "*spatial"]:
        return self.decision.decide(self.segment(image, window=self.window))

    def _outputs(self, image: Float[Tensor, "batch channel *spatial"]) -> list[Tensor]:
        """Return the network's outputs, full resolution first."""
        outputs = self.network(self._in_memory_format(image))
        return list(outputs) if isinstance(outputs, list | tuple) else [outputs]

    def _supervise(self, outputs: list[Tensor], label: Integer[Tensor, "batch *spatial"]) -> Float[Tensor, ""]:
        """Return the loss; each further output counts half as much as the one before, and all weights sum to 1."""
        shares = [0.5**level for level in range(len(outputs))]
        losses = [
            share / sum(shares) * self.loss(output, _thin_out(label, output.shape[2:]))
            for share, output in zip(shares, outputs, strict=True)
        ]
        return torch.stack(losses).sum()


def _build(
    network: Callable[..., nn.Module], contract: DataContract, decision: Decision, *, deep_supervision: bool
) -> nn.Module:
    """Return the network with as many outputs and levels as the data ask for."""
    num_outputs = decision.num_outputs(contract)
    offered = {
        "in_channels": len(contract.channels),
        "out_channels": num_outputs,
        "classes": num_outputs,
        "strides": contract.plan.strides,
        "kernel_sizes": contract.plan.kernel_sizes,
        "deep_supervision": deep_supervision,
    }
    if deep_supervision and "deep_supervision" not in inspect.signature(network).parameters:
        raise ConfigurationError("model.deep_supervision: expected false, got true: the network has one output only")
    return build_network(network, offered)


def _thin_out(label: Integer[Tensor, "batch *full"], size: Sequence[int]) -> Integer[Tensor, "batch *small"]:
    """Take every n-th voxel, so that the label has the size of a deeper output."""
    steps = [full // side for full, side in zip(label.shape[1:], size, strict=True)]
    return label[(slice(None), *(slice(None, None, step) for step in steps))]


def _record(contract: DataContract, decision: Decision) -> dict[str, Any]:
    """Return the contract as plain values, which a checkpoint can hold and be read back without running anything."""
    return {
        "name": contract.name,
        "channels": list(contract.channels),
        "labels": dict(contract.labels),
        "regions": {name: list(members) for name, members in contract.regions.items()},
        "patch_size": list(contract.patch_size),
        "plan": contract.plan.to_json(),
        "decision": decision.to_json(),
    }

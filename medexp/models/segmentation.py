"""How a network learns to give each voxel one of several labels."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Integer, UInt8
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from medexp.errors import ConfigurationError
from medexp.inference.decisions import Decision, Softmax
from medexp.inference.ensembling import average_flips
from medexp.inference.sliding_window import SlidingWindow
from medexp.keys import IMAGE, LABEL
from medexp.metrics.label_dice import LabelDice
from medexp.models.curriculum import Phase, Plateau, find_frozen_modules, freeze
from medexp.networks.pretrained import Coverage, load_all, load_part, load_weights, reset_head
from medexp.networks.weights import locate_weights, read_weights
from medexp.types import DataContract, Share

_LARGEST = Softmax()
_MEMORY_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}


class Segmentation(LightningModule):
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
        decision: What the outputs mean.
        weights_part: The part of the network that the weights are of, for example its encoder; None: all of it.

    Raises:
        ConfigurationError: The phase, head, channels or freeze patterns name nothing that is there.
        CheckpointMismatchError: The weights are damaged or cover too little.
    """

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
        decision: Decision = _LARGEST,
        weights_part: str | None = None,
    ) -> None:
        super().__init__()
        self.contract = contract
        self.phase = None if phase is None else _choose(curriculum, phase)
        self.window, self.decision = window, decision
        self.save_hyperparameters({"contract": _record(contract, decision), "phase": phase}, logger=False)
        self.network = _build(network, contract, decision, deep_supervision=deep_supervision)
        if head is not None:
            reset_head(self.network, head)
        self.coverage: Coverage | None = None
        if weights is not None:
            self.coverage = self._load_weights(
                str(weights),
                weights_sha256,
                weights_channels,
                part=weights_part,
                head=head,
                min_coverage=min_weight_coverage,
            )
        self._frozen_modules: list[nn.Module] = []
        if self.phase is not None:
            freeze(self.network, self.phase.freeze)
            self._frozen_modules = find_frozen_modules(self.network, self.phase.freeze)
        self.loss = loss(label_weights=contract.ordered_label_weights() if weigh_labels else None)
        self._memory_format = _MEMORY_FORMATS[len(contract.patch_size)] if channels_last else None
        if self._memory_format is not None:
            self.network.to(memory_format=self._memory_format)
        if compile:
            self.network.compile()
        self._dice = LabelDice(contract.labels, contract.region_values())
        self.train()

    @property
    def weights_report(self) -> str | None:
        """What became of the configured weights, in one line; None if none were asked for."""
        if self.coverage is None:
            return None
        return f"pretrained weights: {self.coverage}, from {self.coverage.source}, sha256 {self.coverage.sha256}"

    def load_initial(self, path: Path, *, sha256: str | None = None) -> Coverage:
        """Take the weights of a checkpoint of the same model, all of them, and nothing else from it.

        Raises:
            CheckpointMismatchError: The bytes are not the recorded ones, or a tensor is missing, left over or of
                another shape.
        """
        return load_all(self, read_weights(path, sha256=sha256))

    def train(self, mode: bool = True) -> "Segmentation":  # noqa: FBT001, FBT002 - torch's signature
        """Switch to training; frozen parts stay in evaluation, so that their statistics and dropout rest."""
        super().train(mode)
        for module in self._frozen_modules:
            module.eval()
        return self

    def forward(self, image: Float[Tensor, "batch channel *spatial"]) -> Float[Tensor, "batch label *spatial"]:
        """Return the logits at full resolution."""
        return self._outputs(image)[0]

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
        # The mean over ranks is the global batch's loss: each rank's is its part of it.
        size = len(batch[IMAGE])
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=False, batch_size=size, sync_dist=True)
        scale = self._group_scale(batch_idx)
        return loss if scale == 1.0 else loss * scale

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Segment whole volumes and count."""
        prediction = torch.stack([self._decided(image) for image in batch[IMAGE]])
        for predicted, label in zip(prediction, batch[LABEL], strict=True):
            self._dice.add(predicted, label)
        return {"prediction": prediction}

    def _decided(self, image: Float[Tensor, "channel *spatial"]) -> UInt8[Tensor, "*spatial"]:
        return self.decision.decide(self.segment(image, window=self.window))

    def on_validation_epoch_start(self) -> None:
        """Forget the cases of the epoch before."""
        self._dice.clear()

    def on_validation_epoch_end(self) -> None:
        """Log the scores; every rank has seen all cases, so nothing is exchanged."""
        scores = {f"val/{name}": value for name, value in self._dice.summary().items()}
        for name, value in scores.items():
            self.log(name, value, on_epoch=True, rank_zero_only=False)
        plateau = self._plateau
        if plateau is not None and not self.trainer.sanity_checking:
            plateau.look_at(scores)

    @property
    def _plateau(self) -> Plateau | None:
        schedule = None if self.phase is None else self.phase.schedule
        return schedule if isinstance(schedule, Plateau) else None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the checkpoint hold how far a plateau has been waited out."""
        if self._plateau is not None:
            checkpoint["plateau"] = self._plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it up."""
        if self._plateau is not None and "plateau" in checkpoint:
            self._plateau.load_state_dict(checkpoint["plateau"])

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the phase's optimizer over what trains, and its warm-up and schedule per optimizer step."""
        phase = self._require_phase()
        optimizer = phase.optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        total_steps = self.trainer.estimated_stepping_batches
        if math.isinf(total_steps):
            raise ConfigurationError(
                f"trainer.max_epochs: expected a number of epochs, which the schedule needs, got "
                f"{self.trainer.max_epochs}: give one"
            )
        scheduler = phase.build_scheduler(optimizer, total_steps=int(total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _outputs(self, image: Float[Tensor, "batch channel *spatial"]) -> list[Tensor]:
        """Return the network's outputs, full resolution first."""
        if self._memory_format is not None:
            image = image.to(memory_format=self._memory_format)
        outputs = self.network(image)
        return list(outputs) if isinstance(outputs, list | tuple) else [outputs]

    def _supervise(self, outputs: list[Tensor], label: Integer[Tensor, "batch *spatial"]) -> Float[Tensor, ""]:
        """Return the loss; each further output counts half as much as the one before, and all weights sum to 1."""
        shares = [0.5**level for level in range(len(outputs))]
        losses = [
            share / sum(shares) * self.loss(output, _thin_out(label, output.shape[2:]))
            for share, output in zip(shares, outputs, strict=True)
        ]
        return torch.stack(losses).sum()

    def _group_scale(self, batch_idx: int) -> float:
        """Return the factor that undoes Lightning's division by a whole group where the epoch's last one is partial."""
        group, total = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        if group == 1 or math.isinf(total):
            return 1.0
        remainder = int(total) % group
        return group / remainder if remainder and batch_idx >= total - remainder else 1.0

    def _load_weights(
        self,
        source: str,
        sha256: str | None,
        channels: Sequence[str] | None,
        *,
        part: str | None,
        head: str | None,
        min_coverage: float,
    ) -> Coverage:
        weights = read_weights(locate_weights(source), sha256=sha256)
        if part is not None:
            return load_part(self.network, weights, part=part, min_coverage=min_coverage)
        recorded = None if weights.contract is None else weights.contract["channels"]
        order = recorded or channels
        if order is None:
            raise ConfigurationError(
                f"model.weights_channels: expected the names of the channels that {source} was trained on, in order, "
                f"got null: the dataset gives {list(self.contract.channels)}"
            )
        return load_weights(
            self.network,
            weights,
            head=head,
            min_coverage=min_coverage,
            channels=self.contract.channels,
            weights_channels=order,
            image_size=self.contract.patch_size,
        )

    def _require_phase(self) -> Phase:
        if self.phase is None:
            raise ConfigurationError("expected a phase of the model's curriculum to train, got none: name one")
        return self.phase


def _choose(curriculum: Mapping[str, Phase], name: str) -> Phase:
    if name not in curriculum:
        raise ConfigurationError(f"stage: expected one of the model's curriculum {sorted(curriculum)}, got '{name}'")
    return curriculum[name]


def _build(
    network: Callable[..., nn.Module], contract: DataContract, decision: Decision, *, deep_supervision: bool
) -> nn.Module:
    """Complete the network with what its signature asks for and the configuration does not say."""
    num_outputs = decision.num_outputs(contract)
    offered = {
        "in_channels": len(contract.channels),
        "out_channels": num_outputs,
        "classes": num_outputs,
        "strides": contract.plan.strides,
        "kernel_sizes": contract.plan.kernel_sizes,
        "deep_supervision": deep_supervision,
    }
    asked = inspect.signature(network).parameters
    if deep_supervision and "deep_supervision" not in asked:
        raise ConfigurationError("model.deep_supervision: expected false, got true: the network has one output only")
    given = network.keywords if isinstance(network, partial) else {}
    try:
        return network(**{name: value for name, value in offered.items() if name in asked and name not in given})
    except (KeyError, TypeError, ValueError) as error:
        text = error.args[0] if error.args else type(error).__name__  # of a KeyError, str() would be quoted
        raise ConfigurationError(f"model.network: expected arguments that the network takes, got: {text}") from error


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

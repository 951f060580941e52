"""What every model shares: a network, one phase of its curriculum, and how both become an optimizer and a schedule."""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from medexp.errors import ConfigurationError
from medexp.inference.decisions import AnyDecision
from medexp.inference.sliding_window import SlidingWindow
from medexp.models.curriculum import Phase, Plateau, find_frozen_modules, freeze
from medexp.networks.pretrained import Coverage, load_all, load_part, load_weights
from medexp.networks.weights import locate_weights, read_weights
from medexp.types import DataContract, DoseContract

Contract = DataContract | DoseContract
Mode = Literal["min", "max"]


class Scores(Protocol):
    """What validation collects over cases."""

    def clear(self) -> None:
        """Forget all cases."""
        ...

    def summary(self) -> dict[str, float]:
        """Return the scores by name."""
        ...


_MEMORY_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}


class Learning(LightningModule, ABC):
    """A network that learns one phase of a curriculum. A subclass says what its outputs mean and what a loss is.

    Args:
        contract: What the dataset promises.
        phase: The curriculum's entry to train; None: the model only predicts.
        curriculum: The phases by name.
        monitor: The validation score that says how good the model is: shown while it trains, and what the best
            checkpoint is chosen by.
        monitor_mode: Whether less or more of it is better.
        record: The contract as plain values, which a checkpoint keeps.

    Raises:
        ConfigurationError: The curriculum has no such phase.
    """

    decision: AnyDecision
    network: nn.Module
    loss: nn.Module
    scores: Scores

    def __init__(
        self,
        *,
        contract: Contract,
        phase: str | None,
        curriculum: Mapping[str, Phase],
        monitor: str,
        monitor_mode: Mode,
        record: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.monitor, self.monitor_mode = monitor, monitor_mode
        self.contract: Any = contract
        self.phase = None if phase is None else _choose(curriculum, phase)
        self.save_hyperparameters({"contract": dict(record), "phase": phase}, logger=False)
        self.coverage: Coverage | None = None
        self._frozen_modules: list[nn.Module] = []
        self._memory_format: torch.memory_format | None = None

    @abstractmethod
    def infer(
        self,
        inputs: Mapping[str, Tensor],
        *,
        window: SlidingWindow,
        flip_axes: Sequence[int] = (),
        tile: Sequence[int] | None = None,
    ) -> Float[Tensor, "output *spatial"]:
        """Return what `decision` decides on, of a whole case; call it in evaluation mode.

        Args:
            inputs: As the datamodule gives them (`medexp.keys`), without a batch axis, on the model's device.
            window: Covers the case.
            flip_axes: Average over the copies that are mirrored along these axes.
            tile: Size of the windows; None: that of the training patches.
        """

    @property
    def sampling(self) -> dict[str, int]:
        """How a model draws samples; empty if it draws none."""
        return {}

    def set_sampling(self, *, steps: int | None, seed: int | None) -> None:
        """Let a model that draws samples draw them so from now on; None leaves a value as it is.

        Raises:
            ConfigurationError: A value is asked of a model that draws none.
        """
        for key, value in (("sampling_steps", steps), ("noise_seed", seed)):
            if value is not None:
                raise ConfigurationError(f"predict.{key}: expected null for a model that draws no samples, got {value}")

    def _take_phase(self, *, channels_last: bool, compile_network: bool) -> None:
        """Freeze what the phase says and lay the network out in memory; the last step of building a model."""
        if self.phase is not None:
            freeze(self.network, self.phase.freeze)
            self._frozen_modules = find_frozen_modules(self.network, self.phase.freeze)
        if channels_last:
            self._memory_format = _MEMORY_FORMATS[len(self.contract.patch_size)]
            self.network.to(memory_format=self._memory_format)
        if compile_network:
            self.network.compile()
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

    def train(self, mode: bool = True) -> "Learning":  # noqa: FBT001, FBT002 - torch's signature
        """Switch to training; frozen parts stay in evaluation, so that their statistics and dropout rest."""
        super().train(mode)
        for module in self._frozen_modules:
            module.eval()
        return self

    def _in_memory_format(self, image: Float[Tensor, "batch channel *spatial"]) -> Float[Tensor, "..."]:
        return image if self._memory_format is None else image.to(memory_format=self._memory_format)

    def _scaled(self, loss: Float[Tensor, ""], batch_idx: int, *, size: int) -> Float[Tensor, ""]:
        """Log a batch's loss and return it scaled so that each optimizer step uses the mean over its batches."""
        # The mean over ranks is the global batch's loss: each rank's is its part of it.
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=False, batch_size=size, sync_dist=True)
        scale = self._group_scale(batch_idx)
        return loss if scale == 1.0 else loss * scale

    def _group_scale(self, batch_idx: int) -> float:
        """Return the factor that undoes Lightning's division by a whole group where the epoch's last one is partial."""
        group, total = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        if group == 1 or math.isinf(total):
            return 1.0
        remainder = int(total) % group
        return group / remainder if remainder and batch_idx >= total - remainder else 1.0

    def on_validation_epoch_start(self) -> None:
        """Forget the cases of the epoch before."""
        self.scores.clear()

    def on_validation_epoch_end(self) -> None:
        """Log the scores; every rank has seen all cases, so nothing is exchanged."""
        scores = {f"val/{name}": value for name, value in self.scores.summary().items()}
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
        optimizer = phase.optimizer(self._parameter_groups())
        total_steps = self.trainer.estimated_stepping_batches
        if math.isinf(total_steps):
            raise ConfigurationError(
                f"trainer.max_epochs: expected a number of epochs, which the schedule needs, got "
                f"{self.trainer.max_epochs}: give one"
            )
        scheduler = phase.build_scheduler(optimizer, total_steps=int(total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _parameter_groups(self) -> list[Any]:
        """Return what trains; what a loss learns is weighed by no weight decay, which would pull it to a number."""
        of_loss = [one for one in self.loss.parameters() if one.requires_grad]
        ids = {id(parameter) for parameter in of_loss}
        trained = [one for one in self.parameters() if one.requires_grad and id(one) not in ids]
        return [{"params": trained}, {"params": of_loss, "weight_decay": 0.0}] if of_loss else trained

    def _load_weights(
        self,
        source: str,
        sha256: str | None,
        *,
        channels: Sequence[str],
        weights_channels: Sequence[str] | None,
        part: str | None = None,
        head: str | None = None,
        min_coverage: float,
        further_inputs: Sequence[Tensor] = (),
    ) -> Coverage:
        weights = read_weights(locate_weights(source), sha256=sha256)
        if part is not None:
            return load_part(self.network, weights, part=part, min_coverage=min_coverage)
        recorded = None if weights.contract is None else weights.contract["channels"]
        order = recorded or weights_channels
        if order is None:
            raise ConfigurationError(
                f"model.weights_channels: expected the names of the channels that {source} was trained on, in order, "
                f"got null: the dataset gives {list(channels)}"
            )
        return load_weights(
            self.network,
            weights,
            head=head,
            min_coverage=min_coverage,
            channels=channels,
            weights_channels=order,
            image_size=self.contract.patch_size,
            further_inputs=further_inputs,
        )

    def _require_phase(self) -> Phase:
        if self.phase is None:
            raise ConfigurationError("expected a phase of the model's curriculum to train, got none: name one")
        return self.phase


def _choose(curriculum: Mapping[str, Phase], name: str) -> Phase:
    if name not in curriculum:
        raise ConfigurationError(f"stage: expected one of the model's curriculum {sorted(curriculum)}, got '{name}'")
    return curriculum[name]


def loss_of(phase: Phase | None, loss: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Return what builds the phase's loss: its own, where it has one."""
    return loss if phase is None or phase.loss is None else phase.loss


def build_network(network: Callable[..., nn.Module], offered: Mapping[str, Any]) -> nn.Module:
    """Complete the network with what its signature asks for and the configuration does not say.

    Raises:
        ConfigurationError: It refuses its arguments.
    """
    asked = inspect.signature(network).parameters
    given = network.keywords if isinstance(network, partial) else {}
    try:
        return network(**{name: value for name, value in offered.items() if name in asked and name not in given})
    except (KeyError, TypeError, ValueError) as error:
        text = error.args[0] if error.args else type(error).__name__  # of a KeyError, str() would be quoted
        raise ConfigurationError(f"model.network: expected arguments that the network takes, got: {text}") from error

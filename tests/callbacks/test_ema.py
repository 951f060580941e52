"""The average of the weights: right numbers, used for judging, absent when off."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from tests.synthetic.training import train

NAME = "network.head.weight"


class Follow(Callback):
    """Average by hand."""

    def __init__(self, decay: float) -> None:
        self.decay, self.seen = decay, []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.average = pl_module.network["head"].weight.detach().clone()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.average = self.decay * self.average + (1 - self.decay) * pl_module.network["head"].weight.detach()

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.seen.append(pl_module.network["head"].weight.detach().clone())


def test_average_is_validated_and_saved(tmp_path: Path) -> None:
    follow = Follow(0.9)
    train(tmp_path / "run", extra={"follow": follow}, trainer={"max_epochs": 2})
    torch.testing.assert_close(follow.seen[-1], follow.average)
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = torch.load(tmp_path / "run" / "checkpoints" / name, weights_only=True)
        torch.testing.assert_close(checkpoint["state_dict"][NAME], follow.average)
        assert not torch.equal(checkpoint["training_weights"][NAME], checkpoint["state_dict"][NAME])


def test_decay_zero_switches_it_off(tmp_path: Path) -> None:
    train(tmp_path / "run", callback_settings={"decay": 0.0}, trainer={"max_epochs": 2})
    assert "training_weights" not in torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)


def test_frozen_weights_are_not_averaged(tmp_path: Path) -> None:
    train(tmp_path / "run", trainer={"max_epochs": 2})
    averaged = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["training_weights"]
    assert averaged
    assert not any(name.startswith("network.encoder") for name in averaged)

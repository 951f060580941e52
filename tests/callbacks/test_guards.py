"""Guards: non-finite numbers and moved frozen tensors end a run at once."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from medexp.callbacks.guards import frozen_tensors
from medexp.errors import FrozenWeightsError, NonFiniteError
from tests.synthetic.training import Model, logged, train


def assert_finite_checkpoints(folder: Path) -> None:
    paths = list((folder / "checkpoints").glob("*-*.ckpt"))
    assert paths
    for path in paths:
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(bool(torch.isfinite(value).all()) for value in weights.values())


def test_non_finite_input_stops_within_one_step_and_names_step_cases_and_tensor(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"step 10 .*case_d.*case_e.*batch\['image'\]"):
        train(tmp_path / "run", data={"poison": 9})
    assert max(step for step, _, _ in logged(tmp_path / "run")) == 9
    assert_finite_checkpoints(tmp_path / "run")


def test_non_finite_gradient_is_named(tmp_path: Path) -> None:
    class Spoil(Callback):
        def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.global_step == 4:
                pl_module.network["head"].bias.grad.fill_(math.inf)

    with pytest.raises(NonFiniteError, match=r"step 5 .*gradient of network\.head\.bias"):
        train(tmp_path / "run", extra={"spoil": Spoil()})
    assert_finite_checkpoints(tmp_path / "run")


def test_weights_that_overflow_in_a_step_never_reach_a_checkpoint(tmp_path: Path) -> None:
    class Overflow(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            if trainer.global_step == 6:  # a step that is saved
                pl_module.network["head"].weight.data.fill_(math.nan)

    with pytest.raises(NonFiniteError, match=r"last-00000006\.ckpt.*network\.head\.weight.*nothing was written"):
        train(tmp_path / "run", extra={"overflow": Overflow()}, callback_settings={"decay": 0.0})
    assert_finite_checkpoints(tmp_path / "run")


@pytest.mark.parametrize("name", ["network.encoder.0.weight", "network.encoder.1.running_mean"])
def test_moved_frozen_tensor_is_caught_at_the_end_of_the_epoch(tmp_path: Path, name: str) -> None:
    class Move(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            tensor = dict(pl_module.named_parameters()) | dict(pl_module.named_buffers())
            tensor[name].data.flatten()[0] += 1e-6

    with pytest.raises(FrozenWeightsError, match=rf"epoch 0: .*{name} changed"):
        train(tmp_path / "run", extra={"move": Move()})


def test_frozen_tensors_hold_parameters_and_running_statistics_of_the_frozen_part_only() -> None:
    names = frozen_tensors(Model(contract="toy", phase="stage_1"))
    assert all(name.startswith("network.encoder.") for name in names)
    assert {"network.encoder.0.weight", "network.encoder.1.running_var"} <= names.keys()
    assert frozen_tensors(Model(contract="toy", phase="stage_2")) == {}

"""Guards that end a run whose numbers can no longer be trusted."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from medexp import keys
from medexp.callbacks.recorder import note
from medexp.errors import FrozenWeightsError, NonFiniteError


class FiniteGuard(Callback):
    """Stop before an optimizer step whose loss or gradients are NaN or infinite.

    The weights are still those of the step before. One small transfer from the device per step; the norm of the
    gradients that comes with it is logged as `train/gradient_norm`. Under a gradient scaler (float16) infinite
    gradients are part of the method, so only the loss counts.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._cases: list[str] = []
        self._batch: Any = None

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Remember whose batch it is."""
        self._batch = batch
        if isinstance(batch, Mapping):
            self._cases += [str(case) for case in batch.get(keys.CASE, ())]

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Remember the loss."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at the losses since the last step and at all gradients.

        Raises:
            NonFiniteError: The message names step, cases and the first bad tensor.
        """
        gradients = [
            weight.grad for group in optimizer.param_groups for weight in group["params"] if weight.grad is not None
        ]
        loss = torch.stack(self._losses).sum()
        norm = torch.zeros_like(loss)
        if gradients and trainer.scaler is None:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))).to(loss.dtype)
        total, length = torch.stack((loss, norm)).tolist()
        if total - total != 0 or length - length != 0:  # NaN or infinite, without another call
            raise NonFiniteError(self._describe(trainer, pl_module, total / len(self._losses)))
        note(trainer, {"train/gradient_norm": length})
        self._losses, self._cases = [], []

    def _describe(self, trainer: Trainer, module: LightningModule, loss: float) -> str:
        tensors = _tensors(self._batch, module)
        bad = next((name for name, value in tensors if not bool(torch.isfinite(value).all())), None)
        where = f"first bad tensor: {bad}" if bad else "no single tensor is bad: the loss or the norm overflowed"
        return (
            f"step {trainer.global_step + 1} (epoch {trainer.current_epoch}), cases {self._cases}: expected a finite "
            f"loss and finite gradients, got loss {loss:g}; {where}. The step was not taken. Look at these cases, "
            "lower the learning rate, or use hardware.precision=32-true"
        )


def _tensors(batch: Any, module: LightningModule) -> Iterator[tuple[str, Tensor]]:
    if isinstance(batch, Mapping):
        for key, value in batch.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                yield f"batch['{key}']", value
    for name, weight in module.named_parameters():
        yield name, weight.detach()
    for name, weight in module.named_parameters():
        if weight.grad is not None:
            yield f"gradient of {name}", weight.grad


class FrozenGuard(Callback):
    """Prove at the end of every epoch that frozen tensors are bit for bit what they were when the stage began.

    Frozen are the parameters without gradient, and the buffers (running statistics) of modules all of whose
    parameters are frozen. The checksums of the beginning survive a resume.
    """

    def __init__(self) -> None:
        self._checksums: dict[str, str] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the checksums of the initial weights; after a resume, compare with them."""
        if not self._checksums:
            self._checksums = _checksums(pl_module)
        self._compare(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare."""
        self._compare(trainer, pl_module)

    def _compare(self, trainer: Trainer, module: LightningModule) -> None:
        if not self._checksums:
            return
        found = _checksums(module)
        changed = sorted(name for name, checksum in self._checksums.items() if found.get(name) != checksum)
        if changed:
            listed = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
            message = f"epoch {trainer.current_epoch}: expected {len(found)} frozen tensors to stay as they were, but"
            raise FrozenWeightsError(f"{message} {listed} changed; something writes to them past the optimizer")

    def state_dict(self) -> dict[str, Any]:
        """Return the checksums of the beginning."""
        return {"checksums": dict(self._checksums)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the checksums of the beginning."""
        self._checksums = dict(state_dict["checksums"])


def frozen_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the frozen parameters and the buffers of modules that are frozen as a whole, by name."""
    found = {name: weight.detach() for name, weight in module.named_parameters() if not weight.requires_grad}
    for prefix, child in module.named_modules():
        weights = list(child.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            found |= {f"{prefix}.{name}" if prefix else name: buffer for name, buffer in child.named_buffers()}
    return found


def _checksums(module: nn.Module) -> dict[str, str]:
    return {
        name: hashlib.sha256(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        if value.dim()
        else hashlib.sha256(str(value.item()).encode()).hexdigest()
        for name, value in frozen_tensors(module).items()
    }

"""Make every random number of a training step a pure function of seed, epoch and batch."""

import hashlib
import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


def seed_everything(*parts: object) -> None:
    """Seed Python's, numpy's and torch's generators from `parts`, independently of the process."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest) >> 1
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for libraries that draw from it
    # Not torch.manual_seed: before CUDA is in use that call formats a stack trace every time.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
    elif torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


class PureRandomness(Callback):
    """Seed all generators before each batch from (seed, rank, epoch, batch).

    Dropout and noise of a step then depend on nothing that happened before: a resumed run draws the numbers
    that an uninterrupted one draws, and no generator's state has to be stored.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Seed for this batch."""
        seed_everything(self._seed, trainer.global_rank, trainer.current_epoch, batch_idx)

"""Training batches from the prepared store: a worker makes a whole batch, and every worker would make the same."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from medexp.datasets.buffers import Recycler, empty
from medexp.datasets.reading import VoxelReader, WholeReader
from medexp.datasets.worker_signals import leave_signals_to_main, signals_held
from medexp.io.prepared import StoredCase
from medexp.keys import CASE, IMAGE, LABEL
from medexp.runs.processes import available_cores
from medexp.sampling.order import GlobalBatches, SampleKey
from medexp.sampling.patches import AUGMENTATION, POSITION, Positions, generator_of
from medexp.transforms.augmentation import Augmentation
from medexp.transforms.draws import Draw, change_intensities

Batch = dict[str, Any]

_MOST_WORKERS = 8


def worker_count(num_workers: int | None) -> int:
    """Return the number of loader processes; None: one per core that this process may use, at most 8."""
    if num_workers is not None:
        return num_workers
    return min(_MOST_WORKERS, available_cores())


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: a sum over several has other last digits, and workers have one anyway."""
    before = torch.get_num_threads()
    if before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if before > 1:
            torch.set_num_threads(before)


@runtime_checkable
class Batches(Protocol):
    """Makes whole batches; a sample is a pure function of a seed and its key, whatever the worker, rank or batch."""

    def __getitems__(self, keys: Sequence[SampleKey]) -> Batch:
        """Return the batch of these samples. PyTorch calls this with what the batch sampler gave."""
        ...


@dataclass(frozen=True, eq=False)
class PatchBatches(Dataset[Batch]):
    """Patches of labelled cases, by their samples' keys."""

    cases: tuple[StoredCase, ...]
    reader: VoxelReader
    augmentation: Augmentation
    patch_size: tuple[int, ...]
    positions: Positions
    seed: int
    memory: Recycler = field(default_factory=Recycler, repr=False)

    def __getitems__(self, keys: Sequence[SampleKey]) -> Batch:
        """Return a whole batch. PyTorch calls this with what the batch sampler gave."""
        image = self.memory.lend((len(keys), len(self.reader.channel_order), *self.patch_size))
        label = empty((len(keys), *self.patch_size), np.uint8)
        with one_thread():
            for row, key in enumerate(keys):
                draw = self.draw(key)
                case = self.cases[key.case]
                self.reader.read_patch(case, image[row], label[row], start=self.start(key), draw=draw)
                change_intensities(image[row], draw)
        return {IMAGE: image, LABEL: label, CASE: [self.cases[key.case].case for key in keys]}

    def start(self, key: SampleKey) -> tuple[int, ...]:
        """Return the first voxel of a sample's patch."""
        generator = generator_of(POSITION, seed=self.seed, epoch=key.epoch, index=key.index)
        return self.positions.start(generator, self.cases[key.case], patch_size=self.patch_size)

    def draw(self, key: SampleKey) -> Draw:
        """Return what happens to a sample's patch."""
        generator = generator_of(AUGMENTATION, seed=self.seed, epoch=key.epoch, index=key.index)
        channels = len(self.reader.channel_order)
        return self.augmentation.draw(generator, num_channels=channels, patch_size=self.patch_size)


class PatchLoader:
    """Iterates over the batches of an epoch and knows where it is.

    Not a `DataLoader` itself, so that Lightning leaves the order alone: ranks are served by `GlobalBatches`.
    One iteration is one epoch; the next one goes on with the next epoch, unless `set_epoch` said otherwise.
    """

    def __init__(
        self,
        batches: Batches,
        order: GlobalBatches,
        *,
        num_workers: int,
        pin_memory: bool = False,
        start_method: str | None = None,
    ) -> None:
        """Set up the loader; processes start with the first batch and stay.

        Args:
            batches: Makes a batch of keys.
            order: The keys.
            num_workers: Processes; 0: this one.
            pin_memory: Put batches where a CUDA device copies them from directly.
            start_method: How processes start; None: the platform's way.
        """
        self.batch_sampler = order
        self._position = (order.sampler.epoch, order.sampler.first_batch)
        self._loader = DataLoader(
            cast("Dataset[Batch]", batches),  # of which PyTorch asks only for batches by keys
            batch_sampler=order,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            multiprocessing_context=start_method if num_workers > 0 else None,
            worker_init_fn=leave_signals_to_main,
            generator=torch.Generator(),  # the global one would move with every epoch and break exact resume
        )

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            self.batch_sampler.share_with(
                rank=torch.distributed.get_rank(), world_size=torch.distributed.get_world_size()
            )
        sampler = self.batch_sampler.sampler
        if self._position == (sampler.epoch, len(self)):
            sampler.set_epoch(sampler.epoch + 1)
        seen = sampler.first_batch
        with signals_held():
            iterator = iter(self._loader)
        while held := list(islice(iterator, 1)):
            sampler.first_batch = 0
            seen += 1
            self._position = (sampler.epoch, seen)
            yield held.pop()  # kept here, it would live until the next one is complete

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches were given out. Lightning saves this with a checkpoint."""
        sampler = self.batch_sampler.sampler
        epoch, seen = self._position
        return {"epoch": sampler.epoch, "batches": seen if epoch == sampler.epoch else sampler.first_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the recorded batch; after a whole epoch, with the next one."""
        epoch, seen = state["epoch"], state["batches"]
        if seen >= len(self):
            epoch, seen = epoch + 1, 0
        sampler = self.batch_sampler.sampler
        sampler.epoch, sampler.first_batch = epoch, seen
        self._position = (epoch, seen)

    def repeat_first_epoch(self) -> None:
        """Give out the same batches for ever, as `trainer.overfit_batches` wants."""
        self.batch_sampler.sampler.frozen = True

    def close(self) -> None:
        """End the loader processes."""
        iterator, self._loader._iterator = self._loader._iterator, None
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()


class VolumeLoader:
    """Whole volumes, one per batch, in a fixed order; every rank sees all of them, so scores need no exchange."""

    def __init__(self, cases: Sequence[StoredCase], reader: WholeReader) -> None:
        self.cases, self.reader = tuple(cases), reader

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Batch]:
        for case in self.cases:
            yield self.reader.whole(case)


def _as_it_is(batch: Any) -> Any:
    return batch

"""In which order cases are visited, and how batches of an epoch are shared by ranks and resumed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from medexp.errors import ConfigurationError
from medexp.sampling.patches import ORDER, generator_of


@dataclass(frozen=True, slots=True)
class SampleKey:
    """What a sample is a function of, besides the seed: its place in the epoch and the case that stands there."""

    epoch: int
    index: int
    case: int


def order_of_epoch(*, num_cases: int, num_samples: int, seed: int, epoch: int) -> Int64[np.ndarray, " sample"]:
    """Return which case each sample of an epoch shows: permutations of all cases, one after another."""
    passes = -(-num_samples // num_cases)
    shuffled = [
        generator_of(ORDER, seed=seed, epoch=epoch, index=number).permutation(num_cases) for number in range(passes)
    ]
    return np.concatenate(shuffled)[:num_samples]


def share_of_rank(keys: Sequence[SampleKey], *, rank: int, world_size: int) -> list[SampleKey]:
    """Return a rank's part of a global batch: every `world_size`-th sample.

    A rank that would go without in a short last batch repeats one of its samples, because ranks step together.
    """
    return list(keys[rank::world_size]) or [keys[rank % len(keys)]]


class EpochSampler:
    """Where the next iteration starts: an epoch's number and its first batch that was not seen yet.

    With `frozen` the content of every epoch is that of the first one: the same batches for ever.
    """

    def __init__(self) -> None:
        self.frozen = False
        self.epoch = 0
        self.first_batch = 0

    @property
    def content(self) -> int:
        """The epoch whose samples are shown."""
        return 0 if self.frozen else self.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; the present one goes on where it is. Lightning calls this."""
        if epoch != self.epoch:
            self.epoch, self.first_batch = epoch, 0


class GlobalBatches:
    """The batches of one epoch as lists of keys, from where `sampler` stands; a rank's share of each.

    Lightning looks for `sampler.set_epoch` here: it does not call a batch sampler's own.
    """

    def __init__(
        self,
        *,
        num_cases: int,
        batch_size: int,
        steps_per_epoch: int | None,
        seed: int,
        samples_per_case: int = 1,
    ) -> None:
        """Set up the order.

        Args:
            num_cases: Training cases.
            batch_size: Samples of a batch over all ranks.
            steps_per_epoch: Batches; None: `samples_per_case` of every case, the last batch is as short as it must be.
            seed: Of the order.
            samples_per_case: Samples of each case in an epoch without a number of steps.
        """
        self.sampler = EpochSampler()
        self.num_cases, self.batch_size, self.seed = num_cases, batch_size, seed
        self.rank, self.world_size = 0, 1
        self.num_samples = num_cases * samples_per_case if steps_per_epoch is None else steps_per_epoch * batch_size

    def share_with(self, *, rank: int, world_size: int) -> None:
        """Give out only what `rank` of `world_size` gets.

        Raises:
            ConfigurationError: A batch has fewer samples than there are ranks.
        """
        if self.batch_size < world_size:
            message = f"dataset.batch_size: expected at least one sample for each of {world_size} devices"
            raise ConfigurationError(f"{message}, got {self.batch_size} in all; raise it or lower hardware.devices")
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return -(-self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch = self.sampler.content
        order = order_of_epoch(num_cases=self.num_cases, num_samples=self.num_samples, seed=self.seed, epoch=epoch)
        for start in range(self.sampler.first_batch * self.batch_size, self.num_samples, self.batch_size):
            batch = order[start : start + self.batch_size]
            keys = [SampleKey(epoch, start + place, int(case)) for place, case in enumerate(batch)]
            yield share_of_rank(keys, rank=self.rank, world_size=self.world_size)

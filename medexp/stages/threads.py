"""How many threads a job's arithmetic may use."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def arithmetic_threads(number: int | None) -> Iterator[None]:
    """Let torch compute with so many threads; None changes nothing.

    The number decides in which order floats are added, and with it their last bits. What was set before comes back:
    a launcher may run the next job in the same process.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(before if number is None else number)
    try:
        yield
    finally:
        torch.set_num_threads(before)

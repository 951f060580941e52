"""What becomes of cases judged in several processes: what was done, in order, or one refusal of all bad ones."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from medexp.errors import MedexpError
from medexp.runs.processes import for_each

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Done = TypeVar("Done")

_LISTED = 20


@dataclass(frozen=True)
class Refused:
    """Why a case cannot be used. `is_grid` says that voxel grids, and nothing else, are to blame."""

    case: str
    reasons: tuple[str, ...]
    is_grid: bool = False


def all_done(
    function: Callable[[Item], Done | Refused],
    items: Sequence[Item],
    *,
    num_workers: int | None,
    what: str,
    refusal: Callable[[Sequence[Refused]], MedexpError],
) -> list[Done]:
    """Return what a function makes of every item, in their order, which does not depend on the number of processes.

    Args:
        function: As for `for_each`; it returns what is wrong with an item, so that the others are still looked at.
        items: What it is called with.
        num_workers: Processes; None: one per core.
        what: Done and plural, for the log: "cases scored".
        refusal: Makes the error of all items that were refused, in their order.

    Raises:
        MedexpError: What `refusal` makes.
    """
    done: dict[int, Done] = {}
    refused: dict[int, Refused] = {}
    for index, outcome in for_each(function, items, num_workers=num_workers, what=what):
        if isinstance(outcome, Refused):
            refused[index] = outcome
            log.warning("%s cannot be used; the other cases are still checked", outcome.case)
        else:
            done[index] = outcome
    if refused:
        raise refusal([refused[index] for index in sorted(refused)])
    return [done[index] for index in range(len(items))]


def listed(refused: Sequence[Refused]) -> str:
    """Return the reasons of all cases, one per line and indented; of very many the first."""
    lines = [f"{one.case}: {reason}" for one in refused for reason in one.reasons]
    rest = f"\n  and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
    return "".join(f"\n  {line}" for line in lines[:_LISTED]) + rest

"""Split once into training, validation and test cases: whole groups, alike in how much of an image is object."""

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from medexp.errors import ConfigurationError

SIDES = ("train", "val", "test")


def hold_out(
    group_of: Mapping[str, str],
    coverage_of: Mapping[str, float],
    *,
    shares: Sequence[float],
    edges: Sequence[float],
    seed: int,
) -> dict[str, list[str]]:
    """Return the cases of each side.

    Validation and training get their shares rounded down, the test set gets the rest, as far as whole groups allow.
    Groups are walked through stratum by stratum, in each in the order of a hash of seed and name, and every one goes to
    the side that lags most behind in proportion to its share: each side gets its part of each stratum. The result
    depends on names, coverage, shares and seed only.

    Args:
        group_of: The group of each case.
        coverage_of: The share of object pixels of each case; a group has the mean of its cases'.
        shares: Of training, validation and test; they sum to 1.
        edges: Inner and outer limits of the strata, rising.
        seed: Another seed, another split.

    Raises:
        ConfigurationError: The shares are no shares, or too few groups are there for them.
    """
    if len(shares) != len(SIDES) or min(shares) < 0.0 or abs(sum(shares) - 1.0) > 1e-6:
        message = "dataset.holdout_shares: expected shares of training, validation and test that sum to 1"
        raise ConfigurationError(f"{message}, got {list(shares)}")
    members: defaultdict[str, list[str]] = defaultdict(list)
    for case in sorted(group_of):
        members[group_of[case]].append(case)
    wanted = _counts(len(group_of), shares)
    sides: dict[str, list[str]] = {side: [] for side in SIDES}
    strata = {
        group: stratum_of(float(np.mean([coverage_of[case] for case in cases])), edges)
        for group, cases in members.items()
    }
    done = 0
    for group in sorted(members, key=lambda name: (strata[name], _draw(seed, name), name)):
        done += len(members[group])
        side = _neediest(sides, wanted, done / len(group_of), size=len(members[group]))
        sides[side] += members[group]
    _require_filled(sides, wanted, len(members))
    return {side: sorted(cases) for side, cases in sides.items()}


def stratum_of(coverage: float, edges: Sequence[float]) -> int:
    """Return the number of the stratum `[edge, next edge)` that a coverage lies in; the last one includes its end."""
    return min(max(bisect_right(edges, coverage), 1), max(len(edges) - 1, 1))


def _counts(num_cases: int, shares: Sequence[float]) -> dict[str, int]:
    train, val = (int(num_cases * share + 1e-9) for share in shares[:2])
    test = num_cases - train - val if shares[2] > 0.0 else 0
    return {"train": num_cases - val - test, "val": val, "test": test}


def _neediest(sides: Mapping[str, Sequence[str]], wanted: Mapping[str, int], progress: float, *, size: int) -> str:
    """Return the side that lags most behind; one that takes less than half of the group comes last."""
    lacks = {side: progress - len(sides[side]) / wanted[side] for side in SIDES if wanted[side]}
    roomy = [side for side in lacks if len(sides[side]) + size / 2 <= wanted[side]]
    return max(roomy or lacks, key=lambda side: (lacks[side], -SIDES.index(side)))


def _require_filled(sides: Mapping[str, Sequence[str]], wanted: Mapping[str, int], num_groups: int) -> None:
    empty = [side for side in ("train", "val") if not sides[side]]
    if empty or (wanted["test"] and not sides["test"]):
        message = "dataset.holdout_shares: expected groups for training, validation and what else has a share"
        raise ConfigurationError(
            f"{message}, but {num_groups} groups do not fill them; add images, let dataset.group_pattern keep "
            "fewer together, or use dataset.split=leave_one_out"
        )


def _draw(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).hexdigest()

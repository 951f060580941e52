"""The rule that nothing stands on both sides of a split: neither a patient nor the same voxels."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from medexp.errors import LeakageError

_LISTED = 20  # pairs in one message


def shared_pairs(
    first: Sequence[str], second: Sequence[str], key_of: Mapping[str, str | None]
) -> list[tuple[str, str]]:
    """Return the pairs of cases, one of each side, that have the same key. A key of None matches nothing."""
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for case in first:
        key = key_of[case]
        if key is not None:
            holders[key].append(case)
    return [(other, case) for case in second for other in holders.get(key_of[case] or "", [])]


def require_disjoint(
    sides: Mapping[str, Sequence[str]],
    *,
    patient_of: Mapping[str, str],
    voxels_of: Mapping[str, str | None],
) -> None:
    """Refuse two groups of cases that share a patient or hold the same voxels.

    Args:
        sides: Exactly two groups of cases under the names that the message uses.
        patient_of: The patient of each case.
        voxels_of: A hash of each case's voxels; None where it is not known.

    Raises:
        LeakageError: Lists the pairs.
    """
    (first_name, first), (second_name, second) = sides.items()
    found = [f"{a} and {b} are of patient {patient_of[a]}" for a, b in shared_pairs(first, second, patient_of)]
    found += [f"{a} and {b} hold the same voxels" for a, b in shared_pairs(first, second, voxels_of)]
    if found:
        raise LeakageError(leakage_message(f"{first_name} and {second_name}", found))


def leakage_message(sides: str, found: Iterable[str]) -> str:
    """Return the message for pairs that leak between `sides`."""
    pairs = list(found)
    rest = f"\n  and {len(pairs) - _LISTED} more" if len(pairs) > _LISTED else ""
    listing = "".join(f"\n  {pair}" for pair in pairs[:_LISTED])
    return (
        f"expected {sides} to share no patient and no voxels, got {len(pairs)} pairs:{listing}{rest}\n"
        "Correct dataset.patient_pattern or the split file, or remove the duplicates."
    )

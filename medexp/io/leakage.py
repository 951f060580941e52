"""The rule that nothing stands on both sides of a split: neither a patient nor the same voxels."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from medexp.errors import LeakageError

_LISTED = 20  # pairs in one message

_REMEDY = "Correct dataset.patient_pattern (of images: group_pattern) or the split file, or remove the duplicates."

VoxelHashes = Mapping[str, Collection[str]]  # case -> a hash of each of its channels


def shared_pairs(first: Sequence[str], second: Sequence[str], keys_of: VoxelHashes) -> list[tuple[str, str]]:
    """Return the pairs of cases, one of each side, that have a key in common."""
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for case in first:
        for key in keys_of[case]:
            holders[key].append(case)
    pairs = {(other, case) for case in second for key in keys_of[case] for other in holders.get(key, [])}
    return sorted(pairs)


def require_disjoint(
    sides: Mapping[str, Sequence[str]],
    *,
    patient_of: Mapping[str, str],
    voxels_of: VoxelHashes,
    remedy: str = _REMEDY,
) -> None:
    """Refuse two groups of cases that share a patient or hold the same voxels.

    Args:
        sides: Exactly two groups of cases under the names that the message uses.
        patient_of: The patient of each case.
        voxels_of: Hashes of each case's channels; one in common is enough.
        remedy: How the message ends.

    Raises:
        LeakageError: Lists the pairs.
    """
    (first_name, first), (second_name, second) = sides.items()
    patients = {case: (patient_of[case],) for case in (*first, *second)}
    found = [f"{a} and {b} are of patient {patient_of[a]}" for a, b in shared_pairs(first, second, patients)]
    found += [f"{a} and {b} hold the same voxels" for a, b in shared_pairs(first, second, voxels_of)]
    if found:
        raise LeakageError(leakage_message(f"{first_name} and {second_name}", found, remedy=remedy))


def leakage_message(sides: str, found: Iterable[str], *, remedy: str = _REMEDY) -> str:
    """Return the message for pairs that leak between `sides`."""
    pairs = list(found)
    rest = f"\n  and {len(pairs) - _LISTED} more" if len(pairs) > _LISTED else ""
    listing = "".join(f"\n  {pair}" for pair in pairs[:_LISTED])
    return f"expected {sides} to share no patient and no voxels, got {len(pairs)} pairs:{listing}{rest}\n{remedy}"

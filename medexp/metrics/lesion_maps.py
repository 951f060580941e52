"""From a label map to numbered lesions per region, step by step as the official BraTS programs do it.

Source:
    rachitsaluja/BraTS-2024-Metrics, `metrics_GLI.py` at f1131e34 (Apache-2.0), and BraTS-2023-Metrics, `eval.py`;
    re-implemented from a reading.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Integer, Real

from medexp.metrics.components import LesionMap, components, components_joined_by_dilation, touching_pairs
from medexp.metrics.grids import mask_of
from medexp.metrics.lesions import LesionProtocol

Pairs = set[tuple[int, int]]


def reference_lesions(labels: Real[np.ndarray, "i j k"], protocol: LesionProtocol) -> dict[str, LesionMap]:
    """Number the lesions of each region of a reference."""
    maps = {
        region: components_joined_by_dilation(mask_of(labels, values), protocol.dilation_steps[region])
        for region, values in protocol.regions.items()
    }
    return _joined_where_tissues_touch(maps, protocol)


def predicted_lesions(labels: Real[np.ndarray, "i j k"], protocol: LesionProtocol) -> dict[str, LesionMap]:
    """Number the lesions of each region of a prediction: plain components, or prepared like the reference."""
    if not protocol.prepares_prediction:
        return {region: components(mask_of(labels, values)) for region, values in protocol.regions.items()}
    maps = {}
    for region, values in protocol.regions.items():
        joined = components_joined_by_dilation(mask_of(labels, values), protocol.dilation_steps[region])
        maps[region] = _without_small(joined.without_zones(), protocol.volume_threshold[region])
    return _joined_where_tissues_touch(maps, protocol)


def _without_small(lesion_map: LesionMap, num_voxels: float) -> LesionMap:
    """Remove lesions of at most this many voxels; the others keep their numbers, as theirs do."""
    is_kept = lesion_map.num_voxels > num_voxels
    is_kept[0] = False
    return lesion_map if is_kept[1:].all() else lesion_map.renumbered(np.where(is_kept, np.arange(len(is_kept)), 0))


def _joined_where_tissues_touch(maps: dict[str, LesionMap], protocol: LesionProtocol) -> dict[str, LesionMap]:
    """Join lesions of a tissue that touch one lesion of a neighbor tissue.

    Theirs: each tissue is joined by the *unjoined* lesions of its neighbors, so their second pass over all tissues
    repeats the first, and one pass is enough.
    """
    touching: dict[tuple[str, str], Pairs] = {}
    for tissue, neighbors in protocol.neighbors.items():
        for neighbor in neighbors:
            if (neighbor, tissue) in touching:
                touching[tissue, neighbor] = {(own, other) for other, own in touching[neighbor, tissue]}
            else:
                touching[tissue, neighbor] = touching_pairs(maps[tissue], maps[neighbor])
    joined = {
        tissue: maps[tissue].renumbered(
            _joined_numbers(maps[tissue].numbers(), [touching[tissue, neighbor] for neighbor in neighbors])
        )
        for tissue, neighbors in protocol.neighbors.items()
    }
    return maps | joined


def _joined_numbers(numbers: list[int], touching: Iterable[Pairs]) -> Integer[np.ndarray, " number"]:
    """Return the number that each lesion gets: 1, 2, ... after joining with one neighbor tissue after the other."""
    current = {number: number for number in numbers}
    for pairs in touching:
        now_touching = {(current[own], other) for own, other in pairs}
        renamed = _follow_first_touched(now_touching, last_number=max(current.values(), default=0))
        current = {number: renamed.get(now, now) for number, now in current.items()}
    ranks = {now: rank for rank, now in enumerate(sorted(set(current.values())), start=1)}
    table = np.zeros(max(numbers, default=0) + 1, dtype=np.int32)
    for number, now in current.items():
        table[number] = ranks[now]
    return table


def _follow_first_touched(pairs: Pairs, last_number: int) -> dict[int, int]:
    """Give all lesions whose first touched neighbor is the same a common new number above `last_number`.

    Theirs: nothing happens for a single pair (which would only change the order of numbers), and a lesion that
    touches several neighbors follows only the one with the lowest number. Two lesions that both touch neighbor 2
    stay apart if one of them also touches neighbor 1.
    """
    if len(pairs) <= 1:
        return {}
    new_numbers: dict[int, int] = {}
    renamed: dict[int, int] = {}
    for own, other in sorted(pairs):
        new_numbers.setdefault(other, last_number + 1 + len(new_numbers))
        renamed.setdefault(own, new_numbers[other])
    return renamed

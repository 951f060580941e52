"""Objects of a whole-well mask: labelling, measuring, matching 1,000 of them, beside scikit-image's regionprops.

    python benchmarks/objects.py

Claim: about 1,000 objects in a mask of 1440 x 1920 pixels are labelled and measured in less than 0.5 s.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from medexp.metrics.object_labels import ObjectRule, objects_of
from medexp.metrics.object_matching import average_precisions, match_objects, overlaps
from medexp.metrics.objects import measure_objects

SHAPE, PITCH, REPEATS = (1440, 1920), 52, 5
RULE = ObjectRule(min_area_px=100, fill_holes=True, split_touching=False, split_depth_px=2.0)


def wells(seed: int) -> np.ndarray:
    """Return a mask of ragged disks on a grid, 12 to 22 pixels in radius."""
    rng = np.random.default_rng(seed)
    half = PITCH // 2
    rows, columns = np.mgrid[-half:half, -half:half]
    mask = np.zeros(SHAPE, bool)
    for top in range(0, SHAPE[0] - PITCH + 1, PITCH):
        for left in range(0, SHAPE[1] - PITCH + 1, PITCH):
            far = (rows**2 + columns**2) / rng.uniform(12, 22) ** 2
            mask[top : top + PITCH, left : left + PITCH] = far + rng.normal(0, 0.1, far.shape) < 1
    return mask


def best_of(work: Callable[[], Any]) -> tuple[float, Any]:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - started)
    return min(times), result


def regionprops_rows(labels: np.ndarray) -> list[tuple[float, ...]]:
    from skimage.measure import regionprops

    return [
        (
            region.area, region.perimeter, region.equivalent_diameter_area, region.axis_major_length,
            region.axis_minor_length, region.eccentricity, *region.centroid, *region.bbox,
        )
        for region in regionprops(labels)
    ]  # fmt: skip


def main() -> None:
    mask = wells(0)
    labelling_s, labels = best_of(lambda: objects_of(mask, RULE))
    measuring_s, measured = best_of(lambda: measure_objects(labels, 0.65).rows())
    theirs_s, _ = best_of(lambda: regionprops_rows(labels))
    other = objects_of(wells(1), RULE)
    found = overlaps(labels, other)
    matching_s, _ = best_of(lambda: (match_objects(overlaps(labels, other), 0.5), average_precisions(found)))
    total_s = labelling_s + measuring_s
    print(f"{len(measured)} objects in {SHAPE[0]} x {SHAPE[1]} pixels, best of {REPEATS}")
    print(f"label, fill, remove small   {labelling_s:7.3f} s")
    ratio = theirs_s / measuring_s
    print(f"measure                     {measuring_s:7.3f} s   scikit-image {theirs_s:.3f} s ({ratio:.1f} x)")
    print(f"match and average precision {matching_s:7.3f} s")
    print(f"claim: label and measure in < 0.5 s: {total_s:.3f} s {'holds' if total_s < 0.5 else 'FAILS'}")


if __name__ == "__main__":
    main()

"""How long it takes to score one BraTS case, what memory that needs, and what a second process gains.

    python benchmarks/lesion_metrics.py [reference.nii.gz [prediction.nii.gz]]

Without files a synthetic case of 240x240x155 voxels is scored: a tumor of nested tissues with satellites, against a
shifted, noisy copy with two false positives. One case means all of it: lesion-wise Dice, HD95 and surface Dice
of six regions (`lesion_wise_scores`), and overlap, HD95 and surface Dice of labels and regions (`score_case`).
Targets on one core: below 1 s and 0.3 GB; a cohort over two processes at 90 % of twice the speed.

Processor time is compared with the target, as other work on the machine stretches the wall clock. The efficiency
needs two idle cores: the load before the start is printed.
"""

import argparse
import os
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy import ndimage

from medexp.metrics.brats import lesion_wise_scores
from medexp.metrics.segmentation import score_case

SHAPE = (240, 240, 155)
LABELS = {"NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}
REGIONS = {"WT": ["NETC", "SNFH", "ET"], "TC": ["NETC", "ET"]}
LIMIT_S, LIMIT_GB, LIMIT_EFFICIENCY = 1.0, 0.3, 0.9
NUM_CASES, NUM_ROUNDS = 8, 3

Case = tuple[np.ndarray, np.ndarray, tuple[float, ...]]
_cases: list[Case] = []


def synthetic_reference(seed: int) -> np.ndarray:
    """Return a tumor of about 130 000 voxels with three satellites."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for center, radius in [((100, 120, 80), 32), ((150, 90, 70), 9), ((120, 170, 95), 6), ((90, 80, 60), 4)]:
        size = 2 * radius + 9
        grid = np.indices((size, size, size)) - size // 2
        rough = ndimage.gaussian_filter(rng.standard_normal((size, size, size)), 4)
        depth = np.sqrt((grid**2).sum(axis=0)) / radius + 0.1 * rough / rough.std()
        corner = [middle - size // 2 for middle in center]
        patch = labels[tuple(slice(start, start + size) for start in corner)]
        for limit, value in ((1.0, 2), (0.65, 3), (0.5, 1), (0.25, 4)):
            patch[depth < limit] = value
    return labels


def perturbed(reference: np.ndarray, seed: int) -> np.ndarray:
    """Return the labels moved by a voxel or two, 2 % of them exchanged, and two false positives added."""
    rng = np.random.default_rng(seed)
    prediction = np.roll(reference, (2, -1, 1), (0, 1, 2))
    tissue = np.argwhere(prediction > 0)
    chosen = tissue[rng.random(len(tissue)) < 0.02]
    prediction[tuple(chosen.T)] = rng.integers(0, 5, len(chosen))
    first, last = tissue.min(axis=0), tissue.max(axis=0)
    prediction[tuple(slice(corner, corner + 4) for corner in first)] = 3
    prediction[tuple(slice(corner - 8, corner) for corner in last)] = 2
    return prediction


def load(files: list[Path]) -> Case:
    import nibabel  # the synthetic case needs no reader

    image = nibabel.load(files[0])
    reference = np.asarray(image.dataobj).astype(np.uint8)
    prediction = (
        np.asarray(nibabel.load(files[1]).dataobj).astype(np.uint8) if len(files) > 1 else perturbed(reference, 0)
    )
    return prediction, reference, tuple(float(size) for size in image.header.get_zooms()[:3])


def synthetic(seed: int) -> Case:
    reference = synthetic_reference(seed)
    return perturbed(reference, seed), reference, (1.0, 1.0, 1.0)


def score(case: Case) -> None:
    prediction, reference, spacing_mm = case
    lesion_wise_scores(prediction, reference, spacing_mm)
    score_case(prediction, reference, spacing_mm, LABELS, REGIONS, (1.0, 2.0))


def score_stored(index: int) -> float:
    start_s = time.process_time()
    score(_cases[index % len(_cases)])
    return time.process_time() - start_s


def hold(cases: list[Case]) -> None:
    """Keep the cases in a worker, so that sending them is not part of the measurement."""
    _cases[:] = cases


def warm_up(_: int) -> None:
    score(_cases[0])
    time.sleep(0.5)  # long enough that the other worker takes the other call


def peak_gb() -> float:
    scale = 1.0 if sys.platform == "darwin" else 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9


def cohort_seconds(cases: list[Case], num_workers: int) -> tuple[float, float]:
    """Return the best wall-clock and the least processor time of scoring the cohort over running processes."""
    context = get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=context, initializer=hold, initargs=(cases,)) as pool:
        list(pool.map(warm_up, range(num_workers)))
        wall_seconds, seconds = [], []
        for _ in range(NUM_ROUNDS):
            start_s = time.perf_counter()
            seconds.append(sum(pool.map(score_stored, range(NUM_CASES))))
            wall_seconds.append(time.perf_counter() - start_s)
        return min(wall_seconds), min(seconds)


def verdict(is_met: bool) -> str:
    return "met" if is_met else "NOT met"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="reference and prediction; synthetic if not given")
    files = parser.parse_args().files

    load_before = os.getloadavg()[0]
    cases = [load(files)] if files else [synthetic(seed) for seed in range(2)]
    before_gb = peak_gb()
    score(cases[0])
    seconds, wall_seconds = [], []
    for _ in range(5):
        start_s, wall_start_s = time.process_time(), time.perf_counter()
        score(cases[0])
        seconds.append(time.process_time() - start_s)
        wall_seconds.append(time.perf_counter() - wall_start_s)
    extra_gb = peak_gb() - before_gb
    median_s, wall_s = statistics.median(seconds), statistics.median(wall_seconds)
    shape = "x".join(str(size) for size in cases[0][1].shape)
    print(f"one case, {shape}, {int((cases[0][1] > 0).sum())} voxels of tissue, six regions, all scores")
    print(f"  load of the machine before: {load_before:.1f} on {os.cpu_count()} cores")
    print(f"  {median_s:.2f} s processor time, {wall_s:.2f} s wall clock (medians of {len(seconds)})")
    print(f"  target {LIMIT_S} s: {verdict(median_s < LIMIT_S)}")
    print(f"  {extra_gb:.2f} GB above the label maps, target {LIMIT_GB} GB: {verdict(extra_gb < LIMIT_GB)}")

    (one_s, one_cpu_s), (two_s, two_cpu_s) = cohort_seconds(cases, 1), cohort_seconds(cases, 2)
    efficiency = one_s / (2 * two_s)
    print(f"{NUM_CASES} cases: {one_s:.2f} s in one process, {two_s:.2f} s in two")
    print(f"  processor time {one_cpu_s:.2f} s and {two_cpu_s:.2f} s: equal if the processes do not hinder each other")
    print(f"  efficiency {efficiency:.0%}, target {LIMIT_EFFICIENCY:.0%}: {verdict(efficiency >= LIMIT_EFFICIENCY)}")


if __name__ == "__main__":
    main()

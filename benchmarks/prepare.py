"""How long stage=prepare takes for a BraTS case on one core, beside reading its five files with nibabel.

    python benchmarks/prepare.py [folder of BraTS cases]

Without a folder, three synthetic cases of 182x218x182 voxels are made; they hold noise all over the head and pack
badly, so nibabel itself needs longer for them. One case means all of it: hashing, unpacking, verifying, cropping,
normalizing, writing the entry with fsync, the picture for the quality report, and its share of the cohort's records.
Both sides are measured in turns, in this process, bound to one core, with the files in the page cache; medians.
Targets: at most 5 x nibabel, and below 2 s per case. A repeat must find the entries again.

Processor time is compared with the targets, because other work on the machine stretches the wall clock.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from medexp.preparation import brats
from medexp.preparation.cohort import CohortSettings, prepare_cohort
from medexp.preparation.mock_brats import CHANNELS, LABELS, write_mock

LIMIT_RATIO, LIMIT_S = 5.0, 2.0
NUM_ROUNDS = 5
FULL_SIZE = (182, 218, 182)


def read_with_nibabel(files: list[Path]) -> None:
    """Read every voxel in its stored type, which is the least that any reader does."""
    for path in files:
        np.asanyarray(nib.load(path).dataobj)


def settings(root: Path) -> CohortSettings:
    """Return conf/dataset/brats.yaml with two folds."""
    return CohortSettings(
        name="brats",
        find_cases=brats.find_cases,
        roots=(root,),
        test_roots=(),
        require_test_labels=False,
        patient_pattern=r"(?P<patient>.+?)(-\d{3})?$",
        channels=CHANNELS,
        labels=LABELS,
        normalization="zscore_nonzero",
        spacing_mm=None,
        num_folds=2,
        split_seed=12345,
        splits_file=None,
        patch_size=None,
    )


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return processor and wall time."""
    processor, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - processor, time.perf_counter() - wall


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        root = Path(sys.argv[1]) if len(sys.argv) > 1 else place / "raw"
        if len(sys.argv) == 1:
            write_mock(root, num_patients=2, shape=FULL_SIZE, seed=0)
        files = sorted(root.rglob("*.nii.gz"))
        num_cases = len(files) // 5

        def prepare() -> None:
            prepare_cohort(settings(root), folder=place / "run", store=place / "store", num_workers=1)

        print(f"{num_cases} cases in {root}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        read_with_nibabel(files)
        prepare()
        rounds: dict[str, list[tuple[float, float]]] = {"nibabel": [], "prepare": [], "again": []}
        for _ in range(NUM_ROUNDS):
            rounds["nibabel"].append(timed(lambda: read_with_nibabel(files)))
            shutil.rmtree(place / "store")
            rounds["prepare"].append(timed(prepare))
            rounds["again"].append(timed(prepare))
    each = {
        name: [statistics.median(values) / num_cases for values in zip(*times, strict=True)]
        for name, times in rounds.items()
    }
    print("seconds per case               processor    wall")
    for name, (processor, wall) in each.items():
        print(f"  {name:<28} {processor:9.3f} {wall:7.3f}")
    ratio = each["prepare"][0] / each["nibabel"][0]
    again = each["again"][0] / each["prepare"][0]
    print(f"prepare / nibabel: {ratio:.2f} (target at most {LIMIT_RATIO:g}); in wall time "
          f"{each['prepare'][1] / each['nibabel'][1]:.2f}")  # fmt: skip
    print(f"found again / prepared: {again:.2f}")
    return int(ratio > LIMIT_RATIO or each["prepare"][0] > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())

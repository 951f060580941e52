"""How long stage=prepare takes for a DICOM-RT patient: 150 slices of 512 x 512, eight structures, dose on 4 mm.

    python benchmarks/prepare_dicom.py

The patient is synthetic and written as complete DICOM-RT. One patient means all of it: finding the objects by their
headers, hashing, reading, drawing the contours, interpolating the dose by B-splines, distances, quality flags, the
store entry with fsync, the reference npz and the picture. Target: below 20 s on one core. Then two patients, one after
the other and in two processes.

Processor time is compared with the target, because other work on the machine stretches the wall clock.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from medexp.geometry.regridding import resample_to
from medexp.io.dicom_objects import PatientIdentity
from medexp.io.dicom_rt import read_patient
from medexp.io.dicom_write import write_patient, write_rtdose
from medexp.io.dose_case import DoseCase
from medexp.io.nifti import read_file
from medexp.preparation.dicom_rt import find_cases
from medexp.preparation.dose_entry import DoseTransform
from medexp.preparation.dose_grid import NativeCrop
from medexp.preparation.dose_phantom import phantom
from medexp.preparation.store import store_case
from medexp.preparation.workers import store_cases

LIMIT_S = 20.0
STRUCTURES = ("PTV70", "PTV56", "Prostate", "Rectum", "Bladder", "Femur_L", "Femur_R", "Bowel")
FINE, SPACING_MM = 4, (3.9, 3.9, 2.0)  # the phantom is made at a quarter of the columns and rows
SHAPE = (128, 128, 150)


def fine(coarse: DoseCase, seed: int) -> DoseCase:
    """Return CT and structures on 512 x 512 x 150 voxels of 0.98 x 0.98 x 2 mm."""
    affine = coarse.affine.copy()
    affine[:3, :2] /= FINE
    affine[:3, 3] -= coarse.affine[:3, :2].sum(axis=1) * (0.5 - 0.5 / FINE)
    shape = (SHAPE[0] * FINE, SHAPE[1] * FINE, SHAPE[2])
    rough = {name: resample_to(mask, coarse.affine, affine, shape, order=1) for name, mask in coarse.masks.items()}
    ct = resample_to(coarse.ct_hu, coarse.affine, affine, shape, order=1, fill=-1000.0)
    noise = np.random.default_rng(seed).normal(0.0, 12.0, shape)
    return replace(
        coarse,
        affine=affine,
        ct_hu=np.rint(ct + noise).astype(np.int16),
        masks={name: values >= 0.5 for name, values in rough.items()},
        coverage={},
        possible_dose=None,
        dose_gy=None,
    )


def write(folder: Path, seed: int) -> None:
    """Write a patient whose dose is on a grid of its own, as planning systems compute it."""
    coarse = phantom(seed, SHAPE, SPACING_MM)
    write_patient(folder, fine(coarse, seed), seed=seed)
    references = read_patient([read_file(path) for path in folder.iterdir()]).references
    # the same patient as in write_patient, so that the objects belong together
    who = PatientIdentity(coarse.name)
    dose_gy = coarse.dose_gy if coarse.dose_gy is not None else np.zeros(coarse.shape, np.float32)
    write_rtdose(folder / "dose.dcm", dose_gy, coarse.affine, references=references, identity=who)


def transform() -> DoseTransform:
    """Return conf/dataset/vmat.yaml."""
    return DoseTransform(
        data_format="dicom_rt",
        structures=STRUCTURES,
        aliases={},
        required=("PTV70",),
        grid=NativeCrop(inplane_size=300, z_margin_mm=30.0, min_slices=128),
        dose_interpolation="bspline",
        distance_clip_mm=50.0,
        is_strict=False,
    )


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return processor and wall time."""
    processor, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - processor, time.perf_counter() - wall


def main() -> int:
    """Measure and print; 1 if the target is missed."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for seed in range(2):
            write(place / "raw" / f"patient_{seed}", seed)
        size_mb = sum(path.stat().st_size for path in (place / "raw").rglob("*.dcm")) / 2e6
        shape = f"{SHAPE[2]} slices of {SHAPE[0] * FINE} x {SHAPE[1] * FINE}"
        print(f"one patient: {shape}, {len(STRUCTURES)} structures, {size_mb:.0f} MB")
        made: list[float] = []

        def prepare() -> None:
            found = find_cases([place / "raw"], channels=None, labels=None, patient_pattern=None).cases
            outcome = store_case(found[0], transform(), place / "store")
            if outcome.key is None:
                raise SystemExit(f"not usable: {outcome.reasons}")
            made.append(sum(outcome.sizes.values()) / 1e6)

        processor, wall = timed(prepare)
        again, _ = timed(prepare)
        print(f"prepared in {processor:.1f} s of one core ({wall:.1f} s by the clock), limit {LIMIT_S:g} s")
        print(f"found again in {again:.1f} s; {made[0]:.0f} MB in the store")
        found = find_cases([place / "raw"], channels=None, labels=None, patient_pattern=None).cases
        clock = []
        for workers in (1, 2):
            shutil.rmtree(place / "store")
            work = partial(store_cases, found, transform(), store=place / "store", num_workers=workers)
            _, wall = timed(work)
            clock.append(wall)
            print(f"two patients in {workers} processes: {wall:.1f} s by the clock")
        print(f"{clock[0] / clock[1]:.2f} x faster in two processes on {os.cpu_count()} cores")
        return int(processor > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())

"""Patches of planned patients: the prepared store against a Dataset that loads the documented `.npz` for every patch.

Patients of 300 x 300 x 128 voxels with eight structures, as version 2.3 of the grid has them; one thread each, files in
the page cache. The peer changes nothing about its patches; the store is measured without changes too, and with the
whole recipe. Also: the share of a training step that waits for data with two workers.
Claims: at least 20 times the patches; the wait below 5 %.

    python benchmarks/dose_patches.py [--cases 2] [--seconds 8]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

SHAPE, SPACING_MM, CLIP_MM, RX_GY = (300, 300, 128), (1.0, 1.0, 2.5), 50.0, 70.0
# Middle and half axes in voxels, of ellipsoids in RAS+
STRUCTURES = {
    "PTV70": ((150, 150, 64), (28, 24, 14)),
    "PTV56": ((150, 150, 70), (60, 45, 30)),
    "Prostate": ((150, 150, 64), (22, 18, 11)),
    "Rectum": ((150, 105, 64), (17, 19, 30)),
    "Bladder": ((150, 195, 85), (45, 35, 18)),
    "Femur_L": ((50, 150, 50), (28, 28, 24)),
    "Femur_R": ((250, 150, 50), (28, 28, 24)),
    "Bowel": ((150, 190, 110), (80, 50, 14)),
}
BATCH, LEAST_RATIO, MOST_WAITING = 2, 20.0, 0.05


def patient(seed: int) -> dict[str, np.ndarray]:
    """Return CT in HU, distances over their clip, dose in Gy: smooth where patients are, with noise."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.arange(length, dtype=np.float32) for length in SHAPE), indexing="ij", sparse=True)
    distances = np.empty((len(STRUCTURES), *SHAPE), np.float16)
    for target, (middle, radii) in zip(distances, STRUCTURES.values(), strict=True):
        moved = rng.uniform(-3, 3, 3)
        scaled = ((axis - at - by) / radius for axis, at, by, radius in zip(axes, middle, moved, radii, strict=True))
        target[:] = ((np.sqrt(sum(part**2 for part in scaled)) - 1.0) * (min(radii) / CLIP_MM)).clip(-1.0, 1.0)
    body = ((axes[0] - 150) / 145) ** 2 + ((axes[1] - 150) / 100) ** 2 < 1
    ct = np.where(body, rng.normal(20.0, 60.0, SHAPE), -1000.0).astype(np.int16)
    dose = RX_GY * np.exp(-4.0 * np.maximum(distances[0].astype(np.float32), 0.0))
    return {"ct": ct, "distances": distances, "dose": dose}


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the documented keys as NumPy does when nobody asks for compression: the fastest to load."""

    def turned(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.swapaxes(array, -3, -2))

    np.savez(
        path,
        ct=turned(arrays["ct"].clip(-1000, 3000) / np.float32(4000) + np.float32(0.5)),
        dose=turned(arrays["dose"] / np.float32(RX_GY)),
        masks=turned((arrays["distances"] < 0).astype(np.uint8)),
        masks_sdf=turned(arrays["distances"].astype(np.float32)),
        constraints=np.zeros(13, np.float32),
    )


def write_entry(folder: Path, arrays: dict[str, np.ndarray], number: int) -> dict[str, Any]:
    """Write a store entry as stage=prepare does and return its record."""
    key = f"{number:064x}"
    entry = folder / "store" / key[:2] / key
    entry.mkdir(parents=True)
    high = np.argwhere(arrays["dose"] > 0.1 * RX_GY)
    high = high[:: max(1, len(high) // 10_000)][:10_000]
    files = {
        "image.npy": arrays["ct"][None],
        "distances.npy": arrays["distances"],
        "dose.npy": arrays["dose"][None].astype(np.float32),
        "possible.npy": np.ones(SHAPE, np.uint8),
        "foreground.npy": np.concatenate([np.ones((len(high), 1)), high], axis=1).astype(np.int32),
    }
    for name, array in files.items():
        np.save(entry / name, array)
    name = f"patient{number}"
    return {
        "case": name, "patient": name, "role": "train", "store": key, "stored_shape": SHAPE,
        "stored_spacing_mm": SPACING_MM, "images": {}, "label": {"path": name, "sha256": ""}, "voxel_sha256": key,
        "channel_sha256": [key], "constraints": [0.0] * 13, "prescription_gy": RX_GY,
        "sizes": {name: (entry / name).stat().st_size for name in files},
    }  # fmt: skip


def write_all(folder: Path, cases: int) -> None:
    records = []
    for number in range(cases):
        arrays = patient(number)
        write_npz(folder / f"patient{number}.npz", arrays)
        records.append(write_entry(folder, arrays, number))
    names = [record["case"] for record in records]
    manifest = {
        "format": 1, "dataset": "benchmark", "kind": "doses", "store": str(folder / "store"),
        "channels": ["ct", *STRUCTURES], "labels": {}, "channel_normalization": [], "digest": "", "cases": records,
        "transform": {
            "format": "npz", "structures": list(STRUCTURES), "aliases": {}, "required": [],
            "grid": {"kind": "as_stored"}, "dose_interpolation": "linear", "distance_clip_mm": CLIP_MM,
            "is_strict": False,
        },
    }  # fmt: skip
    splits = [{"train": names[:-1], "val": names[-1:]}]
    plan = {"spacing_mm": SPACING_MM, "patch_size": [128] * 3, "strides": [[1] * 3], "kernel_sizes": [[3] * 3]}
    (folder / "prepare").mkdir()
    for name, record in {"manifest": manifest, "splits_final": splits, "plan": plan, "fingerprint": {}}.items():
        (folder / "prepare" / f"{name}.json").write_text(json.dumps(record))


def opened(folder: Path, *, side: int, num_workers: int, share: float):
    """Return the datamodule; `share` is 1 for the whole recipe of augmentation and 0 for none."""
    from medexp.datasets.doses import PlannedDoses
    from medexp.preparation.dose_grid import AsStored
    from medexp.transforms.dose_augmentation import DoseAugmentation

    data = PlannedDoses(
        name="benchmark", find_cases=write_all, write_mock=write_all, roots=[], test_roots=[], patient_pattern=None,
        format="npz", structures=list(STRUCTURES), aliases={}, required=[], targets={"PTV70": RX_GY},
        mirrored=[["Femur_L", "Femur_R"]], grid=AsStored(), dose_interpolation="linear", distance_clip_mm=CLIP_MM,
        prescription_gy=RX_GY, strict_validation=False, split="folds", holdout_shares=[0.8, 0.1, 0.1], num_folds=None,
        split_seed=0, splits_file=None, patch_size=[side] * 3, batch_size=BATCH, steps_per_epoch=100_000,
        patches_per_case=4, high_dose_fraction=0.5,
        augmentation=DoseAugmentation(
            flip_probability=0.5 * share, translation_probability=0.5 * share, translation_voxels=16,
            rotation_probability=0.5 * share, rotation_deg=5.0, noise_probability=0.3 * share, noise_deviation=0.02,
        ),
    )  # fmt: skip
    data.open(folder / "prepare", fold=0, num_workers=num_workers)
    return data


class LoadsEveryTime(Dataset):
    """What the VMAT system did: open the file, load what is needed of it, cut out a patch."""

    def __init__(self, folder: Path, side: int) -> None:
        self.paths, self.side = sorted(folder.glob("*.npz"))[:-1], side

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(index)
        with np.load(self.paths[index % len(self.paths)]) as file:
            ct, dose, distances, constraints = (file[key] for key in ("ct", "dose", "masks_sdf", "constraints"))
        inside = np.argwhere(dose[::4, ::4, ::4] > 0.1) * 4 if index % 2 == 0 else None
        center = random.integers(dose.shape) if inside is None else inside[random.integers(len(inside))]
        half = self.side // 2
        window = tuple(
            slice(start, start + self.side)
            for start in (
                int(min(max(middle - half, 0), length - self.side))
                for middle, length in zip(center, dose.shape, strict=True)
            )
        )
        image = np.concatenate([ct[window][None], distances[(slice(None), *window)]])
        return {"image": image, "dose": dose[window][None], "constraints": constraints}


def seconds_per_patch(loader: Any, seconds: float) -> float:
    """Return processor time, which other programs on the machine change little; both sides use one thread."""
    batches = iter(loader)
    next(batches)
    started, count = time.process_time(), 0
    while time.process_time() - started < seconds:
        count += len(next(batches)["image"])
    return (time.process_time() - started) / count


def throughput(folder: Path, side: int, seconds: float) -> bool:
    peer = DataLoader(LoadsEveryTime(folder, side), batch_size=BATCH, num_workers=0)
    data = {
        name: opened(folder, side=side, num_workers=0, share=share) for name, share in (("plain", 0.0), ("all", 1.0))
    }
    loaders = {"peer": peer, **{name: one.train_dataloader() for name, one in data.items()}}
    found: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(3):  # interleaved, so that a busy moment of the machine meets all of them
        for name, loader in loaders.items():
            found[name].append(seconds_per_patch(loader, seconds / 3))
    took = {name: float(np.median(values)) for name, values in found.items()}
    print(f"milliseconds of processor time per patch of {side}^3, medians of 3 interleaved repeats:")
    print(f"  .npz loaded for each  {1e3 * took['peer']:8.1f}")
    for name, line in (("plain", "store, no changes   "), ("all", "store, whole recipe ")):
        ratio = took["peer"] / took[name]
        print(f"  {line}  {1e3 * took[name]:8.1f}   ratio {ratio:6.1f}; claimed: at least {LEAST_RATIO:g}")
    return took["peer"] / took["plain"] >= LEAST_RATIO


def waiting(folder: Path, *, side: int = 64, steps: int = 6) -> bool:
    from medexp.networks.dose_unet import DoseUNet

    torch.set_num_threads(2)
    torch.manual_seed(0)
    network = DoseUNet(1 + len(STRUCTURES), 1, 13, base_features=16)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    loader = opened(folder, side=side, num_workers=2, share=1.0).train_dataloader()
    batches, waited, started = iter(loader), 0.0, 0.0
    for step in range(steps + 2):
        if step == 2:
            waited, started = 0.0, time.perf_counter()
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(network(batch["image"], batch["constraints"]), batch["dose"]).backward()
        optimizer.step()
    total = time.perf_counter() - started
    loader.close()
    print(f"training on patches of {side}^3 with 2 workers: {total / steps:.2f} s per step of {BATCH}")
    print(f"  waiting for data {100 * waited / total:.2f} %; claimed: below {100 * MOST_WAITING:g} %")
    return waited / total < MOST_WAITING


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2, help="patients; the last one validates")
    parser.add_argument("--seconds", type=float, default=9.0, help="of each measurement")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="medexp-doses-") as name:
        folder = Path(name)
        write_all(folder, arguments.cases)
        good = [throughput(folder, side, arguments.seconds) for side in (64, 128)]
        good.append(waiting(folder))
    raise SystemExit(0 if all(good) else 1)


if __name__ == "__main__":
    main()

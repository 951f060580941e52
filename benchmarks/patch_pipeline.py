"""How many training patches does one core make, beside MONAI's CacheDataset and nnU-Net's loader?

    python benchmarks/patch_pipeline.py [--cases 4] [--repeats 5] [--nnunet-python .venv-nnunet/bin/python]

Synthetic heads of four channels, 240x240x155, patches of 128^3 with label, batches of two. Every side is a process
of its own with one torch thread; repeats are interleaved; a side's figure is the median over its repeats of
patches per second of processor time, which other programs on the machine disturb little. MONAI caches the
volumes as they are; the same with CropForegroundd in its cache is printed too. nnU-Net v2 runs from its own
environment (`make nnunet`); without it the script ends with status 2, never with a pass. A ratio that misses its
target is status 1.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

PATCH, BATCH, SHAPE = (128, 128, 128), 2, (240, 240, 155)
ROOT = Path(__file__).parents[1]
LABELS = {"NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}
CHANNELS = ("t1c", "t1n", "t2w", "t2f")


def head(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a z-scored image with zeros around it and nested labels, of the size of a BraTS case."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, length) for length in SHAPE), indexing="ij", sparse=True)
    brain = sum((axis / radius) ** 2 for axis, radius in zip(axes, (0.58, 0.74, 0.9), strict=True)) < 1
    image = np.zeros((4, *SHAPE), np.float32)
    for channel in image:
        for period, amount in ((16, 1.5), (4, 0.6)):
            coarse = rng.standard_normal([length // period + 1 for length in SHAPE]).astype(np.float32)
            factors = [length / small for length, small in zip(SHAPE, coarse.shape, strict=True)]
            channel += amount * ndimage.zoom(coarse, factors, order=1)
        channel += 0.25 * rng.standard_normal(SHAPE, dtype=np.float32)
        channel -= channel[brain].mean()
        channel /= channel[brain].std()
        channel[~brain] = 0
    distance = np.sqrt(sum((axis - rng.uniform(-0.2, 0.2)) ** 2 for axis in axes))
    label = np.zeros(SHAPE, np.uint8)
    for value, radius in ((4, 0.34), (2, 0.30), (3, 0.20), (1, 0.13)):
        label[(distance < radius) & brain] = value
    return image, label


def write_raw(folder: Path, cases: int) -> None:
    for number in range(cases):
        image, label = head(number)
        np.save(folder / f"image{number}.npy", image)
        np.save(folder / f"label{number}.npy", label)


# Ours


def write_prepared(raw: Path, folder: Path, *, records: int) -> Path:
    """Write the raw cases as stage=prepare would, and a manifest that names them `records` times."""
    from medexp.preparation.entry import foreground_voxels

    prepared, store = folder / "prepare", folder / "store"
    prepared.mkdir(parents=True)
    found = []
    for number, path in enumerate(sorted(raw.glob("image*.npy"))):
        image, label = np.load(path, mmap_mode="r"), np.load(raw / f"label{number}.npy")
        box = tuple(slice(where.min(), where.max() + 1) for where in np.nonzero(image[0]))
        entry = store / "00" / f"{number:064x}"
        entry.mkdir(parents=True)
        label = np.ascontiguousarray(label[box])
        np.save(entry / "image.npy", np.ascontiguousarray(image[(slice(None), *box)], dtype=np.float16))
        np.save(entry / "label.npy", label)
        np.save(entry / "foreground.npy", foreground_voxels(label))
        sizes = {file.name: file.stat().st_size for file in entry.iterdir()}
        found.append({"store": entry.name, "stored_shape": list(label.shape), "sizes": sizes})
    cases = [_record(found[number % len(found)], number) for number in range(records)]
    transform = {"channels": CHANNELS, "labels": LABELS, "schemes": ["zscore_nonzero"] * 4, "spacing_mm": [1, 1, 1]}
    manifest = {
        "format": 1,
        "dataset": "benchmark",
        "store": str(store),
        "channels": CHANNELS,
        "labels": LABELS,
        "channel_normalization": ["zscore_nonzero"] * 4,
        "transform": transform,
        "digest": "",
        "cases": cases,
    }
    names = [case["case"] for case in cases]
    held = max(1, len(names) // 5)
    splits = [
        {"train": names[: start * held] + names[(start + 1) * held :], "val": names[start * held : (start + 1) * held]}
        for start in range(5 if records >= 10 else 1)
    ]
    plan = {"spacing_mm": [1, 1, 1], "patch_size": PATCH, "strides": [[1, 1, 1]], "kernel_sizes": [[3, 3, 3]]}
    for name, record in {"manifest": manifest, "splits_final": splits, "plan": plan, "fingerprint": {}}.items():
        (prepared / f"{name}.json").write_text(json.dumps(record))
    return prepared


def _record(entry: dict[str, Any], number: int) -> dict[str, Any]:
    name = f"case{number:05d}"
    files = {
        channel: {"path": f"/raw/{name}/{name}-{channel}.nii.gz", "sha256": f"{number:064x}"} for channel in CHANNELS
    }
    return {
        **entry,
        "case": name,
        "patient": name,
        "role": "train",
        "images": files,
        "label": {"path": f"/raw/{name}/{name}-seg.nii.gz", "sha256": f"{number:064x}"},
        "voxel_sha256": f"{number:064x}",
        "channel_sha256": [f"{number:060x}{channel:>4}" for channel in CHANNELS],
        "label_voxels": dict.fromkeys(LABELS, 1000),
        "warnings": [],
    }


def medexp_batches(folder: Path, recipe: str) -> Iterator[Any]:
    import yaml

    from medexp.datasets.loading import PatchBatches, PatchLoader
    from medexp.datasets.reading import VoxelReader
    from medexp.io.prepared import PreparedCohort
    from medexp.sampling.order import GlobalBatches
    from medexp.sampling.patches import LabelPositions
    from medexp.transforms.augmentation import Augmentation

    values = yaml.safe_load((ROOT / "conf" / "dataset" / "augmentation" / f"{recipe}.yaml").read_text())
    del values["_target_"]
    cases = PreparedCohort.open(folder / "prepared" / "prepare").cases
    batches = PatchBatches(
        cases=cases,
        reader=VoxelReader((0, 1, 2, 3), None),
        augmentation=Augmentation(**values),
        patch_size=PATCH,
        positions=LabelPositions(0.33),
        seed=0,
    )
    order = GlobalBatches(num_cases=len(cases), batch_size=BATCH, steps_per_epoch=1000, seed=0)
    return iter(PatchLoader(batches, order, num_workers=0))


# MONAI


def monai_batches(folder: Path, *, cropped: bool) -> Iterator[Any]:
    import torch
    from monai.data import CacheDataset, DataLoader
    from monai.transforms import (
        Compose,
        CropForegroundd,
        EnsureChannelFirstd,
        EnsureTyped,
        LoadImaged,
        RandCropByPosNegLabeld,
        RandFlipd,
        RandScaleIntensityd,
        RandShiftIntensityd,
    )

    keys = ["image", "label"]
    paths = sorted((folder / "raw").glob("image*.npy"))
    files = [{"image": str(path), "label": str(path.with_name(path.name.replace("image", "label")))} for path in paths]
    transforms = [
        LoadImaged(keys, reader="NumpyReader"),
        EnsureChannelFirstd("label", channel_dim="no_channel"),
        EnsureTyped(keys, dtype=[torch.float32, torch.uint8]),
        *([CropForegroundd(keys, source_key="image", allow_smaller=True)] if cropped else []),
        RandCropByPosNegLabeld(keys, label_key="label", spatial_size=PATCH, pos=1, neg=2, num_samples=1),
        *(RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(3)),
        RandScaleIntensityd("image", factors=0.1, prob=1.0),
        RandShiftIntensityd("image", offsets=0.1, prob=1.0),
    ]
    dataset = CacheDataset(files, Compose(transforms), progress=False, num_workers=1)
    while True:
        yield from DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=0)


# A side: a process that makes patches when it is asked to


def serve(make: Callable[[], Iterator[Any]]) -> None:
    """Answer lines of `run <batches>` and `memory <batches>` on standard input with a line of JSON each."""
    import torch

    torch.set_num_threads(1)
    before = anonymous_bytes()
    batches = make()
    next(batches)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command, count = line.split()
        start = time.process_time()
        if command == "memory":
            print(json.dumps({"bytes": peak_while(batches, int(count)) - before}), flush=True)
        else:
            patches = consume(batches, int(count))
            print(json.dumps({"patches_per_s": patches / (time.process_time() - start)}), flush=True)


def consume(batches: Iterator[Any], count: int) -> int:
    return sum(len(next(batches)["image"]) for _ in range(count))


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise SystemExit("expected /proc/self/status with RssAnon, found none: memory is measured on Linux only")


def peak_while(batches: Iterator[Any], count: int) -> int:
    peak, done = anonymous_bytes(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    consume(batches, count)
    done.set()
    watcher.join()
    return max(peak, anonymous_bytes())


class Side:
    """The other end of `serve`."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLOSC_NTHREADS"), "1")
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **threads, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"},
        )
        self.errors: list[str] = []
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr or ()), daemon=True).start()
        self._answer()

    def ask(self, command: str, batches: int) -> float:
        """Return what the side answers to a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command} {batches}\n")
        self.process.stdin.flush()
        return float(next(iter(self._answer().values())))

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        self.process.wait()
        raise SystemExit(f"{self.name} ended with status {self.process.returncode}:\n{''.join(self.errors[-20:])}")

    def close(self) -> None:
        """End the side."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def seconds_to_open(prepared: Path) -> float:
    """Return the median time to open a cohort, the import left out."""
    from medexp.io.prepared import PreparedCohort

    times = []
    for _ in range(5):
        start = time.perf_counter()
        PreparedCohort.open(prepared).fold(0)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(folder: Path, arguments: argparse.Namespace) -> bool:
    write_raw(raw := folder / "raw", arguments.cases)
    write_prepared(raw, folder / "prepared", records=arguments.cases)
    opened_s = seconds_to_open(write_prepared(raw, folder / "thousand", records=1000))
    me = [sys.executable, str(Path(__file__).resolve()), "--folder", str(folder), "--side"]
    sides = {name: Side(name, [*me, name]) for name in ("light", "monai", "monai-cropped", "nnunet")}
    peer = [arguments.nnunet_python, str(Path(__file__).with_name("nnunet_patches.py")), str(folder)]
    sides["nnU-Net"] = Side("nnU-Net", peer)
    batches = {"light": 40, "monai": 6, "monai-cropped": 12, "nnunet": 40, "nnU-Net": 15}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.repeats):
        for name, side in sides.items():
            found[name].append(side.ask("run", batches[name]))
    memory = {name: sides[name].ask("memory", 8) / 2**20 for name in ("light", "nnunet", "monai", "monai-cropped")}
    for side in sides.values():
        side.close()
    return report({name: statistics.median(values) for name, values in found.items()}, memory, opened_s, arguments)


def report(rate: dict[str, float], memory: dict[str, float], opened_s: float, arguments: argparse.Namespace) -> bool:
    print(f"128^3 x 4 channels with label, batches of {BATCH}, {arguments.cases} cases of {SHAPE}; one thread each,")
    print(f"patches per second of processor time, medians of {arguments.repeats} interleaved repeats")
    checks = [
        ("light augmentation, times MONAI CacheDataset", rate["light"] / rate["monai"], 10.0, True),
        ("nnU-Net augmentation, times nnU-Net v2", rate["nnunet"] / rate["nnU-Net"], 3.5, True),
        (
            "anonymous memory, share of CacheDataset's",
            max(memory["light"], memory["nnunet"]) / memory["monai"],
            0.25,
            False,
        ),
        ("seconds to open 1,000 prepared cases", opened_s, 1.0, False),
    ]
    for name, unit in (
        ("light", "medexp, light"),
        ("monai", "MONAI"),
        ("monai-cropped", "MONAI, cropped in its cache"),
    ):
        print(f"  {unit:<46} {rate[name]:8.1f} patches/s   {memory[name]:7.0f} MiB")
    print(f"  {'medexp, nnU-Net recipe':<46} {rate['nnunet']:8.1f} patches/s   {memory['nnunet']:7.0f} MiB")
    print(f"  {'nnU-Net v2':<46} {rate['nnU-Net']:8.1f} patches/s")
    print(f"  light augmentation, times MONAI with a cropped cache: {rate['light'] / rate['monai-cropped']:.1f}")
    for name, value, target, more_is_better in checks:
        good = value >= target if more_is_better else value <= target
        bound = "at least" if more_is_better else "at most"
        print(f"{'ok  ' if good else 'MISS'} {name:<46} {value:8.2f}   ({bound} {target:g})")
    return all(value >= target if more else value <= target for _, value, target, more in checks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--nnunet-python", default=str(ROOT / ".venv-nnunet" / "bin" / "python"))
    parser.add_argument("--side", choices=["light", "nnunet", "monai", "monai-cropped"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side in ("light", "nnunet"):
        serve(lambda: medexp_batches(arguments.folder, arguments.side))
    elif arguments.side:
        serve(lambda: monai_batches(arguments.folder, cropped=arguments.side == "monai-cropped"))
    elif not Path(arguments.nnunet_python).exists():
        print(f"nnU-Net v2 is not here: expected {arguments.nnunet_python}; run `make nnunet`", file=sys.stderr)
        sys.exit(2)
    else:
        with tempfile.TemporaryDirectory(prefix="medexp-patches-") as folder:
            (Path(folder) / "raw").mkdir()
            sys.exit(0 if measure(Path(folder), arguments) else 1)


if __name__ == "__main__":
    main()

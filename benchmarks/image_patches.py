"""Patches of whole-well images: the prepared store against a Dataset that opens the TIFF for every patch.

Also: the share of a training step that waits for data with two workers, and tiling against the network's own time.
Claims: at least 3 times the patches; the wait below 5 %; tiling at most 1.1 times the network's forward passes; the
memory of an epoch does not grow with the number of images.

    python benchmarks/image_patches.py [--images 6]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

SHAPE, PATCH, BATCH = (1440, 1920), 256, 4
SMALL_SHAPE = (720, 960)
SECONDS = 6.0


class OpensEveryTime(Dataset):
    """What SegOid did: open image and mask, take a patch around an object's pixel, divide by 255."""

    def __init__(self, root: Path) -> None:
        self.images = sorted((root / "images").glob("*.tif"))

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        import tifffile

        random = np.random.default_rng(index)
        path = self.images[index % len(self.images)]
        image = tifffile.imread(path)
        image = image[..., 0] if image.ndim == 3 else image
        mask = tifffile.imread(path.parents[1] / "masks" / f"{path.stem}_mask.tif")
        inside = np.flatnonzero(mask)
        center = divmod(int(inside[random.integers(len(inside))]), mask.shape[1])
        top, left = (
            int(min(max(middle - PATCH // 2, 0), side - PATCH)) for middle, side in zip(center, SHAPE, strict=True)
        )
        window = slice(top, top + PATCH), slice(left, left + PATCH)
        return image[window].astype(np.float32) / 255.0, (mask[window] > 0).astype(np.uint8)


def dataset(folder: Path, shape: tuple[int, int] = SHAPE):
    from medexp.datasets.labelled_images import LabelledImages
    from medexp.preparation.mock_spheroids import write_mock
    from medexp.preparation.paired_images import find_cases
    from medexp.transforms.augmentation import Augmentation

    pairs = ({"image": r"images/(?P<base>[^/]+)", "mask": "masks/{base}_mask"},)
    return LabelledImages(
        name="wells",
        find_cases=partial(find_cases, pairs=pairs, manifest=None, exclude=(), confirmed_empty=(), corrections=()),
        write_mock=partial(write_mock, shape=shape, objects_per_image=100),
        roots=[folder / "raw"], test_roots=[], group_pattern=r"(?:.*/)?(?P<group>.+)", channels=["gray"],
        labels={"spheroid": 1}, regions={}, label_weights={}, lesions=None, gray="mean", normalization="type_range",
        pixel_size_um=None, min_object_px=100, split="leave_one_out", holdout_shares=[0.6, 0.2, 0.2],
        coverage_edges=[0.0, 0.01, 0.1, 0.5, 1.0], num_folds=None, split_seed=42, splits_file=None,
        patch_size=[PATCH, PATCH], batch_size=BATCH, steps_per_epoch=100_000, patches_per_image=20,
        foreground_fraction=0.7, jitter=0.25, negative_coverage=0.05, negative_tries=50,
        augmentation=Augmentation(
            flip_axes=[0, 1], quarter_turn_probability=0.5, shift_probability=0.5, shift=[-0.1, 0.1],
            contrast_probability=0.5, contrast=[0.9, 1.1],
        ),
    )  # fmt: skip


def prepared(folder: Path, images: int, shape: tuple[int, int] = SHAPE):
    data = dataset(folder, shape)
    data.write_mock_cohort(folder / "raw", num_patients=images, shape=None, seed=0)
    data.cohort().prepare(folder=folder / "run", store=folder / "store", num_workers=1)
    return data


def patches_per_s(loader, size_of) -> float:
    iterator = iter(loader)
    next(iterator)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        count += size_of(next(iterator))
    return count / (time.perf_counter() - started)


def throughput(data, folder: Path) -> None:
    data.open(folder / "run", fold=0, num_workers=0)
    ours = patches_per_s(data.train_dataloader(), lambda batch: len(batch["image"]))
    plain = DataLoader(OpensEveryTime(folder / "raw"), batch_size=BATCH, num_workers=0)
    theirs = patches_per_s(plain, lambda batch: len(batch[0]))
    print(f"patches per second on one core: store, with augmentation, {ours:.0f}; TIFF opened for each {theirs:.0f}")
    print(f"ratio {ours / theirs:.1f}; claimed: at least 3")


def network():
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    return smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=1)


def waiting(data, folder: Path, steps: int = 12) -> None:
    from medexp.losses.overlap import DiceBinaryCrossEntropy

    data.open(folder / "run", fold=0, num_workers=2)
    model, loss = network(), DiceBinaryCrossEntropy(dice_weight=0.5, cross_entropy_weight=0.5, smooth=1e-6)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    loader = data.train_dataloader()
    batches, waited, started = iter(loader), 0.0, 0.0
    for step in range(steps + 2):
        if step == 2:
            waited, started = 0.0, time.perf_counter()
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        optimizer.zero_grad()
        loss(model(batch["image"]), batch["label"]).backward()
        optimizer.step()
    share = waited / (time.perf_counter() - started)
    loader.close()
    print(f"waiting for data with 2 workers: {100 * share:.2f} % of a training step; claimed: below 5 %")


def tiling(data, folder: Path, rounds: int = 3) -> None:
    from medexp.inference.sliding_window import SlidingWindow

    data.open(folder / "run", fold=0, num_workers=0)
    image = next(iter(data.val_dataloader()))["image"][0]
    model = network().eval()
    window = SlidingWindow(overlap=0.25, batch_size=1, skip_background=False, padding="reflect")
    places = list(window.places(SHAPE, (PATCH, PATCH)))
    tiles = [image[(slice(None), *place)][None].clone() for place in places]
    whole, alone = [], []
    with torch.inference_mode():
        model(tiles[0])
        for _ in range(rounds):
            started = time.perf_counter()
            for tile in tiles:
                model(tile)
            alone.append(time.perf_counter() - started)
            started = time.perf_counter()
            window(model, image, patch_size=(PATCH, PATCH))
            whole.append(time.perf_counter() - started)
    print(f"1440 x 1920 in {len(tiles)} tiles of {PATCH} with a quarter in common (the fewest that cover it so):")
    ratio = float(np.median(np.array(whole) / np.array(alone)))
    print(f"  the network alone {np.median(alone):.2f} s, tiled {np.median(whole):.2f} s")
    print(f"  ratio {ratio:.3f}; claimed: at most 1.1")


def epoch_memory_mib(folder: Path) -> float:
    """Return the anonymous memory that an epoch of training patches takes; what is mapped can be dropped."""
    data = dataset(folder)
    before = anonymous_mib()
    data.open(folder / "run", fold=0, num_workers=0)
    batches = iter(data.train_dataloader())
    for _ in range(20 * len(list((folder / "raw" / "images").iterdir())) // BATCH):
        next(batches)
    return anonymous_mib() - before


def anonymous_mib() -> float:
    """Return what this process holds that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def memory() -> None:
    """Print what an epoch takes with 24 images and with four times as many, each in a process of its own."""
    found = []
    for number in (24, 96):
        with tempfile.TemporaryDirectory() as name:
            prepared(Path(name), number, SMALL_SHAPE)
            line = [sys.executable, __file__, "--memory-of", name]  # a process that has done nothing before
            found.append(float(subprocess.run(line, check=True, capture_output=True, text=True).stdout))
    print(f"an epoch takes {found[0]:.1f} MiB with 24 images of 720 x 960 and {found[1]:.1f} MiB with 96")
    pixels_mib = 72 * SMALL_SHAPE[0] * SMALL_SHAPE[1] / 2**20
    print(f"  {found[1] - found[0]:+.1f} MiB for {pixels_mib:.0f} MiB more of pixels; claimed: does not grow with them")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(epoch_memory_mib(arguments.memory_of))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = prepared(folder, arguments.images)
        throughput(data, folder)
        memory()
        waiting(data, folder)
        tiling(data, folder)


if __name__ == "__main__":
    main()

"""nnU-Net v2's own loader and training augmentation, asked by patch_pipeline.py; runs in nnU-Net's environment."""

import json
import os
import sys
import time
from pathlib import Path

for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, sys.argv[1])

import numpy as np  # noqa: E402 - nnU-Net reads the environment when it is imported
import torch  # noqa: E402
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size  # noqa: E402
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader  # noqa: E402
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402
from nnunetv2.utilities.label_handling.label_handling import LabelManager  # noqa: E402

PATCH, BATCH = (128, 128, 128), 2
LABELS = {"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}


def preprocess(raw: Path, folder: Path) -> None:
    """Store the cases as nnU-Net's preprocessor does: cropped, float32, -1 outside the head, blosc2."""
    for path in sorted(raw.glob("image*.npy")):
        image, label = np.load(path), np.load(path.with_name(path.name.replace("image", "label"))).astype(np.int8)
        label[image[0] == 0] = -1
        box = tuple(slice(where.min(), where.max() + 1) for where in np.nonzero(image[0]))
        image, label = image[(slice(None), *box)], label[box][None]
        rng = np.random.RandomState(1234)
        locations = {}
        for value in range(1, 5):
            voxels = np.argwhere(label == value)
            locations[value] = voxels[rng.choice(len(voxels), min(10_000, len(voxels)), replace=False)]
        blocks, chunks = comp_blosc2_params(image.shape, PATCH, image.itemsize)
        blocks_seg, chunks_seg = comp_blosc2_params(label.shape, PATCH, label.itemsize)
        nnUNetDatasetBlosc2.save_case(
            image, label, {"class_locations": locations}, str(folder / path.stem),
            chunks=chunks, blocks=blocks, chunks_seg=chunks_seg, blocks_seg=blocks_seg,
        )  # fmt: skip


def loader(folder: Path) -> nnUNetDataLoader:
    """Return what nnUNetTrainer.get_dataloaders puts into its worker processes."""
    angles = (-30.0 / 360 * 2.0 * np.pi, 30.0 / 360 * 2.0 * np.pi)
    transforms = nnUNetTrainer.get_training_transforms(
        PATCH, angles, None, (0, 1, 2), False, use_mask_for_norm=[True] * 4, foreground_labels=[1, 2, 3, 4]
    )
    return nnUNetDataLoader(
        nnUNetDatasetBlosc2(str(folder)), BATCH, get_patch_size(PATCH, angles, angles, angles, (0.85, 1.25)), PATCH,
        LabelManager(LABELS, None), oversample_foreground_percent=0.33, transforms=transforms,
    )  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    (folder / "blosc2").mkdir()
    preprocess(folder / "raw", folder / "blosc2")
    np.random.seed(0)  # noqa: NPY002 - nnU-Net draws from the global state
    batches = loader(folder / "blosc2")
    for _ in range(3):  # its blur times two implementations when it first meets a size
        next(batches)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        _, count = line.split()
        start = time.process_time()
        patches = sum(len(next(batches)["data"]) for _ in range(int(count)))
        print(json.dumps({"patches_per_s": patches / (time.process_time() - start)}), flush=True)


if __name__ == "__main__":
    main()

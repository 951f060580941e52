"""A prepared cohort as files, written by hand: the format is the contract."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

CHANNELS = ("t1c", "t2f")
LABELS = {"NETC": 1, "SNFH": 2}


@pytest.fixture(scope="session")
def write_prepared() -> Callable[..., Path]:
    return _write_prepared


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases in two folds and two test cases; one case is smaller than a patch of 16."""
    return _write_prepared(tmp_path_factory.mktemp("prepared"))


def _write_prepared(
    root: Path,
    *,
    num_cases: int = 6,
    num_test: int = 2,
    shape: Sequence[int] = (20, 18, 22),
    schemes: Sequence[str] = ("zscore_nonzero", "zscore_nonzero"),
) -> Path:
    folder = root / "prepare"
    folder.mkdir()
    names = [f"case{number}" for number in range(num_cases + num_test)]
    records = [
        _write_case(root / "store", name, (12, *shape[1:]) if number == 1 else tuple(shape), schemes)
        for number, name in enumerate(names)
    ]
    for record in records[num_cases:]:
        record["role"] = "test"
    manifest = {
        "format": 1,
        "dataset": "synthetic",
        "store": str(root / "store"),
        "channels": list(CHANNELS),
        "labels": LABELS,
        "channel_normalization": list(schemes),
        "transform": {"channels": list(CHANNELS), "labels": LABELS, "schemes": list(schemes), "spacing_mm": [1, 1, 1]},
        "digest": "d" * 64,
        "cases": records,
    }
    training = names[:num_cases]
    splits = [{"train": training[2:], "val": training[:2]}, {"train": training[:2], "val": training[2:]}]
    plan = {
        "spacing_mm": [1.0, 1.0, 1.0],
        "patch_size": [16, 16, 16],
        "strides": [[1, 1, 1], [2, 2, 2]],
        "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
    }
    for name, record in {"manifest": manifest, "splits_final": splits, "plan": plan, "fingerprint": {}}.items():
        (folder / f"{name}.json").write_text(json.dumps(record))
    return folder


def _write_case(store: Path, name: str, shape: tuple[int, ...], schemes: Sequence[str]) -> dict[str, object]:
    number = int(name.removeprefix("case"))
    rng = np.random.default_rng(number)
    key = f"{number:064x}"
    folder = store / key[:2] / key
    folder.mkdir(parents=True)
    native = "ct" in schemes
    image = rng.integers(-900, 900, (len(CHANNELS), *shape)) if native else rng.standard_normal((len(CHANNELS), *shape))
    label = np.zeros(shape, np.uint8)
    label[4:10, 5:12, 6:13] = 2
    label[6:8, 7:10, 8:11] = 1
    rows = [np.concatenate([np.full((n, 1), value), at], axis=1) for value, n, at in _voxels(label)]
    arrays = {
        "image.npy": image.astype(np.int16 if native else np.float16),
        "label.npy": label,
        "foreground.npy": np.concatenate(rows).astype(np.int16),
        "intensities.npy": image[:, label > 0].astype(np.float32),
    }
    for file, array in arrays.items():
        np.save(folder / file, array)
    return {
        "case": name,
        "patient": name,
        "role": "train",
        "store": key,
        "stored_shape": list(shape),
        "images": {channel: {"path": f"{name}_{channel}.nii.gz", "sha256": ""} for channel in CHANNELS},
        "label": {"path": f"{name}_label.nii.gz", "sha256": ""},
        "voxel_sha256": key,
        "channel_sha256": [f"{key}-{channel}" for channel in CHANNELS],
        "sizes": {file: (folder / file).stat().st_size for file in arrays},
    }


def _voxels(label: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    found = [(value, np.argwhere(label == value)) for value in (1, 2)]
    return [(value, len(at), at) for value, at in found]


STRUCTURES = ("PTV70", "Femur_L", "Femur_R")
CLIP_MM = 50.0


@pytest.fixture(scope="session")
def write_planned() -> Callable[..., Path]:
    return _write_planned


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six planned patients in two folds, and a test patient without a dose; one is narrower than a patch of 16."""
    return _write_planned(tmp_path_factory.mktemp("planned"))


def _write_planned(root: Path, *, num_cases: int = 6, without_dose: Sequence[int] = (6,)) -> Path:
    folder = root / "prepare"
    folder.mkdir()
    shapes = [(12, 20, 18) if number == 1 else (24, 20, 18) for number in range(num_cases + 1)]
    records = [
        _write_patient(root / "store", number, shape, has_dose=number not in without_dose)
        for number, shape in enumerate(shapes)
    ]
    records[-1]["role"] = "test"
    manifest = {
        "format": 1,
        "dataset": "synthetic",
        "kind": "doses",
        "store": str(root / "store"),
        "channels": ["ct", *STRUCTURES],
        "labels": {},
        "channel_normalization": ["hounsfield", *["distance"] * len(STRUCTURES)],
        "transform": {
            "format": "npz",
            "structures": list(STRUCTURES),
            "aliases": {},
            "required": ["PTV70"],
            "grid": {"kind": "as_stored"},
            "dose_interpolation": "linear",
            "distance_clip_mm": CLIP_MM,
            "is_strict": False,
        },
        "digest": "d" * 64,
        "cases": records,
    }
    training = [str(record["case"]) for record in records[:num_cases]]
    splits = [{"train": training[2:], "val": training[:2]}, {"train": training[:2], "val": training[2:]}]
    plan = {
        "spacing_mm": [2.0, 2.0, 3.0],
        "patch_size": [16, 16, 16],
        "strides": [[1, 1, 1], [2, 2, 2]],
        "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
    }
    for name, record in {"manifest": manifest, "splits_final": splits, "plan": plan, "fingerprint": {}}.items():
        (folder / f"{name}.json").write_text(json.dumps(record))
    return folder


def _write_patient(store: Path, number: int, shape: tuple[int, int, int], *, has_dose: bool) -> dict[str, object]:
    """Axis 0 runs from left to right, as in every RAS+ volume: the left femur has the small indices."""
    rng = np.random.default_rng(number)
    name, key = f"patient{number}", f"{number:064x}"
    folder = store / key[:2] / key
    folder.mkdir(parents=True)
    middle = shape[0] // 2
    masks = np.zeros((len(STRUCTURES), *shape), bool)
    masks[0, middle - 3 : middle + 3, 6:13, 5:12] = True
    masks[1, 1:4, 8:12, 2:12] = True
    masks[2, shape[0] - 3 : shape[0] - 1, 7:14, 4:16] = True
    distances = np.stack([_signed_mm(mask) for mask in masks]) / CLIP_MM
    dose_gy = 70.0 * np.exp(-np.maximum(distances[0], 0.0) * 8.0) + rng.uniform(0.0, 2.0, shape)
    high = np.argwhere(dose_gy > 35.0)
    arrays = {
        "image.npy": rng.integers(-1024, 3200, (1, *shape)).astype(np.int16),
        "distances.npy": distances.clip(-1.0, 1.0).astype(np.float16),
        "possible.npy": (rng.random(shape) < 0.5).astype(np.uint8),
    }
    if has_dose:
        arrays["dose.npy"] = dose_gy[None].astype(np.float32)
        arrays["foreground.npy"] = np.concatenate([np.ones((len(high), 1)), high], axis=1).astype(np.int32)
    for file, array in arrays.items():
        np.save(folder / file, array)
    return {
        "case": name,
        "patient": name,
        "role": "train",
        "store": key,
        "stored_shape": list(shape),
        "stored_spacing_mm": [2.0, 2.0, 3.0],
        "images": {"CT": {"path": f"{name}_ct.npz", "sha256": ""}},
        "label": {"path": f"{name}_dose.npz", "sha256": ""} if has_dose else None,
        "voxel_sha256": key,
        "channel_sha256": [f"{key}-ct"],
        "constraints": [float(number), *np.linspace(0.0, 1.0, 12)],
        "prescription_gy": 70.0,
        "sizes": {file: (folder / file).stat().st_size for file in arrays},
    }


def _signed_mm(mask: np.ndarray) -> np.ndarray:
    outside, inside = (ndimage.distance_transform_edt(one, sampling=(2.0, 2.0, 3.0)) for one in (~mask, mask))
    return outside - inside

"""What a cohort is like: spacing, shapes, intensities and labels of its training cases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from medexp.errors import CaseError
from medexp.geometry.grids import Grid
from medexp.io.nifti import read_header
from medexp.io.prepared import entry_folder
from medexp.preparation.raw_cases import RawCase

_MAX_SAMPLES = 1_000_000  # intensities of one channel over the cohort


def median_spacing(spacings_mm: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the median voxel size per RAS+ axis, to a millionth of a millimeter."""
    return tuple(round(float(size), 6) for size in np.median(np.array(spacings_mm, dtype=float), axis=0))


def header_spacings(cases: Sequence[RawCase]) -> list[tuple[float, float, float]]:
    """Return the voxel size along the RAS+ axes of the cases whose first image has a usable header."""
    found = []
    for case in cases:
        path = next(iter(case.images.values()), None)
        try:
            header = None if path is None else read_header(path)
        except CaseError:  # verification names it
            continue
        if header is not None:
            found.append(Grid.native(header.shape, header.affine).canonical_spacing_mm)
    return found


def make_fingerprint(
    cases: Sequence[Mapping[str, Any]], *, channels: Sequence[str], labels: Mapping[str, int], store: Path
) -> dict[str, Any]:
    """Return fingerprint.json's content, from manifest entries of training cases and their stored samples."""
    shapes = np.array([case["stored_shape"] for case in cases])
    voxels = {name: [int(case["label_voxels"][name]) for case in cases] for name in labels}
    native = np.array([np.prod(case["shape"]) for case in cases], dtype=float)
    return {
        "num_cases": len(cases),
        "num_patients": len({case["patient"] for case in cases}),
        "spacing_mm": median_spacing([_canonical_spacing(case) for case in cases]),
        "stored_spacing_mm": median_spacing([case["stored_spacing_mm"] for case in cases]),
        "stored_shape": {
            "minimum": shapes.min(axis=0).tolist(),
            "median": np.median(shapes, axis=0).tolist(),
            "maximum": shapes.max(axis=0).tolist(),
        },
        "labels": {
            name: {
                "cases": sum(count > 0 for count in counts),
                "voxels": sum(counts),
                "share": float(sum(counts) / native.sum()),
            }
            for name, counts in voxels.items()
        },
        "foreground_intensity": _intensities(cases, channels, store),
    }


def _canonical_spacing(case: Mapping[str, Any]) -> tuple[float, float, float]:
    affine = np.array(case["affine"], dtype=np.float64)
    i, j, k = case["shape"]
    return Grid.native((i, j, k), affine).canonical_spacing_mm


def _intensities(cases: Sequence[Mapping[str, Any]], channels: Sequence[str], store: Path) -> dict[str, Any]:
    """Return statistics of native intensities at labelled voxels, per channel; nothing where there are none."""
    each = max(1, _MAX_SAMPLES // len(cases))
    samples = [_sample(entry_folder(store, str(case["store"])), each) for case in cases]
    values = np.concatenate(samples, axis=1)
    return {channel: _statistics(row) for channel, row in zip(channels, values, strict=True) if row.size}


def _sample(folder: Path, count: int) -> Float32[np.ndarray, "channel sample"]:
    values = np.load(folder / "intensities.npy", allow_pickle=False)
    return values[:, :: -(-values.shape[1] // count)] if values.shape[1] > count else values


def _statistics(values: Float32[np.ndarray, "sample"]) -> dict[str, float]:
    low, median, high = np.percentile(values, [0.5, 50.0, 99.5])
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "deviation": float(values.std(dtype=np.float64)),
        "minimum": float(values.min()),
        "percentile_00_5": float(low),
        "median": float(median),
        "percentile_99_5": float(high),
        "maximum": float(values.max()),
    }

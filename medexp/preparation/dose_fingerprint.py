"""What a cohort of doses is like: voxel sizes, shapes, prescriptions, doses and structures of its training cases."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medexp.geometry.grids import Grid
from medexp.preparation.fingerprint import median_spacing


def make_dose_fingerprint(cases: Sequence[Mapping[str, Any]], *, structures: Sequence[str]) -> dict[str, Any]:
    """Return fingerprint.json's content, from manifest entries of training cases."""
    shapes = np.array([case["stored_shape"] for case in cases])
    spacings = [Grid.from_json(case["grid"]).canonical_spacing_mm for case in cases]
    return {
        "num_cases": len(cases),
        "num_patients": len({case["patient"] for case in cases}),
        "spacing_mm": median_spacing(spacings),
        "stored_spacing_mm": median_spacing([case["stored_spacing_mm"] for case in cases]),
        "stored_shape": {
            "minimum": shapes.min(axis=0).tolist(),
            "median": np.median(shapes, axis=0).tolist(),
            "maximum": shapes.max(axis=0).tolist(),
        },
        "prescriptions_gy": dict(Counter(f"{case['prescription_gy']:g}" for case in cases)),
        "maximum_gy": _spread([case["dose"]["maximum_gy"] for case in cases]),
        "structures": {name: _structure(name, cases) for name in structures},
    }


def _structure(name: str, cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return in how many cases a structure is, how large it is and which mean dose it has there."""
    holders = [case for case in cases if case["label_voxels"][name]]
    volumes = [case["label_voxels"][name] * float(np.prod(case["stored_spacing_mm"])) / 1000.0 for case in holders]
    means = [case["dose"]["mean_gy"][name] for case in holders]
    return {"cases": len(holders), "volume_cc": _spread(volumes), "mean_gy": _spread(means)}


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"minimum": min(values), "mean": float(np.mean(values)), "maximum": max(values)}

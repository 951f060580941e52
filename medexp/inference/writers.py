"""Predictions as files on the source's own grid."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from medexp.errors import CaseError
from medexp.geometry.grids import Grid, to_native
from medexp.io.nifti import write_nifti
from medexp.runs.files import atomic_write

_MAX_NAME = 200  # characters; file systems allow 255 bytes, suffixes and temporary names need some


@dataclass(frozen=True, eq=False)
class NativePrediction:
    """A prediction on the grid of the file that it was made from; `probabilities` only where asked for."""

    label: UInt8[np.ndarray, "i j k"]
    probabilities: Float32[np.ndarray, "label i j k"] | None
    grid: Grid

    @classmethod
    def of(
        cls, probabilities: Float[Tensor, "label x y z"], grid: Grid, *, keep_probabilities: bool
    ) -> "NativePrediction":
        """Bring probabilities of the stored grid home and decide there, so that resampling cannot invent labels.

        Where nothing was resampled and nobody wants the probabilities, the decision is made first: it is the same
        voxel by voxel, and one byte travels instead of a float per label.
        """
        if grid.box_shape == grid.stored_shape and not keep_probabilities:
            return cls(to_native(decide(probabilities).cpu().numpy(), grid), None, grid)
        native = to_native(probabilities.float().cpu().numpy(), grid)
        label = decide(torch.from_numpy(native)).numpy()
        return cls(label, native if keep_probabilities else None, grid)


def decide(probabilities: Float[Tensor, "label *spatial"]) -> UInt8[Tensor, "*spatial"]:
    """Return the label of the largest probability; the lower label wins a tie."""
    return probabilities.argmax(0).to(torch.uint8)


def write_prediction(folder: Path, case: str, prediction: NativePrediction) -> dict[str, Path]:
    """Write `<case>.nii.gz`, and `<case>.npz` if there are probabilities; each appears whole or not at all.

    The npz holds `probabilities`, float16, `[label, i, j, k]` in the source's axis order, background first.

    Raises:
        CaseError: The case's name cannot be a file's.
        StorageError: A file cannot be written; earlier ones are untouched.
    """
    require_file_name(case)
    paths = {"prediction": folder / f"{case}.nii.gz"}
    if prediction.probabilities is not None:
        paths["probabilities"] = folder / f"{case}.npz"
        with atomic_write(paths["probabilities"]) as temporary:
            np.savez_compressed(temporary, probabilities=prediction.probabilities.astype(np.float16))
    write_nifti(paths["prediction"], prediction.label, prediction.grid)
    return paths


def require_file_name(case: str) -> None:
    """Refuse a case whose name would leave the folder or hide in it.

    Raises:
        CaseError: The name holds a separator or a control character, starts with a dot, or is empty or too long.
    """
    if not case or len(case) > _MAX_NAME or case.startswith(".") or set(case) & {"/", "\\"} or not case.isprintable():
        raise CaseError(f"{case[:80]!r}: expected a case name that can be a file's, got this one: rename the case")

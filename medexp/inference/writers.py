"""Predictions as files on the source's own grid, in its own format."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from medexp.errors import CaseError
from medexp.geometry.grids import AnyGrid, ImageGrid, to_native
from medexp.inference.decisions import Decision, Softmax
from medexp.io.nifti import write_nifti
from medexp.io.tiff import write_mask_tiff, write_tiff
from medexp.runs.files import atomic_write

_LARGEST = Softmax()
_MAX_NAME = 200  # characters; file systems allow 255 bytes, suffixes and temporary names need some


@dataclass(frozen=True, eq=False)
class NativePrediction:
    """A prediction on the grid of the file that it was made from; `probabilities` only where asked for."""

    label: UInt8[np.ndarray, "*spatial"]
    probabilities: Float32[np.ndarray, "label *spatial"] | None
    grid: AnyGrid

    @classmethod
    def of(
        cls,
        probabilities: Float[Tensor, "label *spatial"],
        grid: AnyGrid,
        *,
        keep_probabilities: bool,
        decision: Decision = _LARGEST,
    ) -> "NativePrediction":
        """Bring probabilities of the stored grid home and decide there, so that resampling cannot invent labels.

        Where nothing was resampled and nobody wants the probabilities, the decision is made first: it is the same
        voxel by voxel, and one byte travels instead of a float per label.
        """
        if grid.box_shape == grid.stored_shape and not keep_probabilities:
            return cls(to_native(decision.decide(probabilities).cpu().numpy(), grid), None, grid)
        native = to_native(probabilities.float().cpu().numpy(), grid)
        label = decision.decide(torch.from_numpy(native)).numpy()
        return cls(label, native if keep_probabilities else None, grid)


def write_prediction(folder: Path, case: str, prediction: NativePrediction) -> dict[str, Path]:
    """Write a prediction in the format of its source; each file appears whole or not at all.

    A volume becomes `<case>.nii.gz`, and `<case>.npz` if there are probabilities. An image becomes
    `<case>_pred_mask.tif`, uint8 of 0 and 255, and `<case>_pred_prob.tif`, float32; both packed by LZW.

    The npz holds `probabilities`, float16, `[label, i, j, k]` in the source's axis order, background first.

    Raises:
        CaseError: The case's name cannot be a file's.
        StorageError: A file cannot be written; earlier ones are untouched.
    """
    require_file_name(case)
    if isinstance(prediction.grid, ImageGrid):
        return _write_image(folder, case, prediction, prediction.grid)
    paths = {"prediction": folder / f"{case}.nii.gz"}
    if prediction.probabilities is not None:
        paths["probabilities"] = folder / f"{case}.npz"
        with atomic_write(paths["probabilities"]) as temporary:
            np.savez_compressed(temporary, probabilities=prediction.probabilities.astype(np.float16))
    write_nifti(paths["prediction"], prediction.label, prediction.grid)
    return paths


def _write_image(folder: Path, case: str, prediction: NativePrediction, grid: ImageGrid) -> dict[str, Path]:
    paths = {"prediction": folder / f"{case}_pred_mask.tif"}
    if prediction.probabilities is not None:
        paths["probabilities"] = folder / f"{case}_pred_prob.tif"
        write_tiff(paths["probabilities"], prediction.probabilities[-1], pixel_size_um=grid.pixel_size_um)
    write_mask_tiff(paths["prediction"], prediction.label, pixel_size_um=grid.pixel_size_um)
    return paths


def require_file_name(case: str) -> None:
    """Refuse a case whose name would leave the folder or hide in it.

    Raises:
        CaseError: The name holds a separator or a control character, starts with a dot, or is empty or too long.
    """
    if not case or len(case) > _MAX_NAME or case.startswith(".") or set(case) & {"/", "\\"} or not case.isprintable():
        raise CaseError(f"{case[:80]!r}: expected a case name that can be a file's, got this one: rename the case")

"""Predicted doses as files: npz for evaluation, NIfTI for viewers, DICOM RTDOSE for the planning system."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from medexp.errors import ConfigurationError
from medexp.geometry.grids import Grid, to_native
from medexp.inference.writers import require_file_name
from medexp.io.dose_prediction_npz import DosePrediction, write_prediction_npz
from medexp.io.nifti import write_nifti
from medexp.io.prepared import StoredCase

DoseFormat = Literal["npz", "nifti", "rtdose"]


@dataclass(frozen=True)
class DoseFiles:
    """Which files are written of a predicted dose, on the grid of the prepared case.

    Attributes:
        formats: "npz" with the documented keys, "nifti" in Gy, "rtdose" with references to plan and structure set
            where the case came from DICOM. The first one is evaluated.
        copy_identity: Let the RTDOSE carry the patient's name and ID of the plan that it refers to.

    Raises:
        ConfigurationError: No format is named, or one twice.
    """

    formats: Sequence[DoseFormat]
    copy_identity: bool

    def __post_init__(self) -> None:
        if not self.formats or len(set(self.formats)) != len(self.formats):
            message = "predict.dose_formats: expected one or more of npz, nifti, rtdose, each once"
            raise ConfigurationError(f"{message}, got {list(self.formats)}")

    def write(
        self, folder: Path, case: StoredCase, dose_gy: Float32[np.ndarray, "i j k"], settings: Mapping[str, Any]
    ) -> dict[str, Path]:
        """Write the files of one case; each appears whole or not at all.

        Args:
            folder: Where to.
            case: Whose stored grid `dose_gy` has.
            dose_gy: The dose.
            settings: How it was predicted; plain values that the npz keeps.

        Returns:
            The files by format; the first is called "prediction".

        Raises:
            CaseError: The case's name cannot be a file's.
            StorageError: A file cannot be written; earlier ones are untouched.
        """
        require_file_name(case.case)
        grid = case.grid
        assert isinstance(grid, Grid)  # doses are volumes
        native = np.ascontiguousarray(to_native(dose_gy, grid))
        prediction = DosePrediction(
            dose_gy=native,
            affine=grid.affine,
            prescription_gy=case.prescription_gy,
            inference_settings=settings,
            metadata={"case": case.case},
        )
        writers: dict[str, tuple[str, Callable[[Path], Any]]] = {
            "npz": (".npz", lambda path: write_prediction_npz(path, prediction)),
            "nifti": (".nii.gz", lambda path: write_nifti(path, native, grid)),
            "rtdose": (".dcm", lambda path: self._write_rtdose(path, prediction, case)),
        }
        paths: dict[str, Path] = {}
        for number, name in enumerate(self.formats):
            ending, write = writers[name]
            path = folder / f"{case.case}{ending}"
            write(path)
            paths["prediction" if number == 0 else name] = path
        return paths

    def _write_rtdose(self, path: Path, prediction: DosePrediction, case: StoredCase) -> None:
        from medexp.io.dicom_identity import read_identity
        from medexp.io.dicom_objects import PatientIdentity
        from medexp.io.dicom_rt import RtReferences
        from medexp.io.dicom_write import write_rtdose

        plan = case.image_paths.get("RTPLAN")
        if self.copy_identity and plan is None:
            message = "predict.copy_identity: expected false for a case without an RTPLAN, got true"
            raise ConfigurationError(f"{case.case}: {message}")
        identity = read_identity(plan) if self.copy_identity and plan is not None else PatientIdentity(case.case)
        references = RtReferences.from_json(case.record.get("metadata", {}).get("references", {}))
        write_rtdose(path, prediction.dose_gy, prediction.affine, references=references, identity=identity)

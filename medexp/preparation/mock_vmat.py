"""A synthetic VMAT cohort: a folder per patient with a CT series, structures, plan and dose as DICOM objects.

Prostate patients with 70 and 56 Gy in 28 fractions, two arcs, dose on the CT's grid. The identifiers in a patient's
objects agree and depend on the seed alone.
"""

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medexp.errors import ConfigurationError
from medexp.io.dicom_objects import PatientIdentity
from medexp.io.dicom_write import write_patient
from medexp.preparation.dose_phantom import phantom
from medexp.preparation.dose_scene import LEAST_SIDE, Point
from medexp.preparation.mock_folder import MockFolder
from medexp.preparation.phantoms import Shape
from medexp.runs.files import atomic_write

_OBJECTS: Mapping[str, str] = {"structures": "RS.dcm", "plan": "RP.dcm", "dose": "RD.dcm"}


def write_mock(
    root: str | Path,
    *,
    num_patients: int,
    seed: int,
    shape: Sequence[int] | None = None,
    spacing_mm: Sequence[float] = (3.0, 3.0, 3.0),
) -> bool:
    """Write the cohort; equal arguments give equal bytes. About two seconds and 4 MB a patient.

    Args:
        root: Must be empty, missing, or written by mock.
        num_patients: One folder each.
        seed: Another seed, another cohort.
        shape: Columns, rows and slices of the CT; None: 96, 96, 64.
        spacing_mm: Of the CT; where a pelvis does not fit into shape x spacing, a smaller one is drawn.

    Returns:
        Whether anything was written; an equal cohort that is there stays untouched.

    Raises:
        ConfigurationError: The folder holds something else, or an argument does not fit.
    """
    sides = (96, 96, 64) if shape is None else tuple(int(side) for side in shape)
    sizes = tuple(float(size) for size in spacing_mm)
    if num_patients < 1 or len(sides) != 3 or min(sides) < LEAST_SIDE:
        message = f"expected at least one patient and three sides of at least {LEAST_SIDE} voxels"
        raise ConfigurationError(f"mock.num_patients, mock.shape: {message}, got {num_patients} and {list(sides)}")
    if len(sizes) != 3 or not all(0.0 < size < 20.0 for size in sizes):
        raise ConfigurationError(f"mock.spacing_mm: expected three voxel sizes below 20 mm, got {list(sizes)}")
    files: dict[str, Callable[[Path], None]] = {}
    for number in range(1, num_patients + 1):
        patient = _Patient(number, seed, (sides[0], sides[1], sides[2]), (sizes[0], sizes[1], sizes[2]))
        for key, name in patient.files.items():
            files[f"{patient.name}/{name}"] = functools.partial(patient.write, key)
    settings = {
        "mock": "vmat",
        "version": 1,
        "num_patients": num_patients,
        "shape": list(sides),
        "spacing_mm": list(sizes),
        "seed": seed,
    }
    return MockFolder(Path(root), settings).fill(files)


@dataclass(frozen=True)
class _Patient:
    number: int
    seed: int
    shape: Shape
    spacing_mm: Point

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"patient_{self.number:03d}"

    @property
    def files(self) -> dict[str, str]:
        """File names by what `write_patient` calls the objects."""
        series = {f"ct_{index:03d}": f"CT.{index + 1:03d}.dcm" for index in range(self.shape[2])}
        return series | dict(_OBJECTS)

    def write(self, key: str, path: Path) -> None:
        """Write one of the objects."""
        with atomic_write(path, durable=False) as temporary:
            temporary.write_bytes(_contents(self)[key])


@functools.lru_cache(maxsize=1)  # the files of a patient are written one after another
def _contents(patient: _Patient) -> dict[str, bytes]:
    case = phantom([patient.seed, patient.number], patient.shape, patient.spacing_mm, name=patient.name)
    with tempfile.TemporaryDirectory() as folder:
        # Another seed, another person: two cohorts may stand on two sides of a split.
        who = PatientIdentity(f"MOCK-{patient.seed}-{patient.number}", f"Mock^{patient.name}")
        written = write_patient(Path(folder), case, identity=who, seed=patient.seed)
        return {key: path.read_bytes() for key, path in written.items()}

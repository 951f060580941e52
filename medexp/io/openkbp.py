"""OpenKBP patients: a folder of sparse CSV files on 128 x 128 x 128 voxels (Babier et al., Med. Phys. 48:5549, 2021).

What the files do not say, and how it was found on the published data:

- The flat index is in C order over (Y, X, Z). The cord lies at larger Y than the mandible: Y grows to the back. The
  left parotid lies at larger X than the right one: X grows to the patient's left. The brainstem lies at smaller Z than
  larynx and cord: Z grows to the feet. So the orientation of [i j k] = [x y z] is `LPI`.
- CT values are Hounsfield units + 1000: in nine of ten patients muscle has its mode at 1037 to 1055, fat is near
  905, air around the patient near 5. A voxel without a row is air. Values above 4095 are not from the scanner.
- Nothing says where the patient lies in the world: the volume's middle is taken as the origin.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Int64, Shaped

from medexp.errors import CaseError
from medexp.geometry.affine import orientation
from medexp.io.dose_case import DoseCase
from medexp.io.nifti import RawFile, read_file
from medexp.io.sparse_csv import MAX_BYTES, indices_of, packed_indices, packed_values, sizes_of, values_of
from medexp.runs.files import atomic_write

SIDE: Final = 128
SHAPE: Final = (SIDE, SIDE, SIDE)
TARGETS_GY: Final[Mapping[str, float]] = {"PTV70": 70.0, "PTV63": 63.0, "PTV56": 56.0}
ORGANS: Final = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Esophagus", "Larynx", "Mandible")
STRUCTURES: Final = (*TARGETS_GY, *ORGANS)
CT, DOSE, POSSIBLE, SIZES = "ct", "dose", "possible_dose_mask", "voxel_dimensions"
HU_OFFSET = 1000
LARGEST_CT = 4095  # 12 bits
MOST_GY = 500.0  # a dose above it is not in Gy
_ORIENTATION = "LPI"


def read_patient(folder: Path, structures: Sequence[str] = STRUCTURES) -> DoseCase:
    """Return the patient in a folder such as `train-pats/pt_1`.

    Raises:
        CaseError: A file is missing or damaged; all of them are named.
    """
    names = (CT, DOSE, POSSIBLE, SIZES, *structures)
    paths = {name: folder / f"{name}.csv" for name in names}
    files = {name: _read(path) for name, path in paths.items() if path.exists()}
    if not files:
        raise CaseError(f"{folder}: expected a folder with ct.csv and dose.csv, found neither")
    return decode_patient(files, name=folder.name, structures=structures)


def decode_patient(files: Mapping[str, RawFile], *, name: str, structures: Sequence[str] = STRUCTURES) -> DoseCase:
    """Return the patient in files that were read already, by their names without `.csv`.

    A structure without a file is absent, a missing dose is one to predict; other files are left alone.

    Raises:
        CaseError: Lists every file that is missing or damaged.
    """
    patient = _Patient(files, name)
    masks = {structure: patient.mask(structure) for structure in structures if structure in files}
    ct, dose, possible = patient.ct(), patient.dose(), patient.possible()
    affine = patient.affine()
    if patient.problems or ct is None or affine is None:
        raise CaseError("\n".join(patient.problems))  # a reason a line
    present = {structure: mask for structure, mask in masks.items() if mask is not None and mask.any()}
    empty = [structure for structure in masks if structure not in present]
    warnings = [*patient.warnings, *(f"{structure}.csv holds no voxel: taken as absent" for structure in empty)]
    warnings += _oddities(present, dose, possible)
    targets = [dose_gy for target, dose_gy in TARGETS_GY.items() if target in present]
    if not targets:
        warnings.append(f"none of {', '.join(TARGETS_GY)} is there: 70 Gy is taken as the prescription")
    return DoseCase(
        name=name,
        ct_hu=ct,
        affine=affine,
        masks=present,
        prescription_gy=max(targets, default=70.0),
        dose_gy=dose,
        possible_dose=possible,
        metadata={"source": "openkbp", "origin": "the middle of the volume, since the files hold none"},
        warnings=tuple(warnings),
    )


class _Patient:
    """Decodes file after file and remembers what is wrong, so that one answer holds all of it."""

    def __init__(self, files: Mapping[str, RawFile], name: str) -> None:
        self.files = files
        self.name = name
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def ct(self) -> Int16[np.ndarray, "i j k"] | None:
        rows = self._values(CT, required=True)
        if rows is None:
            return None
        indices, values = rows
        if values.size and values.min() < 0.0:
            line = int(np.argmin(values)) + 2
            found = f"line {line}: expected values of at least 0 (HU + {HU_OFFSET}), got {values.min():g}"
            self.problems.append(f"{self.files[CT].path}: {found}")
        too_large = int((values > LARGEST_CT).sum())
        if too_large:
            found = f"{too_large} CT values above {LARGEST_CT}, up to {values.max():g}"
            self.warnings.append(f"{found}: clipped; look for metal or a scanner's error")
        hounsfield = np.full(SHAPE, -HU_OFFSET, np.int16)
        hounsfield.ravel()[_own_index(indices)] = np.rint(np.clip(values, 0, LARGEST_CT)) - HU_OFFSET
        return hounsfield

    def dose(self) -> Float32[np.ndarray, "i j k"] | None:
        rows = self._values(DOSE, required=False)
        if rows is None:
            return None
        try:
            return _dose_of(self.files[DOSE], *rows)
        except CaseError as error:
            self.problems.append(str(error))
            return None

    def possible(self) -> Bool[np.ndarray, "i j k"] | None:
        return self.mask(POSSIBLE) if POSSIBLE in self.files else None

    def mask(self, name: str) -> Bool[np.ndarray, "i j k"] | None:
        try:
            return _mask_of(self.files[name])
        except CaseError as error:
            self.problems.append(str(error))
            return None

    def affine(self) -> Float64[np.ndarray, "4 4"] | None:
        if SIZES not in self.files:
            self.problems.append(f"{self.name}: expected {SIZES}.csv, found none")
            return None
        try:
            y, x, z = sizes_of(self.files[SIZES])
        except CaseError as error:
            self.problems.append(str(error))
            return None
        return centered_affine((x, y, z))

    def _values(
        self, name: str, *, required: bool
    ) -> tuple[Int64[np.ndarray, " row"], Float64[np.ndarray, " row"]] | None:
        if name not in self.files:
            if required:
                self.problems.append(f"{self.name}: expected {name}.csv, found none")
            return None
        try:
            return values_of(self.files[name], num_voxels=SIDE**3)
        except CaseError as error:
            self.problems.append(str(error))
            return None


def centered_affine(spacing_mm: tuple[float, float, float]) -> Float64[np.ndarray, "4 4"]:
    """Return the affine of a volume in the published orientation whose middle is the world's origin."""
    affine = np.diag([-size for size in spacing_mm] + [1.0])
    affine[:3, 3] = [size * (SIDE - 1) / 2 for size in spacing_mm]
    return affine


def _oddities(
    masks: Mapping[str, Bool[np.ndarray, "i j k"]],
    dose: Float32[np.ndarray, "i j k"] | None,
    possible: Bool[np.ndarray, "i j k"] | None,
) -> list[str]:
    found = []
    if dose is not None and possible is not None:
        outside = int(np.count_nonzero(dose[~possible]))
        if outside:
            found.append(f"{outside} voxels outside of {POSSIBLE}.csv have a dose")
    left, right = masks.get("LeftParotid"), masks.get("RightParotid")
    if left is not None and right is not None and _middle(left) < _middle(right):
        found.append("the left parotid lies to the right of the right one: the volume looks mirrored")
    return found


def _middle(mask: Bool[np.ndarray, "i j k"]) -> float:
    """Return the mean position along i."""
    return float(np.average(np.arange(mask.shape[0]), weights=mask.sum(axis=(1, 2))))


def read_sparse(path: Path) -> Float32[np.ndarray, "i j k"]:
    """Return a dose, measured or predicted, in Gy.

    Raises:
        CaseError: The file is damaged, or holds something that is no dose; names file and line.
    """
    file = _read(path)
    return _dose_of(file, *values_of(file, num_voxels=SIDE**3))


def read_mask(path: Path) -> Bool[np.ndarray, "i j k"]:
    """Return a mask.

    Raises:
        CaseError: The file is damaged; names file and line.
    """
    return _mask_of(_read(path))


def write_sparse(
    path: Path,
    dose_gy: Float32[np.ndarray, "i j k"],
    *,
    where: Bool[np.ndarray, "i j k"] | None = None,
    durable: bool = True,
) -> None:
    """Write a dose, also a predicted one, in the format of the challenge's submissions.

    Args:
        path: For a prediction `pt_<number>.csv`.
        dose_gy: Reads back equal.
        where: Voxels that get a row; None: those whose dose is not 0.
        durable: Whether the bytes must be on the disk when this returns.

    Raises:
        CaseError: It is no dose on the challenge's grid.
        StorageError: The file cannot be written.
    """
    _require_shape(path, dose_gy)
    if not np.isfinite(dose_gy).all() or dose_gy.min() < 0.0:
        raise CaseError(f"{path}: expected doses that are finite and not negative; clip the prediction at 0")
    indices = _file_indices(dose_gy != 0.0 if where is None else where)
    values = _file_order(dose_gy)[indices]
    # The shortest decimal number that names the float32, as a double.
    exact = np.array([float(str(value)) for value in values], np.float64)
    _write(path, packed_values(indices, exact), durable=durable)


def write_patient(folder: Path, case: DoseCase, *, durable: bool = True) -> None:
    """Write a patient in the challenge's files; what they cannot say (origin, coverage, metadata) is lost.

    Raises:
        CaseError: The case is not on 128^3 voxels in the orientation of the published files.
        StorageError: A file cannot be written.
    """
    for name, content in packed_patient(case).items():
        _write(folder / f"{name}.csv", content, durable=durable)


def packed_patient(case: DoseCase) -> dict[str, bytes]:
    """Return the bytes of a patient's files by their names without `.csv`.

    Raises:
        CaseError: The case is not on 128^3 voxels in the orientation of the published files.
    """
    _require_shape(Path(case.name), case.ct_hu)
    found = orientation(case.affine)
    if found != _ORIENTATION:
        message = f"expected the orientation {_ORIENTATION} of OpenKBP's files, got {found}"
        raise CaseError(f"{case.name}: {message}; turn the case first")
    x, y, z = case.spacing_mm
    values = np.clip(_file_order(case.ct_hu).astype(np.float64) + HU_OFFSET, 0, LARGEST_CT)
    rows = np.flatnonzero(values)
    files = {CT: packed_values(rows, values[rows]), SIZES: "".join(f"{size:.18e}\n" for size in (y, x, z)).encode()}
    if case.dose_gy is not None:
        allowed = case.dose_gy > 0.0 if case.possible_dose is None else case.possible_dose | (case.dose_gy > 0.0)
        rows = _file_indices(allowed)
        doses = [float(str(value)) for value in _file_order(case.dose_gy)[rows]]
        files[DOSE] = packed_values(rows, np.array(doses, np.float64))
    masks = dict(case.masks) if case.possible_dose is None else {**case.masks, POSSIBLE: case.possible_dose}
    return files | {name: packed_indices(_file_indices(mask)) for name, mask in masks.items()}


def _read(path: Path) -> RawFile:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise CaseError(f"{path}: expected a readable file, got '{error.strerror}'") from error
    if size > MAX_BYTES:
        raise CaseError(f"{path}: expected at most {MAX_BYTES:,} bytes, got {size:,}")
    return read_file(path)


def _write(path: Path, content: bytes, *, durable: bool) -> None:
    with atomic_write(path, durable=durable) as temporary:
        temporary.write_bytes(content)


def _require_shape(place: Path, array: Shaped[np.ndarray, "..."]) -> None:
    if array.shape != SHAPE:
        raise CaseError(f"{place}: expected OpenKBP's grid {SHAPE}, got {array.shape}")


def _dose_of(
    file: RawFile, indices: Int64[np.ndarray, " row"], values: Float64[np.ndarray, " row"]
) -> Float32[np.ndarray, "i j k"]:
    wrong = np.flatnonzero((values < 0.0) | (values > MOST_GY))
    if wrong.size:
        row = int(wrong[0])
        message = f"expected a dose from 0 to {MOST_GY:g} Gy, got {values[row]:g}"
        raise CaseError(f"{file.path}: line {row + 2}: {message}; {wrong.size} such rows")
    dose = np.zeros(SHAPE, np.float32)
    dose.ravel()[_own_index(indices)] = values
    return dose


def _mask_of(file: RawFile) -> Bool[np.ndarray, "i j k"]:
    mask = np.zeros(SHAPE, np.bool_)
    mask.ravel()[_own_index(indices_of(file, num_voxels=SIDE**3))] = True
    return mask


def _own_index(indices: Int64[np.ndarray, " row"]) -> Int64[np.ndarray, " row"]:
    """Return flat indices over [i j k] for those over (Y, X, Z): i and j change places."""
    rest, k = np.divmod(indices, SIDE)
    j, i = np.divmod(rest, SIDE)
    return (i * SIDE + j) * SIDE + k


def _file_order(array: Shaped[np.ndarray, "i j k"]) -> Shaped[np.ndarray, " voxel"]:
    """Return the voxels in the order of the files."""
    return np.ascontiguousarray(array.transpose(1, 0, 2)).ravel()


def _file_indices(mask: Bool[np.ndarray, "i j k"]) -> Int64[np.ndarray, " row"]:
    return np.flatnonzero(_file_order(mask))

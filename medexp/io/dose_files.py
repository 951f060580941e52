"""Doses in any of the formats: which file belongs to which case, and reading it.

A predicted dose of case `X` is `X.npz`, `X.nii.gz`, `X.nii`, `X.dcm` (RTDOSE) or `X.csv` (OpenKBP), at any depth below
its folder. Where a case has several of these, as stage=predict writes them, the first of this order is read. A
reference is `X.npz`, or OpenKBP's folder `X` with `ct.csv` in it.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float32, Float64, Shaped

from medexp.errors import CohortError, ConfigurationError
from medexp.geometry.affine import closest_axes
from medexp.io.dose_case import DoseCase
from medexp.runs.files import sha256_of

ENDINGS: Final = (".npz", ".nii.gz", ".nii", ".dcm", ".csv")
_FOLDER_MARK = "ct.csv"  # of an OpenKBP patient
_REFERENCES = "<case>.npz as in cases/ of stage=prepare, or folders of OpenKBP,"
_LISTED = 20


@dataclass(frozen=True, eq=False)
class ReadDose:
    """A dose and, where the file says it, where its voxels are; what a person should know about the file.

    Of an RTDOSE the world of `affine` is that of its frame of reference; other formats have no name for it.
    """

    dose_gy: Float32[np.ndarray, "i j k"]
    affine: Float64[np.ndarray, "4 4"] | None
    warnings: tuple[str, ...] = ()
    frame_of_reference_uid: str = ""


def predicted_doses(folder: Path, *, key: str) -> dict[str, Path]:
    """Return the predicted dose of every case below a folder, sorted by case.

    Raises:
        ConfigurationError: There is no such folder; the message names the configuration key.
        CohortError: It holds no dose, or a case has two files of one format; all are listed.
    """
    found: defaultdict[str, list[tuple[int, Path]]] = defaultdict(list)
    for place, names in _walked(folder, key):
        for name in names:
            ending = _ending(name)
            if ending is not None:
                case = unquote(name[: -len(ending)])
                found[case].append((ENDINGS.index(ending), place / name))
    files = {case: sorted(ones) for case, ones in found.items()}
    return _one_of_each(files, folder, key, kinds=f"doses ({', '.join(ENDINGS)})")


def reference_doses(folder: Path, *, key: str) -> dict[str, Path]:
    """Return the file or folder of every reference below a folder, sorted by case.

    Raises:
        ConfigurationError: There is no such folder; the message names the configuration key.
        CohortError: It holds no reference, or several of one case; all are listed.
    """
    found: defaultdict[str, list[tuple[int, Path]]] = defaultdict(list)
    for place, names in _walked(folder, key):
        if _FOLDER_MARK in names:
            found[place.resolve().name].append((0, place))
            continue
        for name in names:
            if name.lower().endswith(".npz"):
                found[unquote(name[: -len(".npz")])].append((0, place / name))
    return _one_of_each(found, folder, key, kinds=_REFERENCES)


def _walked(folder: Path, key: str) -> Iterator[tuple[Path, list[str]]]:
    if not folder.is_dir():
        raise ConfigurationError(f"{key}: expected a folder of doses, found none at {folder}; correct {key}")
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), sorted(name for name in names if not name.startswith("."))


def _ending(name: str) -> str | None:
    return next((ending for ending in ENDINGS if name.lower().endswith(ending) and len(name) > len(ending)), None)


def _one_of_each(
    found: Mapping[str, Sequence[tuple[int, Path]]], folder: Path, key: str, *, kinds: str
) -> dict[str, Path]:
    """Return the file of the first format of each case; a format may be there once."""
    if not found:
        raise CohortError(f"{key}: expected {kinds} in {folder}, found none; name the folder that they are in")
    doubled = {}
    for case in sorted(found):
        first = [path for rank, path in found[case] if rank == found[case][0][0]]
        if len(first) > 1:
            doubled[case] = ", ".join(str(path.relative_to(folder)) for path in first)
    if doubled:
        lines = [f"\n  {case}: {names}" for case, names in doubled.items()]
        rest = f"\n  and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
        message = f"{key}: expected one dose per case in {folder}, found several of {len(doubled)} cases:"
        message += "".join(lines[:_LISTED])
        raise CohortError(f"{message}{rest}\nName the folder that holds only the doses meant.")
    return {case: found[case][0][1] for case in sorted(found)}


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder that of its files' names and digests."""
    if not path.is_dir():
        return sha256_of(path)
    lines = [f"{file.name} {sha256_of(file)}\n" for file in sorted(path.iterdir()) if file.is_file()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_reference(path: Path, *, structures: Sequence[str]) -> DoseCase:
    """Return the case in a reference.

    Args:
        path: As `reference_doses` found it.
        structures: Of the dataset, in order.

    Raises:
        CaseError: It is damaged; the message names file and reason.
    """
    if path.is_dir():
        from medexp.io.openkbp import read_patient

        return read_patient(path, structures)
    from medexp.io.dose_npz import read_case_npz

    return read_case_npz(path, structures=structures)


def read_dose(path: Path) -> ReadDose:
    """Return a predicted dose in Gy, in the axis directions of its file.

    Raises:
        CaseError: It is damaged; the message names file and reason.
    """
    ending = _ending(path.name)
    if ending == ".csv":
        from medexp.io.openkbp import read_sparse

        return ReadDose(read_sparse(path), None)
    if ending == ".dcm":
        from medexp.io.dicom_dose import dose_of
        from medexp.io.nifti import read_file

        dose = dose_of(read_file(path))
        return ReadDose(dose.dose_gy, dose.affine, frame_of_reference_uid=dose.frame_of_reference_uid)
    if ending == ".npz":
        from medexp.io.dose_metadata import default_affine
        from medexp.io.dose_prediction_npz import read_prediction_npz

        prediction = read_prediction_npz(path)
        is_known = not np.array_equal(prediction.affine, default_affine())  # which stands for a file that is silent
        return ReadDose(prediction.dose_gy, prediction.affine if is_known else None, prediction.warnings)
    from medexp.io.nifti import read_volume

    volume = read_volume(path)
    return ReadDose(volume.array.astype(np.float32), volume.header.affine)


def turned_to(dose: ReadDose, affine: Float64[np.ndarray, "4 4"]) -> ReadDose:
    """Return the same dose with its axes in the order and directions of another grid; nothing is resampled.

    A dose of which nothing is known but its values is left as it is.
    """
    if dose.affine is None:
        return dose
    own, own_flips = closest_axes(dose.affine)
    other, other_flips = closest_axes(affine)
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1.0
    order, backwards = [0, 0, 0], []
    for world in range(3):
        order[other[world]] = own[world]
        is_backwards = own_flips[world] != other_flips[world]
        matrix[own[world], other[world]] = -1.0 if is_backwards else 1.0
        if is_backwards:
            matrix[own[world], 3] = dose.dose_gy.shape[own[world]] - 1.0
            backwards.append(other[world])
    turned: Shaped[np.ndarray, "i j k"] = np.flip(dose.dose_gy.transpose(order), tuple(backwards))
    return replace(dose, dose_gy=np.ascontiguousarray(turned), affine=dose.affine @ matrix)

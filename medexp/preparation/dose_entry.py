"""What a store entry of dose prediction holds: CT, distances to the structures and dose on one grid in RAS+.

    image.npy       int16    [1, i, j, k]          CT, HU
    distances.npy   float16  [structure, i, j, k]  signed distance over the clip, -1..1, negative inside; absent: 1
    dose.npy        float32  [1, i, j, k]          Gy; not there for a case that has not been planned
    possible.npy    uint8    [i, j, k]             1 where dose may be
    foreground.npy  int32    [voxel, 4]            rows (1, i, j, k) with more than a tenth of the prescription
    reference.npz                                  the documented npz, on the same grid in the files' axis directions

A voxel lies inside a structure exactly where its distance is negative.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float16, Float32, Int32, Shaped

from medexp.errors import CaseError, ConfigurationError
from medexp.geometry.grids import Grid, to_canonical
from medexp.io.dose_case import DoseCase
from medexp.io.prepared import REFERENCE
from medexp.preparation.dose_decoding import DoseFormat, Interpolation, PlacedCase, decode
from medexp.preparation.dose_grid import DoseGrid, FixedGrid, grid_from_json
from medexp.preparation.dose_picture import dose_picture
from medexp.preparation.dose_quality import Flag, check_case
from medexp.preparation.entry import Entry, evenly
from medexp.preparation.structure_names import HIGHEST_TARGET, StructureNames, case_type
from medexp.preparation.verification import RawContent

HIGH_DOSE_SHARE = 0.1  # of the prescription
NUM_CONSTRAINTS = 13
_MAX_FOREGROUND = 10_000
_HU_RANGE = (-1024, 30_000)


@dataclass(frozen=True)
class DoseTransform:
    """The deterministic way from a patient's files to their entry.

    Attributes:
        data_format: Of the files.
        structures: In the order of their distances.
        aliases: Other names of a structure.
        required: Structures without which a case cannot be used.
        grid: Of the store.
        dose_interpolation: Of the dose onto the grid, where the files have another.
        distance_clip_mm: The distance that is 1.
        is_strict: A case that fails any check cannot be used, not only one that fails a critical one.
    """

    kind: ClassVar[str] = "doses"

    data_format: DoseFormat
    structures: tuple[str, ...]
    aliases: Mapping[str, Sequence[str]]
    required: tuple[str, ...]
    grid: DoseGrid
    dose_interpolation: Interpolation
    distance_clip_mm: float
    is_strict: bool

    def __post_init__(self) -> None:
        """Refuse settings that do not fit each other.

        Raises:
            ConfigurationError: Names the key.
        """
        if not 0.0 < self.distance_clip_mm < np.inf:
            raise ConfigurationError(f"dataset.distance_clip_mm: expected a length, got {self.distance_clip_mm:g}")
        if isinstance(self.grid, FixedGrid) and self.data_format != "dicom_rt":
            message = f"dataset.grid: expected voxels of the files' own, got a new grid with format={self.data_format}"
            raise ConfigurationError(f"{message}; only contours, which DICOM-RT has, can be drawn on one")
        _ = self.names

    @property
    def names(self) -> StructureNames:
        """The structures and what else they are called."""
        return StructureNames(self.structures, self.aliases, self.required)

    @property
    def channels(self) -> tuple[str, ...]:
        """What a network is shown: the CT, then a distance per structure."""
        return ("ct", *self.structures)

    @property
    def labels(self) -> dict[str, int]:
        """None: structures overlap, so that no label map could hold them."""
        return {}

    @property
    def schemes(self) -> tuple[str, ...]:
        """How each channel is stored."""
        return ("hounsfield", *("distance" for _ in self.structures))

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        return {
            "format": self.data_format,
            "structures": list(self.structures),
            "aliases": {name: list(others) for name, others in self.aliases.items()},
            "required": list(self.required),
            "grid": self.grid.to_json(),
            "dose_interpolation": self.dose_interpolation,
            "distance_clip_mm": float(self.distance_clip_mm),
            "is_strict": self.is_strict,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "DoseTransform":
        """Read what `to_json` wrote."""
        return cls(
            data_format=record["format"],
            structures=tuple(record["structures"]),
            aliases={name: tuple(others) for name, others in record["aliases"].items()},
            required=tuple(record["required"]),
            grid=grid_from_json(record["grid"]),
            dose_interpolation=record["dose_interpolation"],
            distance_clip_mm=float(record["distance_clip_mm"]),
            is_strict=bool(record["is_strict"]),
        )

    def verify(self, content: RawContent) -> tuple[PlacedCase | None, tuple[str, ...]]:
        """Return the case on the grid of the store, or None, and the reasons why it cannot be used."""
        if content.reasons or not (content.images or content.label):
            return None, content.reasons
        try:
            found = decode(
                content,
                data_format=self.data_format,
                names=self.names,
                grid=self.grid,
                interpolation=self.dose_interpolation,
            )
            self.names.require(found.case.masks, unmatched=found.unmatched)  # a sliver may hold no voxel's middle
        except CaseError as error:
            return None, tuple(str(error).split("\n"))
        return found, ()

    def entry(self, content: RawContent) -> tuple[Entry | None, tuple[str, ...]]:
        """Return the entry of a case's files, or None, and the reasons why there is none."""
        placed, reasons = self.verify(content)
        if placed is None:
            return None, reasons
        case = placed.case
        distances = self._distances(case)
        target_mm = {
            name: distances[index].astype(np.float32) * np.float32(self.distance_clip_mm)
            for index, name in enumerate(self.structures)
            if name == HIGHEST_TARGET and name in case.masks
        }
        flags = check_case(case, target_mm, placed.losses)
        failed = [flag for flag in flags if not flag.passed]
        reasons = tuple(flag.message for flag in failed if flag.is_critical or self.is_strict)
        return (None, reasons) if reasons else (self._built(placed, distances, flags), ())

    def _distances(self, case: DoseCase) -> Float16[np.ndarray, "structure i j k"]:
        """Return the distances on the case's own grid."""
        from medexp.geometry.distances import signed_distance_mm  # here, because it brings scipy

        result = np.ones((len(self.structures), *case.shape), np.float16)
        for index, name in enumerate(self.structures):
            if name in case.masks:
                clip = self.distance_clip_mm
                result[index] = signed_distance_mm(case.masks[name], case.spacing_mm, clip_mm=clip) / np.float32(clip)
        return result

    def _built(
        self, placed: PlacedCase, distances: Float16[np.ndarray, "structure i j k"], flags: Sequence[Flag]
    ) -> Entry:
        case = placed.case
        grid = Grid.native(case.shape, case.affine)
        ct = np.clip(to_canonical(case.ct_hu, grid), *_HU_RANGE)
        possible = np.ones(case.shape, np.bool_) if case.possible_dose is None else case.possible_dose
        arrays: dict[str, Shaped[np.ndarray, "..."]] = {
            "image": np.ascontiguousarray(ct[None]),
            "distances": np.stack([to_canonical(distance, grid) for distance in distances]),
            "possible": np.ascontiguousarray(to_canonical(possible, grid)).view(np.uint8),
        }
        if case.dose_gy is not None:
            arrays["dose"] = np.ascontiguousarray(to_canonical(case.dose_gy, grid)[None])
            arrays["foreground"] = high_dose(arrays["dose"][0], case.prescription_gy)
        facts = _facts(placed, grid, arrays, flags, self.structures)
        reference = partial(_write_reference, case=case, distances=distances, transform=self)
        return Entry(arrays, facts, {REFERENCE: reference})

    def picture(self, entry: Entry) -> bytes:
        """Return a PNG for the quality report."""
        return dose_picture(
            ct_hu=entry.image[0],
            dose_gy=entry.arrays["dose"][0] if "dose" in entry.arrays else None,
            distances=entry.arrays["distances"],
            spacing_mm=entry.facts["spacing_mm"],
        )


def _write_reference(
    path: Path, *, case: DoseCase, distances: Float16[np.ndarray, "structure i j k"], transform: DoseTransform
) -> None:
    """Write the npz; its distances are the store's, to the last bit."""
    from medexp.io.dose_npz import write_case_npz  # as above

    clip_mm = transform.distance_clip_mm
    distances_mm = distances.astype(np.float32) * np.float32(clip_mm)
    write_case_npz(path, case, structures=transform.structures, distances_mm=distances_mm, distance_clip_mm=clip_mm)


def high_dose(dose_gy: Float32[np.ndarray, "i j k"], prescription_gy: float) -> Int32[np.ndarray, "voxel 4"]:
    """Return rows (1, i, j, k) of voxels above a tenth of the prescription; at most 10,000, evenly spread."""
    chosen = evenly(np.flatnonzero(dose_gy > HIGH_DOSE_SHARE * prescription_gy), _MAX_FOREGROUND)
    rows = [np.ones(len(chosen), np.int64), *np.unravel_index(chosen, dose_gy.shape)]
    return np.stack(rows, axis=1).astype(np.int32)


def _facts(
    placed: PlacedCase,
    grid: Grid,
    arrays: Mapping[str, Shaped[np.ndarray, "..."]],
    flags: Sequence[Flag],
    structures: Sequence[str],
) -> dict[str, Any]:
    case = placed.case
    masks = [np.packbits(distance < 0) for distance in arrays["distances"]]
    dose_sha256 = hashlib.sha256(arrays["dose"].data).hexdigest() if "dose" in arrays else None
    content = [arrays["image"], *masks, arrays["possible"]]
    digest = hashlib.sha256(str(dose_sha256).encode())
    for array in content:
        digest.update(array.data)
    constraints = np.zeros(NUM_CONSTRAINTS, np.float32) if case.constraints is None else case.constraints
    unmet = [flag.message for flag in flags if not flag.passed]
    return {
        "grid": grid.to_json(),
        "spacing_mm": list(grid.stored_spacing_mm),
        "warnings": [*case.warnings, *unmet, *_absent(structures, case)],
        "channel_sha256": [placed.ct_sha256],
        "voxel_sha256": digest.hexdigest(),
        "label_sha256": dose_sha256,
        "label_voxels": {
            name: int(np.count_nonzero(case.masks[name])) if name in case.masks else 0 for name in structures
        },
        "intensity": [{"minimum": float(case.ct_hu.min()), "maximum": float(case.ct_hu.max())}],
        "prescription_gy": float(case.prescription_gy),
        "constraints": [float(value) for value in constraints],
        "dose": _dose_facts(case),
        "flags": [flag.to_json() for flag in flags],
        "metadata": dict(case.metadata),
        "unmatched_structures": list(placed.unmatched),
        "case_type": case_type(case.masks),
    }


def _absent(structures: Sequence[str], case: DoseCase) -> list[str]:
    absent = [name for name in structures if name not in case.masks]
    return [f"nothing is drawn for {', '.join(absent)}: taken as absent"] if absent else []


def _dose_facts(case: DoseCase) -> dict[str, Any] | None:
    """Return the mean dose of every structure that is there and the largest dose, in Gy."""
    if case.dose_gy is None:
        return None
    dose = case.dose_gy
    means = {name: float(dose[mask].mean(dtype=np.float64)) for name, mask in case.masks.items() if mask.any()}
    return {"maximum_gy": float(dose.max()), "mean_gy": means}

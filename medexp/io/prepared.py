"""Prepared data as files: what stage=prepare wrote and everything later reads.

A run folder holds manifest.json, splits_final.json, fingerprint.json and plan.json; a store, shared by runs,
holds one folder per case with memory-mapped arrays. docs/conventions.md describes axes and units.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, Int32, Integer, Num, Shaped, UInt8

from medexp.errors import ConfigurationError, ManifestError
from medexp.geometry.grids import AnyGrid, grid_from_json, to_native
from medexp.io.channel_statistics import ChannelStatistics, statistics_of
from medexp.io.leakage import require_disjoint
from medexp.runs.files import read_json
from medexp.types import Plan

__all__ = ["ChannelStatistics", "PreparedCohort", "StoredCase", "to_native"]

FORMAT = 1
MANIFEST, SPLITS, FINGERPRINT, PLAN = "manifest.json", "splits_final.json", "fingerprint.json", "plan.json"
PICTURE = "picture.png"  # of a store entry, for people
REFERENCE = "reference.npz"  # of a store entry of a dose, for evaluation and viewers

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class StoredCase:
    """One prepared case: its record in the manifest and the folder of its arrays.

    `shape` is that of the stored array without channels. `rebuild` makes the folder anew from the raw files
    if it is damaged or missing; without it, damage is an error.
    """

    case: str
    patient: str
    role: str
    folder: Path
    shape: tuple[int, ...]
    has_label: bool
    record: Mapping[str, Any] = field(repr=False)
    rebuild: Callable[["StoredCase"], None] | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, record: Mapping[str, Any], store: Path, rebuild: Callable[["StoredCase"], None] | None = None
    ) -> "StoredCase":
        """Return the case that a manifest entry describes."""
        key = str(record["store"])
        return cls(
            case=str(record["case"]),
            patient=str(record["patient"]),
            role=str(record["role"]),
            folder=entry_folder(store, key),
            shape=tuple(int(size) for size in record["stored_shape"]),
            has_label=record["label"] is not None,
            record=record,
            rebuild=rebuild,
        )

    def image(self) -> Num[np.ndarray, "channel *spatial"]:
        """Return the memory-mapped image: normalized, or native where `ChannelStatistics` normalize on reading."""
        return self._array("image.npy")

    def label(self) -> UInt8[np.ndarray, "*spatial"]:
        """Return the memory-mapped label map.

        Raises:
            ManifestError: The case has no label.
        """
        self._require_label()
        return self._array("label.npy")

    def foreground(self) -> Integer[np.ndarray, "voxel column"]:
        """Return labelled voxels as rows (label, i, j, k), in 2D (label, i, j), at most 10,000 of each label, sorted.

        Raises:
            ManifestError: The case has no label.
        """
        self._require_label()
        return self._array("foreground.npy")

    @property
    def has_dose(self) -> bool:
        """Whether the case has been planned; without a dose it can only be predicted."""
        return "dose.npy" in self.record["sizes"]

    def dose(self) -> Float32[np.ndarray, "1 i j k"]:
        """Return the memory-mapped absorbed dose in Gy.

        Raises:
            ManifestError: The case has none.
        """
        if not self.has_dose:
            raise ManifestError(f"{self.case}: expected a dose, got a case without one; use a planned case")
        return self._array("dose.npy")

    def distances(self) -> Float16[np.ndarray, "structure i j k"]:
        """Return the memory-mapped signed distance to each structure over the clip: -1 to 1, negative inside."""
        return self._array("distances.npy")

    def possible(self) -> UInt8[np.ndarray, "i j k"]:
        """Return the memory-mapped mask of where dose may be: 1 everywhere where nothing is known."""
        return self._array("possible.npy")

    def high_dose(self) -> Int32[np.ndarray, "voxel 4"]:
        """Return voxels of a considerable dose as rows (1, i, j, k), at most 10,000, sorted; none without a dose."""
        return self._array("foreground.npy")

    @property
    def constraints(self) -> Float32[np.ndarray, " constraint"]:
        """The protocol's constraints, see `medexp.metrics.clinical`; zeros where the dataset has none."""
        return np.array(self.record["constraints"], dtype=np.float32)

    @property
    def prescription_gy(self) -> float:
        """What was prescribed to the target of the highest dose."""
        return float(self.record["prescription_gy"])

    @property
    def reference(self) -> Path:
        """The documented npz of the case in the store; the prepare run has it as `cases/<case>.npz`."""
        self._require_entry(REFERENCE)
        return self.folder / REFERENCE

    @property
    def reference_path(self) -> Path | None:
        """The file that a prediction is compared with: of a planned dose its npz, else the raw label; None: none."""
        if REFERENCE in self.record["sizes"]:
            return self.reference if self.has_dose else None
        return self.label_path

    @cached_property
    def grid(self) -> AnyGrid:
        """The raw file's grid and the way back to it."""
        return grid_from_json(self.record["grid"])

    @property
    def image_paths(self) -> dict[str, Path]:
        """The raw files by channel."""
        return {channel: Path(entry["path"]) for channel, entry in self.record["images"].items()}

    @property
    def label_path(self) -> Path | None:
        """The raw label file, if there is one."""
        label = self.record["label"]
        return None if label is None else Path(label["path"])

    def _require_label(self) -> None:
        if not self.has_label:
            raise ManifestError(f"{self.case}: expected a label, got a case without one; use a labelled case")

    def _array(self, name: str) -> Shaped[np.ndarray, "..."]:
        self._require_entry(name)
        try:
            return np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            self._repair(f"{name} cannot be read ({error})")
            return np.load(self.folder / name, mmap_mode="r", allow_pickle=False)

    def _require_entry(self, name: str) -> None:
        expected = int(self.record["sizes"][name])
        try:
            found = (self.folder / name).stat().st_size
        except OSError as error:
            self._repair(f"{name}: {error.strerror}")
            return
        if found != expected:
            self._repair(f"{name} has {found} bytes instead of {expected}")

    def _repair(self, damage: str) -> None:
        if self.rebuild is None:
            message = f"{self.case}: expected an intact store entry in {self.folder}, but {damage}; run stage=prepare"
            raise ManifestError(message)
        _log.warning("%s: the store entry is damaged (%s); it is rebuilt from the raw files", self.case, damage)
        self.rebuild(self)


def entry_folder(store: Path, key: str) -> Path:
    """Return the folder of a store entry."""
    return store / key[:2] / key


@dataclass(frozen=True, eq=False)
class PreparedCohort:
    """A cohort as stage=prepare left it, checked for leakage when opened."""

    folder: Path
    store: Path
    manifest: Mapping[str, Any] = field(repr=False)
    splits: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = field(repr=False)
    plan: Plan
    cases: tuple[StoredCase, ...] = field(repr=False)

    @classmethod
    def open(
        cls,
        folder: Path,
        store: Path | None = None,
        *,
        rebuild: Callable[[StoredCase], None] | None = None,
    ) -> "PreparedCohort":
        """Read the records of a prepare run; no array is touched.

        Args:
            folder: The folder that stage=prepare wrote to.
            store: Where the entries are; None: where prepare put them.
            rebuild: Makes a damaged entry anew, for example `medexp.preparation.store.Rebuilder`.

        Raises:
            ManifestError: A record is missing or does not say what it must.
            LeakageError: A patient or the same voxels stand on both sides of a split.
        """
        manifest = read_json(folder / MANIFEST)
        if manifest.get("format") != FORMAT:
            message = f"{folder / MANIFEST}: expected format {FORMAT}, got {manifest.get('format')}; run stage=prepare"
            raise ManifestError(message)
        place = Path(manifest["store"]) if store is None else store
        cases = tuple(StoredCase.of(record, place, rebuild) for record in manifest["cases"])
        splits = tuple((tuple(fold["train"]), tuple(fold["val"])) for fold in read_json(folder / SPLITS))
        cohort = cls(folder, place, manifest, splits, Plan.from_json(read_json(folder / PLAN)), cases)
        cohort._require_disjoint()
        return cohort

    def _require_disjoint(self) -> None:
        patient_of = {case.case: case.patient for case in self.cases}
        voxels_of = {case.case: [key for key in case.record["channel_sha256"] if key] for case in self.cases}
        test = tuple(case.case for case in self.cases if case.role == "test")
        known = {case.case for case in self.cases if case.role == "train"}
        for index, (train, val) in enumerate(self.splits):
            strangers = sorted({*train, *val} - known)
            if strangers:
                message = f"{self.folder / SPLITS}: fold {index} names {strangers[:5]}, expected training cases of the"
                raise ManifestError(f"{message} manifest; run stage=prepare")
            sides = {f"the training cases of fold {index}": train, "its validation cases": val}
            require_disjoint(sides, patient_of=patient_of, voxels_of=voxels_of)
        sides = {"the training cases": tuple(sorted(known)), "the test cases": test}
        require_disjoint(sides, patient_of=patient_of, voxels_of=voxels_of)

    @property
    def name(self) -> str:
        """The dataset's name."""
        return str(self.manifest["dataset"])

    @property
    def kind(self) -> str:
        """What the cases are: "volumes", "images" or "doses"."""
        return str(self.manifest.get("kind", "volumes"))

    @property
    def channels(self) -> tuple[str, ...]:
        """The channel names in stored order."""
        return tuple(self.manifest["channels"])

    @property
    def labels(self) -> dict[str, int]:
        """The foreground labels: name -> value."""
        return {str(name): int(value) for name, value in self.manifest["labels"].items()}

    @property
    def structures(self) -> tuple[str, ...]:
        """The structures of a cohort of doses, in the order of their distances."""
        return tuple(self.manifest["transform"]["structures"])

    @property
    def digest(self) -> str:
        """A hash of the cases' content, independent of paths and order."""
        return str(self.manifest["digest"])

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """The measured properties of the cohort."""
        return dict(read_json(self.folder / FINGERPRINT))

    @cached_property
    def _by_name(self) -> dict[str, StoredCase]:
        return {case.case: case for case in self.cases}

    def case(self, name: str) -> StoredCase:
        """Return one case.

        Raises:
            ManifestError: There is no such case.
        """
        if name not in self._by_name:
            raise ManifestError(f"{self.folder / MANIFEST}: expected a case '{name}', found none; run stage=prepare")
        return self._by_name[name]

    def fold(self, fold: int) -> tuple[list[StoredCase], list[StoredCase]]:
        """Return the training and validation cases of a fold.

        Raises:
            ConfigurationError: There is no such fold.
        """
        if not 0 <= fold < len(self.splits):
            message = f"fold: expected 0 to {len(self.splits) - 1}, got {fold}; choose another or raise"
            raise ConfigurationError(f"{message} dataset.num_folds (now {len(self.splits)})")
        train, val = self.splits[fold]
        return [self.case(name) for name in train], [self.case(name) for name in val]

    @property
    def test_cases(self) -> list[StoredCase]:
        """The cases that were set aside before folds were cut."""
        return [case for case in self.cases if case.role == "test"]

    def channel_statistics(self, fold: int) -> ChannelStatistics | None:
        """Return how to normalize on reading, from the fold's training cases; None if the store is normalized.

        Channels that are normalized already pass through unchanged.
        """
        schemes: Sequence[str] = self.manifest["channel_normalization"]
        if "ct" not in schemes:
            return None
        train, _ = self.fold(fold)
        samples = [case._array("intensities.npy") for case in train if case.has_label]
        values = np.concatenate(samples, axis=1) if samples else np.zeros((len(schemes), 0), np.float32)
        if values.shape[1] == 0:
            raise ManifestError(f"fold {fold}: expected labelled voxels to take CT statistics from, found none")
        return statistics_of(values, schemes)

    def with_rebuild(self, rebuild: Callable[[StoredCase], None]) -> "PreparedCohort":
        """Return the cohort with another way to remake damaged entries."""
        cases = tuple(replace(case, rebuild=rebuild) for case in self.cases)
        return replace(self, cases=cases)

"""Planned patients: raw files, prepared cohort, split, training patches, whole patients."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

from medexp.datasets.agreement import agreed_channels, require_known_labels
from medexp.datasets.dose_reading import DosePatches, DoseReader
from medexp.datasets.loading import PatchLoader
from medexp.datasets.opened import DOSES
from medexp.datasets.prepared_data import PreparedData
from medexp.errors import ConfigurationError, ManifestError
from medexp.io.prepared import PreparedCohort
from medexp.preparation.dose_cohort import DoseCohortSettings
from medexp.preparation.dose_decoding import DoseFormat, Interpolation
from medexp.preparation.dose_grid import DoseGrid
from medexp.preparation.dose_splits import DoseSplit
from medexp.preparation.raw_cases import RawCohort
from medexp.sampling.patches import HighDosePositions
from medexp.transforms.dose_augmentation import DoseAugmentation
from medexp.types import Count, DoseContract, Positive, Share


class PlannedDoses(PreparedData[DoseContract]):
    """Any dataset of dose prediction: conf/dataset/*.yaml says which. `open` it before asking for data."""

    def __init__(
        self,
        *,
        name: str,
        find_cases: Callable[..., RawCohort],
        write_mock: Callable[..., bool],
        roots: Sequence[str | Path],
        test_roots: Sequence[str | Path],
        patient_pattern: str | None,
        format: DoseFormat,  # noqa: A002 - the key of the configuration
        structures: Sequence[str],
        aliases: Mapping[str, Sequence[str]],
        required: Sequence[str],
        targets: Mapping[str, Positive],
        mirrored: Sequence[Sequence[str]],
        grid: DoseGrid,
        dose_interpolation: Interpolation,
        distance_clip_mm: Positive,
        prescription_gy: Positive,
        strict_validation: bool,
        split: DoseSplit,
        holdout_shares: Sequence[Share],
        num_folds: Annotated[int, ">= 2"] | None,
        split_seed: int,
        splits_file: str | Path | None,
        patch_size: Sequence[Count] | None,
        batch_size: Count,
        steps_per_epoch: Count | None,
        patches_per_case: Count,
        high_dose_fraction: Share,
        augmentation: DoseAugmentation,
    ) -> None:
        """Take the dataset's configuration; no file is touched.

        Args:
            name: Of the dataset.
            find_cases: Finds the raw cases below folders.
            write_mock: Writes synthetic patients in the raw format.
            roots: Folders of patients.
            test_roots: Folders of patients that are set aside for testing.
            patient_pattern: Regular expression whose group `patient` says whose a folder is; None: the files do.
            format: Of the raw files.
            structures: In the order in which a network gets their distances.
            aliases: Other names of structures.
            required: Structures without which a case cannot be used.
            targets: Prescribed dose of each PTV, in Gy.
            mirrored: Pairs of structures that a left-right flip exchanges.
            grid: Of the prepared cases.
            dose_interpolation: Of the dose onto the grid.
            distance_clip_mm: The signed distance that is 1.
            prescription_gy: The dose that is 1 inside of networks.
            strict_validation: Refuse a case that fails any check, not only one that fails a critical one.
            split: As published, in folds, or once.
            holdout_shares: Of training, validation and test patients, with `split=holdout`.
            num_folds: With `split=folds`: folds over patients.
            split_seed: Of the split.
            splits_file: An existing splits_final.json to use instead.
            patch_size: Voxels; None: the plan's.
            batch_size: Samples of a batch over all devices.
            steps_per_epoch: Batches of an epoch; None: `patches_per_case` of every training case.
            patches_per_case: In an epoch.
            high_dose_fraction: Share of patches that are centered on a voxel of a considerable dose.
            augmentation: What happens to a patch.

        Raises:
            ConfigurationError: A value is out of its range; names the key.
            UnknownOptionError: A target, pair or required structure is none of `structures`.
        """
        super().__init__()
        self.name, self.augmentation = name, augmentation
        self.find_cases, self.write_mock = find_cases, write_mock
        self.roots, self.test_roots = tuple(map(Path, roots)), tuple(map(Path, test_roots))
        self.patient_pattern, self.format = patient_pattern, format
        self.structures, self.required = tuple(structures), tuple(required)
        self.aliases = {structure: tuple(others) for structure, others in aliases.items()}
        self.targets = {structure: float(dose_gy) for structure, dose_gy in targets.items()}
        self.mirrored = tuple(_pair(names) for names in mirrored)
        self.grid, self.dose_interpolation = grid, dose_interpolation
        self.distance_clip_mm, self.prescription_gy = float(distance_clip_mm), float(prescription_gy)
        self.strict_validation = strict_validation
        self.split, self.holdout_shares = split, tuple(holdout_shares)
        self.num_folds, self.split_seed = num_folds, split_seed
        self.splits_file = None if splits_file is None else Path(splits_file)
        self.patch_size = None if patch_size is None else tuple(patch_size)
        self.batch_size, self.steps_per_epoch = batch_size, steps_per_epoch
        self.patches_per_case, self.high_dose_fraction = patches_per_case, high_dose_fraction
        self._require_structures()
        self._require_ranges()

    def write_mock_cohort(self, root: Path, *, num_patients: int, shape: Sequence[int] | None, seed: int) -> bool:
        """Write synthetic patients in the dataset's raw format; return whether they were not there yet."""
        given = {} if shape is None else {"shape": tuple(shape)}
        return self.write_mock(root, num_patients=num_patients, seed=seed, **given)

    def cohort(self) -> DoseCohortSettings:
        """Return what preparation needs to know."""
        return DoseCohortSettings(
            name=self.name,
            find_cases=self.find_cases,
            roots=self.roots,
            test_roots=self.test_roots,
            patient_pattern=self.patient_pattern,
            format=self.format,
            structures=self.structures,
            aliases=self.aliases,
            required=self.required,
            grid=self.grid,
            dose_interpolation=self.dose_interpolation,
            distance_clip_mm=self.distance_clip_mm,
            strict_validation=self.strict_validation,
            split=self.split,
            holdout_shares=self.holdout_shares,
            num_folds=self.num_folds,
            split_seed=self.split_seed,
            splits_file=self.splits_file,
            patch_size=self.patch_size,
        )

    def _agreed_contract(self, cohort: PreparedCohort, where: str) -> DoseContract:
        if cohort.kind != DOSES:
            raise ManifestError(f"dataset: expected prepared doses, got {cohort.kind} in {where}; run stage=prepare")
        stored_mm = float(cohort.manifest["transform"]["distance_clip_mm"])
        if stored_mm != self.distance_clip_mm:
            message = f"dataset.distance_clip_mm: expected that of the prepared cohort, {stored_mm:g}"
            raise ManifestError(
                f"{message}, got {self.distance_clip_mm:g}; correct the key or run stage=prepare ({where})"
            )
        return DoseContract(
            name=self.name,
            structures=agreed_channels(self.structures, cohort.structures, where=where, key="structures"),
            targets=self.targets,
            mirrored=self.mirrored,
            num_constraints=_num_constraints(cohort, where),
            prescription_gy=self.prescription_gy,
            distance_clip_mm=stored_mm,
            plan=cohort.plan,
            patch_size=self.patch_size or cohort.plan.patch_size,
        )

    def _reader(self, cohort: PreparedCohort, contract: DoseContract, *, fold: int) -> DoseReader:
        return DoseReader.of(cohort, contract)  # nothing is learned from the fold

    def train_dataloader(self) -> PatchLoader:
        """Return a loader of training batches; see `medexp.keys` for what is in one."""
        positions = HighDosePositions(self.high_dose_fraction)
        return self._require_open().train_loader(
            partial(DosePatches, augmentation=self.augmentation, positions=positions),
            batch_size=self.batch_size,
            steps_per_epoch=self.steps_per_epoch,
            samples_per_case=self.patches_per_case,
        )

    def _require_structures(self) -> None:
        if len(set(self.structures)) != len(self.structures) or not self.structures:
            raise ConfigurationError(f"dataset.structures: expected different names, got {list(self.structures)}")
        paired = [name for pair in self.mirrored for name in pair]
        if len(set(paired)) != len(paired):
            message = "dataset.mirrored: expected each structure in one pair at most"
            raise ConfigurationError(f"{message}, got {[list(pair) for pair in self.mirrored]}")
        for key, names in (("targets", self.targets), ("mirrored", paired), ("required", self.required)):
            require_known_labels(names, self.structures, key=f"dataset.{key}", kind="structures")

    def _require_ranges(self) -> None:
        steps, sizes = self.steps_per_epoch, self.patch_size
        checks = {
            "batch_size": (self.batch_size >= 1, "1 or more", self.batch_size),
            "steps_per_epoch": (steps is None or steps >= 1, "null, or 1 or more", steps),
            "patches_per_case": (self.patches_per_case >= 1, "1 or more", self.patches_per_case),
            "high_dose_fraction": (0.0 <= self.high_dose_fraction <= 1.0, "0 to 1", self.high_dose_fraction),
            "patch_size": (sizes is None or (len(sizes) == 3 and min(sizes) >= 1), "null, or three sizes", sizes),
            "prescription_gy": (self.prescription_gy > 0.0, "more than 0", self.prescription_gy),
            "targets": (all(dose_gy > 0.0 for dose_gy in self.targets.values()), "doses above 0", self.targets),
        }
        for key, (holds, expected, found) in checks.items():
            if not holds:
                raise ConfigurationError(f"dataset.{key}: expected {expected}, got {found}")


def _pair(names: Sequence[str]) -> tuple[str, str]:
    if len(names) != 2 or names[0] == names[1]:
        raise ConfigurationError(f"dataset.mirrored: expected pairs of structures, got {list(names)}")
    return names[0], names[1]


def _num_constraints(cohort: PreparedCohort, where: str) -> int:
    """Return the length of the cases' constraints."""
    lengths = {len(case.record["constraints"]) for case in cohort.cases}
    if len(lengths) != 1:
        message = f"{where}: expected constraints of one length, got {sorted(lengths)}"
        raise ManifestError(f"{message}; run stage=prepare")
    return lengths.pop()

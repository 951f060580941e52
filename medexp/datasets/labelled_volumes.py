"""Volumes with a label map: raw files, prepared cohort, folds, training patches, whole volumes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

from medexp.datasets.agreement import BACKGROUND, agreed_channels, agreed_labels, require_known_labels
from medexp.datasets.loading import PatchBatches, PatchLoader
from medexp.datasets.prepared_data import PreparedData
from medexp.datasets.reading import VoxelReader
from medexp.errors import ConfigurationError
from medexp.io.prepared import PreparedCohort
from medexp.metrics.lesions import ProtocolName
from medexp.preparation.cohort import CohortSettings, FindCases
from medexp.preparation.normalization import Normalization
from medexp.sampling.patches import LabelPositions
from medexp.transforms.augmentation import Augmentation
from medexp.types import Amount, Count, DataContract, Positive, Share

MOCK_SHAPE = (96, 112, 96)  # voxels


class LabelledVolumes(PreparedData[DataContract]):
    """Any segmentation dataset: conf/dataset/*.yaml says which. `open` it before asking for data."""

    def __init__(
        self,
        *,
        name: str,
        find_cases: FindCases,
        write_mock: Callable[..., bool],
        roots: Sequence[str | Path],
        test_roots: Sequence[str | Path],
        require_test_labels: bool,
        patient_pattern: str,
        channels: Sequence[str] | None,
        labels: Mapping[str, int] | None,
        regions: Mapping[str, Sequence[str]],
        label_weights: Mapping[str, Amount],
        lesions: ProtocolName | None,
        normalization: Normalization,
        spacing_mm: Sequence[Positive] | None,
        num_folds: Annotated[int, ">= 2"],
        split_seed: int,
        splits_file: str | Path | None,
        patch_size: Sequence[Count] | None,
        batch_size: Count,
        steps_per_epoch: Count | None,
        foreground_fraction: Share,
        augmentation: Augmentation,
    ) -> None:
        """Take the dataset's configuration; no file is touched.

        Args:
            name: Of the dataset.
            find_cases: Finds the raw cases below folders.
            write_mock: Writes a synthetic cohort in the raw format.
            roots: Folders of training cases.
            test_roots: Folders of test cases, set aside before folds are cut.
            require_test_labels: Whether a test case without a label is an error.
            patient_pattern: Regular expression whose group `patient` groups cases for the folds.
            channels: Names in the order in which a network gets them; None: the prepared cohort's.
            labels: Foreground names and values 1..n; None: the prepared cohort's.
            regions: Unions of labels by name.
            label_weights: Of the loss, by label or "background"; 1 where nothing is said.
            lesions: Lesion-wise protocol of stage=evaluate; None: none.
            normalization: Scheme for intensities.
            spacing_mm: Voxel size of the prepared cases; None: the cohort's median.
            num_folds: Folds over patients.
            split_seed: Of the folds.
            splits_file: An existing splits_final.json to use instead.
            patch_size: Voxels; None: the plan's.
            batch_size: Samples of a batch over all devices.
            steps_per_epoch: Batches of an epoch; None: every training case once.
            foreground_fraction: Share of patches that are centered on a labelled voxel.
            augmentation: What happens to a patch.

        Raises:
            ConfigurationError: A value is out of its range; names the key.
            UnknownOptionError: A region or weight names no label.
        """
        super().__init__()
        self.name, self.lesions, self.augmentation = name, lesions, augmentation
        self.find_cases, self.write_mock = find_cases, write_mock
        self.roots, self.test_roots = tuple(map(Path, roots)), tuple(map(Path, test_roots))
        self.require_test_labels, self.patient_pattern = require_test_labels, patient_pattern
        self.channels = None if channels is None else tuple(channels)
        self.labels = None if labels is None else dict(labels)
        self.regions = {region: tuple(members) for region, members in regions.items()}
        self.label_weights = dict(label_weights)
        self.normalization, self.spacing_mm = normalization, None if spacing_mm is None else tuple(spacing_mm)
        self.num_folds, self.split_seed = num_folds, split_seed
        self.splits_file = None if splits_file is None else Path(splits_file)
        self.patch_size = None if patch_size is None else tuple(patch_size)
        self.batch_size, self.steps_per_epoch = batch_size, steps_per_epoch
        self.foreground_fraction = foreground_fraction
        self._require_ranges()
        if self.labels is not None:
            self._require_names(self.labels)

    def write_mock_cohort(self, root: Path, *, num_patients: int, shape: Sequence[int] | None, seed: int) -> bool:
        """Write a synthetic cohort in the dataset's raw format; return whether it was not there yet."""
        size = tuple(shape or MOCK_SHAPE)
        return self.write_mock(
            root, num_patients=num_patients, shape=size, seed=seed, channels=self.channels, labels=self.labels
        )

    def cohort(self) -> CohortSettings:
        """Return what preparation needs to know."""
        return CohortSettings(
            name=self.name,
            find_cases=self.find_cases,
            roots=self.roots,
            test_roots=self.test_roots,
            require_test_labels=self.require_test_labels,
            patient_pattern=self.patient_pattern,
            channels=self.channels,
            labels=self.labels,
            normalization=self.normalization,
            spacing_mm=self.spacing_mm,
            num_folds=self.num_folds,
            split_seed=self.split_seed,
            splits_file=self.splits_file,
            patch_size=self.patch_size,
        )

    def _agreed_contract(self, cohort: PreparedCohort, where: str) -> DataContract:
        labels = agreed_labels(self.labels, cohort.labels, where=where)
        self._require_names(labels)
        patch_size = self.patch_size or cohort.plan.patch_size
        axes = len(cohort.plan.patch_size)
        if len(patch_size) != axes:
            raise ConfigurationError(f"dataset.patch_size: expected {axes} sizes, got {list(patch_size)}")
        return DataContract(
            name=self.name,
            channels=agreed_channels(self.channels, cohort.channels, where=where),
            labels=labels,
            regions=self.regions,
            label_weights=self.label_weights,
            plan=cohort.plan,
            patch_size=patch_size,
        )

    def _reader(self, cohort: PreparedCohort, contract: DataContract, *, fold: int) -> VoxelReader:
        return VoxelReader.of(cohort, contract, fold=fold)

    def train_dataloader(self) -> PatchLoader:
        """Return a loader of training batches; see `medexp.keys` for what is in one."""
        positions = LabelPositions(self.foreground_fraction)
        return self._require_open().train_loader(
            partial(PatchBatches, augmentation=self.augmentation, positions=positions),
            batch_size=self.batch_size,
            steps_per_epoch=self.steps_per_epoch,
        )

    def _require_names(self, labels: Mapping[str, int]) -> None:
        for region, members in self.regions.items():
            require_known_labels(members, labels, key=f"dataset.regions.{region}")
        require_known_labels(self.label_weights, [BACKGROUND, *labels], key="dataset.label_weights")

    def _require_ranges(self) -> None:
        steps, sizes, weights = self.steps_per_epoch, self.patch_size, self.label_weights
        checks = {
            "batch_size": (self.batch_size >= 1, "1 or more", self.batch_size),
            "steps_per_epoch": (steps is None or steps >= 1, "null, or 1 or more", steps),
            "foreground_fraction": (0.0 <= self.foreground_fraction <= 1.0, "0 to 1", self.foreground_fraction),
            "patch_size": (sizes is None or min(sizes, default=0) >= 1, "null, or sizes of 1 or more", sizes),
            "label_weights": (all(weight >= 0.0 for weight in weights.values()), "no weight below 0", weights),
        }
        for key, (holds, expected, found) in checks.items():
            if not holds:
                raise ConfigurationError(f"dataset.{key}: expected {expected}, got {found}")

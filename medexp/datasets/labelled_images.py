"""2D images with a mask: raw files, prepared cohort, split, training patches, whole images."""

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
from medexp.io.tiff import Gray
from medexp.preparation.image_cohort import ImageCohortSettings, Split
from medexp.preparation.image_entry import ImageNormalization
from medexp.preparation.raw_cases import RawCohort
from medexp.sampling.patches import ObjectPositions
from medexp.transforms.augmentation import Augmentation
from medexp.types import Amount, Count, DataContract, Index, Positive, Share


class LabelledImages(PreparedData[DataContract]):
    """Any images with one kind of object: conf/dataset/*.yaml says which. `open` it before asking for data."""

    def __init__(
        self,
        *,
        name: str,
        find_cases: Callable[..., RawCohort],
        write_mock: Callable[..., bool],
        roots: Sequence[str | Path],
        test_roots: Sequence[str | Path],
        group_pattern: str,
        channels: Sequence[str],
        labels: Mapping[str, int],
        regions: Mapping[str, Sequence[str]],
        label_weights: Mapping[str, Amount],
        lesions: None,
        gray: Gray,
        normalization: ImageNormalization,
        pixel_size_um: Sequence[Positive] | None,
        min_object_px: Index,
        split: Split,
        holdout_shares: Sequence[Share],
        coverage_edges: Sequence[Share],
        num_folds: Annotated[int, ">= 1"] | None,
        split_seed: int,
        splits_file: str | Path | None,
        patch_size: Sequence[Count] | None,
        batch_size: Count,
        steps_per_epoch: Count | None,
        patches_per_image: Count,
        foreground_fraction: Share,
        jitter: Share,
        negative_coverage: Share,
        negative_tries: Count,
        augmentation: Augmentation,
    ) -> None:
        """Take the dataset's configuration; no file is touched.

        Args:
            name: Of the dataset.
            find_cases: Finds the images and masks below folders.
            write_mock: Writes synthetic images in the raw format.
            roots: Folders of images.
            test_roots: Folders whose images are set aside for testing.
            group_pattern: Regular expression for an image's path below its root; its group `group` says which images
                stay together (a plate, a well).
            channels: The image's one name.
            labels: The object's one name, with the value 1.
            regions: None; objects have no parts.
            label_weights: Of the loss, for the object or "background"; 1 where nothing is said.
            lesions: None; objects are counted by `evaluate.objects`.
            gray: How colors become gray, for training and inference alike.
            normalization: Scheme for intensities.
            pixel_size_um: Height and width of a pixel, whatever the files say; None: the files'.
            min_object_px: Smaller objects count neither in the number of objects nor in the mean diameter.
            split: One split into training, validation and test images; folds; or as many folds as groups.
            holdout_shares: Of training, validation and test.
            coverage_edges: Limits of the strata of a mask's coverage, of each of which every side gets its part.
            num_folds: With `split=folds`: folds over groups. With `holdout`: 1. None: as many as there are.
            split_seed: Of the split.
            splits_file: An existing splits_final.json to use instead.
            patch_size: Pixels; None: the plan's, which follows from the objects' mean diameter.
            batch_size: Samples of a batch over all devices.
            steps_per_epoch: Batches of an epoch; None: `patches_per_image` of every training image.
            patches_per_image: In an epoch.
            foreground_fraction: Share of patches on objects.
            jitter: How far at most, in patches, the object's pixel lies from such a patch's middle.
            negative_coverage: The other patches hold less than this share of object pixels.
            negative_tries: Places that are tried for one.
            augmentation: What happens to a patch.

        Raises:
            ConfigurationError: A value is out of its range; names the key.
            UnknownOptionError: A weight names no label.
        """
        super().__init__()
        self.name, self.lesions, self.augmentation = name, lesions, augmentation
        self.find_cases, self.write_mock = find_cases, write_mock
        self.roots, self.test_roots = tuple(map(Path, roots)), tuple(map(Path, test_roots))
        self.group_pattern = group_pattern
        self.channels, self.labels = tuple(channels), dict(labels)
        self.regions = {region: tuple(members) for region, members in regions.items()}
        self.label_weights = dict(label_weights)
        self.gray, self.normalization, self.min_object_px = gray, normalization, min_object_px
        _require_pair("pixel_size_um", pixel_size_um)
        _require_pair("patch_size", patch_size)
        self.pixel_size_um = None if pixel_size_um is None else (float(pixel_size_um[0]), float(pixel_size_um[1]))
        self.split, self.num_folds, self.split_seed = split, num_folds, split_seed
        self.holdout_shares, self.coverage_edges = tuple(holdout_shares), tuple(coverage_edges)
        self.splits_file = None if splits_file is None else Path(splits_file)
        self.patch_size = None if patch_size is None else tuple(patch_size)
        self.batch_size, self.steps_per_epoch = batch_size, steps_per_epoch
        self.patches_per_image = patches_per_image
        self.positions = ObjectPositions(foreground_fraction, jitter, negative_coverage, negative_tries)
        require_known_labels(self.label_weights, [BACKGROUND, *self.labels], key="dataset.label_weights")
        if self.regions:
            raise ConfigurationError(f"dataset.regions: expected none for images, got {list(self.regions)}")

    def write_mock_cohort(self, root: Path, *, num_patients: int, shape: Sequence[int] | None, seed: int) -> bool:
        """Write synthetic images in the dataset's raw format; return whether they were not there yet."""
        given = {} if shape is None else {"shape": tuple(shape)}
        return self.write_mock(root, num_patients=num_patients, seed=seed, **given)

    def cohort(self) -> ImageCohortSettings:
        """Return what preparation needs to know."""
        return ImageCohortSettings(
            name=self.name,
            find_cases=self.find_cases,
            roots=self.roots,
            test_roots=self.test_roots,
            group_pattern=self.group_pattern,
            channels=self.channels,
            labels=self.labels,
            gray=self.gray,
            normalization=self.normalization,
            pixel_size_um=self.pixel_size_um,
            min_object_px=self.min_object_px,
            split=self.split,
            holdout_shares=self.holdout_shares,
            coverage_edges=self.coverage_edges,
            num_folds=self.num_folds,
            split_seed=self.split_seed,
            splits_file=self.splits_file,
            patch_size=self.patch_size,
        )

    def _agreed_contract(self, cohort: PreparedCohort, where: str) -> DataContract:
        if len(cohort.plan.patch_size) != 2:
            raise ConfigurationError(f"dataset: expected prepared images, got volumes in {where}; run stage=prepare")
        return DataContract(
            name=self.name,
            channels=agreed_channels(self.channels, cohort.channels, where=where),
            labels=agreed_labels(self.labels, cohort.labels, where=where),
            regions=self.regions,
            label_weights=self.label_weights,
            plan=cohort.plan,
            patch_size=self.patch_size or cohort.plan.patch_size,
        )

    def _reader(self, cohort: PreparedCohort, contract: DataContract, *, fold: int) -> VoxelReader:
        return VoxelReader.of(cohort, contract, fold=fold)

    def train_dataloader(self) -> PatchLoader:
        """Return a loader of training batches; see `medexp.keys` for what is in one."""
        return self._require_open().train_loader(
            partial(PatchBatches, augmentation=self.augmentation, positions=self.positions),
            batch_size=self.batch_size,
            steps_per_epoch=self.steps_per_epoch,
            samples_per_case=self.patches_per_image,
        )


def _require_pair(key: str, values: Sequence[float] | Sequence[int] | None) -> None:
    if values is not None and len(values) != 2:
        raise ConfigurationError(f"dataset.{key}: expected height and width, got {list(values)}")

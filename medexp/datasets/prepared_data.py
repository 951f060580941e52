"""What datamodules share: a prepared cohort is opened with a fold, validated whole and predicted."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic

from jaxtyping import Float32
from lightning.pytorch import LightningDataModule
from torch import Tensor

from medexp.datasets.loading import PatchLoader, VolumeLoader
from medexp.datasets.opened import Contract, Opened, PreparesUnseen
from medexp.datasets.reading import Inputs, WholeReader
from medexp.errors import ManifestError
from medexp.io.prepared import PreparedCohort, StoredCase
from medexp.keys import IMAGE


class PreparedData(LightningDataModule, ABC, Generic[Contract]):
    """A datamodule on the store of stage=prepare. A subclass says how patches are drawn and what it promises."""

    def __init__(self) -> None:
        super().__init__()
        self._opened: Opened[Contract] | None = None

    @abstractmethod
    def cohort(self) -> PreparesUnseen:
        """Return what preparation needs to know."""

    @abstractmethod
    def train_dataloader(self) -> PatchLoader:
        """Return a loader of training batches; see `medexp.keys` for what is in one."""

    @abstractmethod
    def _agreed_contract(self, cohort: PreparedCohort, where: str) -> Contract:
        """Return what the dataset promises of a prepared cohort; `where` is the cohort's place, for messages."""

    @abstractmethod
    def _reader(self, cohort: PreparedCohort, contract: Contract, *, fold: int) -> WholeReader:
        """Return how the cohort's cases are read."""

    def open(
        self, prepared: Path, *, fold: int, store: Path | None = None, seed: int = 0, num_workers: int | None = None
    ) -> None:
        """Read the records of a prepared cohort and choose a fold; no array is touched.

        Args:
            prepared: The folder that stage=prepare wrote to.
            fold: Which cases validate.
            store: Where the entries are; None: where prepare put them.
            seed: Of order, patches and augmentation.
            num_workers: Loader processes; None: one per core, at most 8.

        Raises:
            ManifestError: Channels, labels or structures do not agree with the prepared cohort.
            UnknownOptionError: A region or weight names no label.
            ConfigurationError: There is no such fold, or the cohort or the patch has other axes than the dataset.
            CohortError: The fold has no training or no validation cases.
        """
        self._opened = Opened.of(
            prepared,
            agree=self._agreed_contract,
            reader_of=self._reader,
            fold=fold,
            store=store,
            seed=seed,
            num_workers=num_workers,
        )

    @property
    def contract(self) -> Contract:
        """What a model is completed with."""
        return self._require_open().contract

    def val_dataloader(self) -> VolumeLoader:
        """Return a loader of the fold's whole validation cases."""
        return self._require_open().val_loader()

    def cases(self, source: str | Path) -> tuple[StoredCase, ...]:
        """Return the cases to predict; see `Opened.cases`."""
        return self._require_open().cases(source, self.cohort())

    def inputs(self, case: StoredCase) -> Inputs:
        """Return what a network gets of a whole case, by the keys of a batch and without its first axis."""
        return self._require_open().reader.inputs(case)

    def volume(self, case: StoredCase) -> Float32[Tensor, "channel *spatial"]:
        """Return a whole image as the network gets it."""
        return self.inputs(case)[IMAGE]

    def _require_open(self) -> Opened[Contract]:
        if self._opened is None:
            raise ManifestError(
                "expected an opened dataset, got one that was not: call open(<folder of stage=prepare>)"
            )
        return self._opened

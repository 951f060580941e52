"""A prepared cohort with a fold chosen: loaders and the cases to predict, whatever the cases are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch

from medexp.datasets.loading import Batches, PatchLoader, VolumeLoader, worker_count
from medexp.datasets.reading import WholeReader
from medexp.errors import CohortError, ConfigurationError
from medexp.io.prepared import MANIFEST, PreparedCohort, StoredCase
from medexp.preparation.store import Rebuilder
from medexp.sampling.order import GlobalBatches
from medexp.types import DataContract, DoseContract

VALIDATION, TEST = "validation", "test"
DOSES = "doses"  # the kind of cohort whose cases have a dose instead of a label

Contract = TypeVar("Contract", DataContract, DoseContract)


@runtime_checkable
class PreparesUnseen(Protocol):
    """Stores the cases of a folder as a cohort was."""

    def prepare_unseen(
        self, source: Path, *, prepared: PreparedCohort, num_workers: int | None = None
    ) -> list[StoredCase]:
        """Return the cases."""
        ...


@dataclass(frozen=True, eq=False)
class Opened(Generic[Contract]):
    """A cohort with a fold chosen."""

    cohort: PreparedCohort
    contract: Contract
    reader: WholeReader
    train: tuple[StoredCase, ...]
    validation: tuple[StoredCase, ...]
    seed: int
    num_workers: int

    @classmethod
    def of(
        cls,
        prepared: Path,
        *,
        agree: Callable[[PreparedCohort, str], Contract],
        reader_of: Callable[..., WholeReader],
        fold: int,
        store: Path | None,
        seed: int,
        num_workers: int | None,
    ) -> "Opened[Contract]":
        """Read the records of a prepared cohort and choose a fold; no array is touched.

        Args:
            prepared: The folder that stage=prepare wrote to.
            agree: Returns what the dataset promises of the cohort; its second argument is the place, for messages.
            reader_of: Returns the reader of (cohort, contract, fold=).
            fold: Which cases validate.
            store: Where the entries are; None: where prepare put them.
            seed: Of order, patches and augmentation.
            num_workers: Loader processes; None: one per core, at most 8.

        Raises:
            CohortError: The fold has no training or no validation cases.
        """
        cohort = PreparedCohort.open(prepared, store)
        cohort = cohort.with_rebuild(Rebuilder.of(cohort.manifest))
        contract = agree(cohort, str(prepared / MANIFEST))
        train, validation = cohort.fold(fold)
        for kind, cases in (("training", train), ("validation", validation)):
            _require_answers(cases, f"fold {fold} of {prepared / MANIFEST}", kind=kind, of_doses=cohort.kind == DOSES)
        reader = reader_of(cohort, contract, fold=fold)
        return cls(cohort, contract, reader, tuple(train), tuple(validation), seed, worker_count(num_workers))

    def train_loader(
        self,
        batches: Callable[..., Batches],
        *,
        batch_size: int,
        steps_per_epoch: int | None,
        samples_per_case: int = 1,
    ) -> PatchLoader:
        """Return a loader of training batches; see `medexp.keys` for what is in one.

        Args:
            batches: Makes what the loader asks for batches, of the training cases, their reader, a patch's size and the
                seed; what else it needs is bound to it.
            batch_size: Samples of a batch over all devices.
            steps_per_epoch: Batches of an epoch; None: `samples_per_case` of every training case.
            samples_per_case: In an epoch without a number of steps.
        """
        made = batches(cases=self.train, reader=self.reader, patch_size=self.contract.patch_size, seed=self.seed)
        order = GlobalBatches(
            num_cases=len(self.train),
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            seed=self.seed,
            samples_per_case=samples_per_case,
        )
        return PatchLoader(made, order, num_workers=self.num_workers, pin_memory=torch.cuda.is_available())

    def val_loader(self) -> VolumeLoader:
        """Return a loader of the fold's whole validation cases."""
        return VolumeLoader(self.validation, self.reader)

    def cases(self, source: str | Path, settings: PreparesUnseen) -> tuple[StoredCase, ...]:
        """Return the cases to predict.

        Args:
            source: "validation": the fold's; "test": those set aside before folds were cut; or a folder in the
                dataset's raw layout, whose cases are verified and stored as the cohort was.
            settings: Of the dataset.

        Raises:
            CohortError: There are none, or some cannot be used; all of these are listed.
        """
        if str(source) == VALIDATION:
            return self.validation
        if str(source) == TEST:
            if not self.cohort.test_cases:
                raise CohortError(
                    "predict.source=test: expected test cases, got none; name dataset.test_roots and prepare"
                )
            return tuple(self.cohort.test_cases)
        folder = Path(source)
        if not folder.is_dir():
            message = f"predict.source: expected '{VALIDATION}', '{TEST}' or a folder, got '{source}'"
            raise ConfigurationError(f"{message}, which is not there")
        return tuple(settings.prepare_unseen(folder, prepared=self.cohort, num_workers=self.num_workers))


def _require_answers(cases: Sequence[StoredCase], place: str, *, kind: str, of_doses: bool) -> None:
    complete, answer = ("planned", "dose") if of_doses else ("labelled", "label")
    without = [case.case for case in cases if not (case.has_dose if of_doses else case.has_label)]
    if not cases or without:
        found = f"{without[:5]} without a {answer}" if without else "none"
        message = f"{place}: expected {complete} {kind} cases, got {found}; add cases or lower dataset.num_folds"
        raise CohortError(f"{message}, and run stage=prepare")

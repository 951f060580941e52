"""A whole cohort: raw files -> verified cases, prepared store, manifest, splits, fingerprint and plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from medexp.io.prepared import PreparedCohort, StoredCase
from medexp.preparation.raw_cases import RawCohort


class FindCases(Protocol):
    """A raw format: which files below `roots` form cases. Opens no image."""

    def __call__(
        self,
        roots: Sequence[Path],
        *,
        channels: Sequence[str] | None,
        labels: Mapping[str, int] | None,
        patient_pattern: str,
    ) -> RawCohort:
        """Return the cases, and the channels and labels where the format itself says them."""
        ...


@dataclass(frozen=True)
class CohortSettings:
    """What `conf/dataset/*.yaml` says about a cohort and its preparation."""

    name: str
    find_cases: FindCases
    roots: tuple[Path, ...]
    test_roots: tuple[Path, ...]
    require_test_labels: bool
    patient_pattern: str
    channels: tuple[str, ...] | None
    labels: Mapping[str, int] | None
    normalization: str
    spacing_mm: tuple[float, ...] | None
    num_folds: int
    split_seed: int
    splits_file: Path | None
    patch_size: tuple[int, ...] | None


def prepare_cohort(
    settings: CohortSettings,
    *,
    folder: Path,
    store: Path,
    skip_bad_cases: bool = False,
    num_workers: int | None = None,
) -> PreparedCohort:
    """Verify and store every case, then write the cohort's records to `folder`.

    Args:
        settings: The dataset.
        folder: Receives manifest.json, splits_final.json, fingerprint.json, plan.json and the QC report.
        store: The prepared store; intact entries in it are reused.
        skip_bad_cases: Go on without the cases that cannot be used; they are listed in the manifest.
        num_workers: Processes; None: one per core that this process may use.

    Raises:
        CohortError: Cases cannot be used (all of them are listed with all reasons), or there are none.
        LeakageError: A patient or the same voxels would stand on both sides of a split.
        ConfigurationError: A setting does not fit the cohort; names the key.
    """
    raise NotImplementedError


def prepare_unseen(
    source: Path, settings: CohortSettings, *, prepared: PreparedCohort, num_workers: int | None = None
) -> list[StoredCase]:
    """Verify and store the cases of a folder as `prepared` was: same channels, spacing and normalization.

    Labels are optional. The cases join neither manifest nor splits; a folder that holds training cases is not
    refused here, because predicting them is legitimate.

    Raises:
        CohortError: Cases cannot be used; all are listed.
    """
    raise NotImplementedError

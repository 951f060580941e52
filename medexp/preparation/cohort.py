"""A whole cohort: raw files -> verified cases, prepared store, manifest, splits, fingerprint and plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from medexp.errors import CohortError, ConfigurationError
from medexp.geometry.grids import Grid
from medexp.io.prepared import FINGERPRINT, MANIFEST, PLAN, SPLITS, PreparedCohort, StoredCase
from medexp.preparation.entry import Transform
from medexp.preparation.fingerprint import header_spacings, make_fingerprint, median_spacing
from medexp.preparation.manifest import case_record, make_manifest
from medexp.preparation.normalization import schemes_of
from medexp.preparation.plan import make_plan, require_patch
from medexp.preparation.quality_report import write_quality_report
from medexp.preparation.raw_cases import RawCase, RawCohort, combined
from medexp.preparation.store import Outcome, Rebuilder
from medexp.preparation.usable import require_separate, require_usable
from medexp.preparation.workers import store_cases
from medexp.runs.files import write_json
from medexp.sampling.splits import (
    Fold,
    check_splits,
    make_splits,
    read_splits,
    require_different_voxels,
    require_folds,
)


@runtime_checkable
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
    has_nnunet_layout: ClassVar[bool] = True

    def prepare(
        self, *, folder: Path, store: Path, skip_bad_cases: bool = False, num_workers: int | None = None
    ) -> PreparedCohort:
        """Verify and store every case, then write the cohort's records to `folder`; see `prepare_cohort`."""
        return prepare_cohort(self, folder=folder, store=store, skip_bad_cases=skip_bad_cases, num_workers=num_workers)

    def prepare_unseen(
        self, source: Path, *, prepared: PreparedCohort, num_workers: int | None = None
    ) -> list[StoredCase]:
        """Verify and store the cases of a folder; see `prepare_unseen`."""
        return prepare_unseen(source, self, prepared=prepared, num_workers=num_workers)


def prepare_cohort(
    settings: CohortSettings,
    *,
    folder: Path,
    store: Path,
    skip_bad_cases: bool = False,
    num_workers: int | None = None,
) -> PreparedCohort:
    """Verify and store every case, then write the cohort's records to `folder`.

    The quality report is written even if cases cannot be used, before the error.

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
    raw = find_raw(settings)
    _require_settings(settings, raw)
    transform, outcomes = _stored(settings, raw, store=store, num_workers=num_workers)
    manifest = make_manifest(
        dataset=settings.name, transform=transform, normalization=settings.normalization, store=store, outcomes=outcomes
    )
    write_quality_report(manifest, folder=folder, store=store)
    require_usable(outcomes, skip_bad_cases=skip_bad_cases, report=folder / "qc.html")
    splits = _splits(settings, manifest, {case.name: case.case for case in raw.cases})
    train = [record for record in manifest["cases"] if record["role"] == "train"]
    fingerprint = make_fingerprint(train, channels=transform.channels, labels=transform.labels, store=store)
    plan = make_plan(
        spacing_mm=transform.spacing_mm,
        median_shape=[round(size) for size in fingerprint["stored_shape"]["median"]],
        patch_size=settings.patch_size,
    )
    write_json(folder / FINGERPRINT, fingerprint)
    write_json(folder / PLAN, plan.to_json())
    write_json(folder / SPLITS, splits)
    write_json(folder / MANIFEST, manifest)  # last: with it the folder is complete
    return PreparedCohort.open(folder, store, rebuild=Rebuilder.of(manifest))


def _require_settings(settings: CohortSettings, raw: RawCohort) -> None:
    """Refuse before any work what would be refused after it."""
    schemes_of(settings.normalization, raw.channels)
    _configured_spacing(settings)
    if settings.patch_size is not None:
        require_patch(settings.patch_size, num_axes=3)
    if settings.splits_file is None:
        require_folds(settings.num_folds, len({case.patient for case in raw.cases if case.role == "train"}))
    else:
        read_splits(settings.splits_file)


def find_raw(settings: CohortSettings) -> RawCohort:
    """Return all raw cases with their roles; what is missing is among their problems.

    Raises:
        CohortError: There are no cases.
        LeakageError: A patient has training and test cases.
        ConfigurationError: Roots disagree on channels or labels.
    """
    if not settings.roots:
        raise CohortError("dataset.roots: expected at least one folder of raw data, got none")
    found = _find(settings, settings.roots, settings.channels, settings.labels)
    cases = list(found.cases)
    if settings.test_roots:
        test = _find(settings, settings.test_roots, found.channels, found.labels)
        cases += [replace(case, role="test") for case in test.cases]
    if not cases:
        places = ", ".join(str(root) for root in settings.roots)
        raise CohortError(f"dataset.roots: expected cases below {places}, found none; check the folder's layout")
    complete = combined(_with_label_rule(case, require_test_labels=settings.require_test_labels) for case in cases)
    require_separate([(case.case, case.role, case.patient) for case in complete], voxels_of=_nothing(complete))
    return RawCohort(complete, found.channels, found.labels)


def _find(
    settings: CohortSettings,
    roots: Sequence[Path],
    channels: Sequence[str] | None,
    labels: Mapping[str, int] | None,
) -> RawCohort:
    return settings.find_cases(list(roots), channels=channels, labels=labels, patient_pattern=settings.patient_pattern)


def _with_label_rule(case: RawCase, *, require_test_labels: bool) -> RawCase:
    if case.label is not None or (case.role == "test" and not require_test_labels):
        return case
    why = "a training case needs one" if case.role == "train" else "dataset.require_test_labels is set"
    place = next((path.parent for path in case.images.values()), case.name)
    return replace(case, problems=(*case.problems, f"{place}: expected a label, found none; {why}"))


def _nothing(cases: Sequence[RawCase]) -> dict[str, tuple[str, ...]]:
    """Return what is known about the voxels of cases before any is read."""
    return {case.case: () for case in cases}


def _stored(
    settings: CohortSettings, raw: RawCohort, *, store: Path, num_workers: int | None
) -> tuple[Transform, list[Outcome]]:
    """Store all cases at the configured spacing, or at the median of those that can be used for training.

    Where the normalization depends on how much a crop leaves, the first attempt measures it.
    """
    schemes = schemes_of(settings.normalization, raw.channels)
    training = [case for case in raw.cases if case.role == "train"]
    spacing = _configured_spacing(settings) or _spacing_of(training or raw.cases)
    while True:
        transform = Transform(raw.channels, raw.labels, schemes, spacing)
        outcomes = store_cases(raw.cases, transform, store=store, num_workers=num_workers)
        used = [outcome for outcome in outcomes if outcome.key is not None and outcome.case.role == "train"]
        measured = spacing if settings.spacing_mm is not None or not used else _spacing_of([one.case for one in used])
        share = _cropped_share(used) if used else 1.0
        fitting = schemes_of(settings.normalization, raw.channels, cropped_share=share)
        if (measured, fitting) == (spacing, schemes):
            return transform, outcomes
        # Fewer cases can be used each time, and what a crop leaves of them stays as it is: this ends.
        spacing, schemes = measured, fitting


def _cropped_share(outcomes: Sequence[Outcome]) -> float:
    """Return how much of its voxels a case keeps when it is cropped, the median of the cases."""
    grids = [Grid.from_json(outcome.facts["grid"]) for outcome in outcomes]
    return float(np.median([np.prod(grid.box_shape) / np.prod(grid.shape) for grid in grids]))


def _configured_spacing(settings: CohortSettings) -> tuple[float, ...] | None:
    if settings.spacing_mm is None:
        return None
    if len(settings.spacing_mm) != 3 or not all(0.0 < size < np.inf for size in settings.spacing_mm):
        message = f"dataset.spacing_mm: expected three positive sizes along x, y, z, got {list(settings.spacing_mm)}"
        raise ConfigurationError(message)
    return tuple(float(size) for size in settings.spacing_mm)


def _spacing_of(cases: Sequence[RawCase]) -> tuple[float, ...]:
    spacings = header_spacings(cases)
    return median_spacing(spacings) if spacings else (1.0, 1.0, 1.0)  # no case can be used: each says why


def _splits(settings: CohortSettings, manifest: Mapping[str, Any], identifier_of: Mapping[str, str]) -> list[Fold]:
    """Return the folds, made or read, after checking that nothing leaks."""
    train = [record for record in manifest["cases"] if record["role"] == "train"]
    patient_of = {str(record["case"]): str(record["patient"]) for record in train}
    voxels_of = {record["case"]: [key for key in record["channel_sha256"] if key] for record in manifest["cases"]}
    records = manifest["cases"]
    require_separate([(record["case"], record["role"], record["patient"]) for record in records], voxels_of=voxels_of)
    if settings.splits_file is None:
        require_different_voxels(list(patient_of), patient_of=patient_of, voxels_of=voxels_of)
        splits = make_splits(patient_of, num_folds=settings.num_folds, seed=settings.split_seed)
        source = SPLITS
    else:
        source = str(settings.splits_file)
        excluded = {str(record["case"]) for record in manifest["excluded"]}
        splits = [_usable(fold, identifier_of, excluded) for fold in read_splits(settings.splits_file)]
    check_splits(splits, patient_of=patient_of, voxels_of=voxels_of, source=source)
    return splits


def _usable(fold: Fold, identifier_of: Mapping[str, str], excluded: set[str]) -> Fold:
    """Return a fold in safe names, without the cases that were left out on request."""
    named = {side: [identifier_of.get(name, name) for name in names] for side, names in fold.items()}
    return {side: [name for name in names if name not in excluded] for side, names in named.items()}


def prepare_unseen(
    source: Path, settings: CohortSettings, *, prepared: PreparedCohort, num_workers: int | None = None
) -> list[StoredCase]:
    """Verify and store the cases of a folder as `prepared` was: same channels, spacing and normalization.

    Labels are optional. The cases join neither manifest nor splits; a folder that holds training cases is not
    refused here, because predicting them is legitimate.

    Raises:
        CohortError: Cases cannot be used; all are listed.
    """
    raw = _find(settings, [source], prepared.channels, prepared.labels)
    if not raw.cases:
        raise CohortError(f"{source}: expected cases of the dataset's raw layout, found none")
    rebuild = Rebuilder.of(prepared.manifest)
    cases = [replace(case, role="test") for case in raw.cases]
    outcomes = store_cases(cases, rebuild.transform, store=prepared.store, num_workers=num_workers)
    bad = [outcome for outcome in outcomes if outcome.key is None]
    if bad:
        listing = "".join(f"\n  {outcome.case.case}: {'; '.join(outcome.reasons)}" for outcome in bad)
        raise CohortError(f"{source}: expected {len(outcomes)} usable cases, but {len(bad)} cannot be used:{listing}")
    return [StoredCase.of(case_record(outcome), prepared.store, rebuild) for outcome in outcomes]

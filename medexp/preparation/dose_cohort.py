"""A cohort of planned doses: raw files -> verified cases, prepared store, manifest, split, fingerprint and plan."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from medexp.errors import CohortError, ConfigurationError
from medexp.io.prepared import FINGERPRINT, MANIFEST, PLAN, SPLITS, PreparedCohort, StoredCase
from medexp.preparation.dose_decoding import DoseFormat, Interpolation
from medexp.preparation.dose_entry import DoseTransform
from medexp.preparation.dose_fingerprint import make_dose_fingerprint
from medexp.preparation.dose_grid import DoseGrid
from medexp.preparation.dose_references import place_references
from medexp.preparation.dose_splits import DoseSplit, SplitSettings, official_role, split_cases
from medexp.preparation.dose_summary import write_batch_summary
from medexp.preparation.manifest import case_record, make_manifest
from medexp.preparation.plan import make_plan, require_patch
from medexp.preparation.quality_report import write_quality_report
from medexp.preparation.raw_cases import RawCase, RawCohort, combined
from medexp.preparation.store import Outcome, Rebuilder
from medexp.preparation.usable import require_separate, require_usable
from medexp.preparation.workers import store_cases
from medexp.runs.files import write_json
from medexp.sampling.splits import check_splits, require_different_voxels

PATCH_SIZE = (128, 128, 128)
PATCH_MULTIPLE = 16  # four poolings
UNCHANGED = "none"  # the store holds HU and Gy


@dataclass(frozen=True)
class DoseCohortSettings:
    """What `conf/dataset/*.yaml` says about a cohort of doses and its preparation; see `DoseTransform`, `DoseSplit`."""

    name: str
    find_cases: Callable[..., RawCohort]
    roots: tuple[Path, ...]
    test_roots: tuple[Path, ...]
    patient_pattern: str | None
    format: DoseFormat
    structures: tuple[str, ...]
    aliases: Mapping[str, Sequence[str]]
    required: tuple[str, ...]
    grid: DoseGrid
    dose_interpolation: Interpolation
    distance_clip_mm: float
    strict_validation: bool
    split: DoseSplit
    holdout_shares: tuple[float, ...]
    num_folds: int | None
    split_seed: int
    splits_file: Path | None
    patch_size: tuple[int, ...] | None
    has_nnunet_layout: ClassVar[bool] = False

    def prepare(
        self, *, folder: Path, store: Path, skip_bad_cases: bool = False, num_workers: int | None = None
    ) -> PreparedCohort:
        """Verify and store every case, then write the cohort's records to `folder`; see `CohortSettings.prepare`.

        Raises:
            CohortError: Cases cannot be used; all of them are listed with all reasons.
            LeakageError: A patient or the same CT would stand on both sides of a split.
            ConfigurationError: A setting does not fit the cohort; names the key.
        """
        return _prepare(self, folder=folder, store=store, skip_bad_cases=skip_bad_cases, num_workers=num_workers)

    def prepare_unseen(
        self, source: Path, *, prepared: PreparedCohort, num_workers: int | None = None
    ) -> list[StoredCase]:
        """Verify and store the patients of a folder as `prepared` was; they need no dose.

        Raises:
            CohortError: Patients cannot be used; all are listed.
        """
        return _prepare_unseen(self, source, prepared=prepared, num_workers=num_workers)

    def transform(self) -> DoseTransform:
        """Return how a patient's files become an entry."""
        return DoseTransform(
            data_format=self.format,
            structures=self.structures,
            aliases=self.aliases,
            required=self.required,
            grid=self.grid,
            dose_interpolation=self.dose_interpolation,
            distance_clip_mm=self.distance_clip_mm,
            is_strict=self.strict_validation,
        )

    def splitting(self) -> SplitSettings:
        """Return how the cases are split."""
        return SplitSettings(self.split, self.holdout_shares, self.num_folds, self.split_seed, self.splits_file)


def _prepare(
    settings: DoseCohortSettings, *, folder: Path, store: Path, skip_bad_cases: bool, num_workers: int | None
) -> PreparedCohort:
    patch_size = _patch_size(settings)
    transform = settings.transform()
    cases = _find(settings)
    outcomes = store_cases(cases, transform, store=store, num_workers=num_workers)
    _described(settings, outcomes, transform, folder=folder, store=store)  # before anything is refused
    require_usable(outcomes, skip_bad_cases=skip_bad_cases, report=folder / "qc.html")
    splits, tested = split_cases([case_record(one) for one in outcomes if _is_training(one)], settings.splitting())
    outcomes = [_as_test(one) if one.case.case in tested else one for one in outcomes]
    manifest = _described(settings, outcomes, transform, folder=folder, store=store)
    records = manifest["cases"]
    train = [record for record in records if record["role"] == "train"]
    _require_different(records, made=settings.splits_file is None)
    _check(settings, records, splits)
    fingerprint = make_dose_fingerprint(train, structures=settings.structures)
    shape = [round(size) for size in fingerprint["stored_shape"]["median"]]
    plan = make_plan(spacing_mm=fingerprint["stored_spacing_mm"], median_shape=shape, patch_size=patch_size)
    place_references(records, folder=folder, store=store, num_workers=num_workers)
    write_json(folder / FINGERPRINT, fingerprint)
    write_json(folder / PLAN, plan.to_json())
    write_json(folder / SPLITS, splits)
    write_json(folder / MANIFEST, manifest)  # last: with it the folder is complete
    return PreparedCohort.open(folder, store, rebuild=Rebuilder.of(manifest))


def _patch_size(settings: DoseCohortSettings) -> tuple[int, ...]:
    size = settings.patch_size or PATCH_SIZE
    require_patch(size, num_axes=3)
    if any(side % PATCH_MULTIPLE for side in size):
        message = f"dataset.patch_size: expected multiples of {PATCH_MULTIPLE}, which the networks halve four times"
        raise ConfigurationError(f"{message}, got {list(size)}")
    return size


def _find(settings: DoseCohortSettings) -> list[RawCase]:
    if not settings.roots:
        raise CohortError("dataset.roots: expected at least one folder of patients, got none")
    cases = [official_role(case, settings.split) for case in _found(settings, settings.roots)]
    if settings.test_roots:
        cases += [replace(case, role="test") for case in _found(settings, settings.test_roots)]
    if not cases:
        places = ", ".join(str(root) for root in settings.roots)
        raise CohortError(f"dataset.roots: expected patients below {places}, found none; check dataset.find_cases")
    complete = [_with_dose_rule(case) for case in combined(cases)]
    sides = [(case.case, case.role, case.patient) for case in complete]
    require_separate(sides, voxels_of={case.case: () for case in complete})
    return complete


def _found(settings: DoseCohortSettings, roots: Sequence[Path]) -> list[RawCase]:
    channels = ("ct", *settings.structures)
    raw = settings.find_cases(list(roots), channels=channels, labels=None, patient_pattern=settings.patient_pattern)
    return list(raw.cases)


def _with_dose_rule(case: RawCase) -> RawCase:
    if case.label is not None or case.role == "test" or case.problems:
        return case
    place = next((path.parent for path in case.images.values()), case.name)
    return replace(case, problems=(f"{place}: expected a dose, found none; a training case needs one",))


def _described(
    settings: DoseCohortSettings, outcomes: Sequence[Outcome], transform: DoseTransform, *, folder: Path, store: Path
) -> dict[str, Any]:
    """Write the quality report; return the manifest."""
    manifest = make_manifest(
        dataset=settings.name, transform=transform, normalization=UNCHANGED, store=store, outcomes=outcomes
    )
    write_quality_report(manifest, folder=folder, store=store)
    write_batch_summary(manifest, folder=folder)
    return manifest


def _is_training(outcome: Outcome) -> bool:
    return outcome.key is not None and outcome.case.role == "train"


def _as_test(outcome: Outcome) -> Outcome:
    return replace(outcome, case=replace(outcome.case, role="test"))


def _require_different(records: Sequence[Mapping[str, Any]], *, made: bool) -> None:
    """Refuse the same CT in training and test cases, and in training cases of different patients."""
    voxels_of = _voxels_of(records)
    require_separate([(record["case"], record["role"], record["patient"]) for record in records], voxels_of=voxels_of)
    if made:
        patient_of = _patient_of(records)
        require_different_voxels(list(patient_of), patient_of=patient_of, voxels_of=voxels_of)


def _check(settings: DoseCohortSettings, records: Sequence[Mapping[str, Any]], splits: Sequence[Any]) -> None:
    source = SPLITS if settings.splits_file is None else str(settings.splits_file)
    check_splits(splits, patient_of=_patient_of(records), voxels_of=_voxels_of(records), source=source)


def _voxels_of(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    return {str(record["case"]): [key for key in record["channel_sha256"] if key] for record in records}


def _patient_of(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {str(record["case"]): str(record["patient"]) for record in records if record["role"] == "train"}


def _prepare_unseen(
    settings: DoseCohortSettings, source: Path, *, prepared: PreparedCohort, num_workers: int | None
) -> list[StoredCase]:
    cases = [replace(case, role="test") for case in _found(settings, [source])]
    if not cases:
        raise CohortError(f"{source}: expected patients in the dataset's raw layout, found none")
    rebuild = Rebuilder.of(prepared.manifest)
    outcomes = store_cases(cases, rebuild.transform, store=prepared.store, num_workers=num_workers)
    bad = [outcome for outcome in outcomes if outcome.key is None]
    if bad:
        listing = "".join(f"\n  {outcome.case.case}: {'; '.join(outcome.reasons)}" for outcome in bad)
        raise CohortError(
            f"{source}: expected {len(outcomes)} usable patients, but {len(bad)} cannot be used:{listing}"
        )
    return [StoredCase.of(case_record(outcome), prepared.store, rebuild) for outcome in outcomes]

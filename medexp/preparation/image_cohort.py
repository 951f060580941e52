"""A cohort of 2D images: raw files -> verified cases, prepared store, manifest, split, fingerprint and plan."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from medexp.errors import CohortError, ConfigurationError
from medexp.io.prepared import FINGERPRINT, MANIFEST, PLAN, SPLITS, PreparedCohort, StoredCase
from medexp.io.tables import write_table
from medexp.io.tiff import Gray
from medexp.preparation.image_entry import ImageNormalization, ImageTransform
from medexp.preparation.manifest import case_record, make_manifest
from medexp.preparation.paired_images import NOTES
from medexp.preparation.plan import make_plan, require_patch
from medexp.preparation.quality_report import write_quality_report
from medexp.preparation.raw_cases import RawCase, RawCohort
from medexp.preparation.store import Outcome, Rebuilder
from medexp.preparation.usable import require_separate, require_usable
from medexp.preparation.workers import store_cases
from medexp.runs.files import write_json
from medexp.sampling.splits import Fold, check_splits, make_splits, read_splits, require_different_voxels
from medexp.sampling.strata import hold_out

Split = Literal["holdout", "folds", "leave_one_out"]

IMAGES = "images.csv"
_DIAMETERS, _PATCH_SIDES = 2.5, (256, 384, 512)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageCohortSettings:
    """What `conf/dataset/*.yaml` says about a cohort of images and its preparation."""

    name: str
    find_cases: Callable[..., RawCohort]
    roots: tuple[Path, ...]
    test_roots: tuple[Path, ...]
    group_pattern: str
    channels: tuple[str, ...]
    labels: Mapping[str, int]
    gray: Gray
    normalization: ImageNormalization
    pixel_size_um: tuple[float, float] | None
    min_object_px: int
    split: Split
    holdout_shares: tuple[float, ...]
    coverage_edges: tuple[float, ...]
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
            CohortError: Cases cannot be used (all of them are listed with all reasons), or no mask holds an object.
            LeakageError: A group or the same pixels would stand on both sides of a split.
            ConfigurationError: A setting does not fit the cohort; names the key.
        """
        return _prepare(self, folder=folder, store=store, skip_bad_cases=skip_bad_cases, num_workers=num_workers)

    def prepare_unseen(
        self, source: Path, *, prepared: PreparedCohort, num_workers: int | None = None
    ) -> list[StoredCase]:
        """Verify and store the images of a folder as `prepared` was; masks are optional.

        Raises:
            CohortError: Images cannot be used; all are listed.
        """
        return _prepare_unseen(self, source, prepared=prepared, num_workers=num_workers)


def _prepare(
    settings: ImageCohortSettings, *, folder: Path, store: Path, skip_bad_cases: bool, num_workers: int | None
) -> PreparedCohort:
    if settings.patch_size is not None:
        require_patch(settings.patch_size, num_axes=2)
    transform = _transform(settings)
    cases = _find(settings)
    require_separate(
        [(case.case, case.role, case.patient) for case in cases], voxels_of={case.case: () for case in cases}
    )
    outcomes = [_with_notes(outcome) for outcome in store_cases(cases, transform, store=store, num_workers=num_workers)]
    _described(settings, outcomes, transform, folder=folder, store=store)  # before anything is refused
    require_usable(outcomes, skip_bad_cases=skip_bad_cases, report=folder / "qc.html")
    _require_different(outcomes, splits_file=settings.splits_file)
    split, tested = _split(settings, [one for one in outcomes if one.key is not None and one.case.role == "train"])
    outcomes = [_as_test(one) if one.case.case in tested else one for one in outcomes]
    manifest = _described(settings, outcomes, transform, folder=folder, store=store)
    records = manifest["cases"]
    train = [record for record in records if record["role"] == "train"]
    _require_objects(train, folder / "qc.html")
    _check(settings, records, split)
    fingerprint = _fingerprint(train)
    write_json(folder / FINGERPRINT, fingerprint)
    write_json(folder / PLAN, _plan(settings, fingerprint).to_json())
    write_json(folder / SPLITS, split)
    write_json(folder / MANIFEST, manifest)  # last: with it the folder is complete
    return PreparedCohort.open(folder, store, rebuild=Rebuilder.of(manifest))


def _transform(settings: ImageCohortSettings) -> ImageTransform:
    return ImageTransform(
        channels=settings.channels,
        labels=settings.labels,
        gray=settings.gray,
        normalization=settings.normalization,
        pixel_size_um=settings.pixel_size_um,
        min_object_px=settings.min_object_px,
    )


def _find(settings: ImageCohortSettings) -> list[RawCase]:
    if not settings.roots:
        raise CohortError("dataset.roots: expected at least one folder of images, got none")
    given = {"channels": settings.channels, "labels": settings.labels, "patient_pattern": settings.group_pattern}
    cases = list(settings.find_cases([*settings.roots, *settings.test_roots], **given).cases)
    tested = [root.absolute() for root in settings.test_roots]
    cases = [replace(case, role="test") if _is_below(case, tested) else case for case in cases]
    if not cases:
        places = ", ".join(map(str, settings.roots))
        raise CohortError(f"dataset.roots: expected images below {places}, found none; check dataset.find_cases.pairs")
    return [_with_mask_rule(case) for case in cases]


def _is_below(case: RawCase, roots: Sequence[Path]) -> bool:
    return any(path.absolute().is_relative_to(root) for path in case.images.values() for root in roots)


def _with_mask_rule(case: RawCase) -> RawCase:
    if case.label is not None or case.problems:
        return case
    image = next(iter(case.images.values()))
    reason = f"{image}: expected a mask, found none; name it as dataset.find_cases.pairs says, or exclude the image"
    return replace(case, problems=(*case.problems, reason))


def _with_notes(outcome: Outcome) -> Outcome:
    """Return the outcome with the warnings that what is known about a case adds."""
    confirmed, notes = bool(outcome.case.notes.get("empty_confirmed")), []
    if outcome.key is None or outcome.facts["coverage"] is None:
        return outcome
    if outcome.facts["coverage"] == 0.0 and not confirmed:
        notes.append("the mask is empty, and nobody has confirmed that (dataset.find_cases.confirmed_empty)")
    if outcome.facts["coverage"] > 0.0 and confirmed:
        notes.append("the mask is said to be empty, but holds objects")
    return replace(outcome, warnings=(*outcome.warnings, *notes))


def _described(
    settings: ImageCohortSettings, outcomes: Sequence[Outcome], transform: ImageTransform, *, folder: Path, store: Path
) -> dict[str, Any]:
    """Write the quality report and the table of images; return the manifest."""
    manifest = make_manifest(
        dataset=settings.name, transform=transform, normalization=settings.normalization, store=store, outcomes=outcomes
    )
    write_quality_report(manifest, folder=folder, store=store)
    write_table(folder / IMAGES, [_row(record) for record in manifest["cases"]], columns=_COLUMNS)
    return manifest


def _require_different(outcomes: Sequence[Outcome], *, splits_file: Path | None) -> None:
    """Refuse the same pixels in training and test images, and in training images of different groups."""
    usable = [one for one in outcomes if one.key is not None]
    voxels_of = {one.case.case: [key for key in one.facts["channel_sha256"] if key] for one in usable}
    require_separate([(one.case.case, one.case.role, one.case.patient) for one in usable], voxels_of=voxels_of)
    if splits_file is None:
        group_of = {one.case.case: one.case.patient for one in usable if one.case.role == "train"}
        require_different_voxels(list(group_of), patient_of=group_of, voxels_of=voxels_of)


def _as_test(outcome: Outcome) -> Outcome:
    return replace(outcome, case=replace(outcome.case, role="test"))


def _split(settings: ImageCohortSettings, train: Sequence[Outcome]) -> tuple[list[Fold], set[str]]:
    """Return the folds, and the cases that are set aside for testing."""
    group_of = {one.case.case: one.case.patient for one in train}
    if settings.splits_file is not None:
        return read_splits(settings.splits_file), set()
    if settings.split == "holdout":
        sides = hold_out(
            group_of,
            {one.case.case: float(one.facts["coverage"] or 0.0) for one in train},
            shares=settings.holdout_shares,
            edges=settings.coverage_edges,
            seed=settings.split_seed,
        )
        return [{"train": sides["train"], "val": sides["val"]}], set(sides["test"])
    num_folds = len(set(group_of.values())) if settings.split == "leave_one_out" else settings.num_folds
    if settings.split == "leave_one_out" and num_folds == 1:
        message = "dataset.split=leave_one_out: expected two images or more, got one group"
        raise ConfigurationError(f"{message}; add images, or let dataset.group_pattern keep fewer together")
    if num_folds is None:
        raise ConfigurationError("dataset.num_folds: expected a number with dataset.split=folds, got null")
    return make_splits(group_of, num_folds=num_folds, seed=settings.split_seed), set()


def _check(settings: ImageCohortSettings, records: Sequence[Mapping[str, Any]], split: Sequence[Fold]) -> None:
    voxels_of = {str(record["case"]): [key for key in record["channel_sha256"] if key] for record in records}
    group_of = {str(record["case"]): str(record["patient"]) for record in records if record["role"] == "train"}
    source = SPLITS if settings.splits_file is None else str(settings.splits_file)
    check_splits(split, patient_of=group_of, voxels_of=voxels_of, source=source)


def _require_objects(train: Sequence[Mapping[str, Any]], report: Path) -> None:
    if not any(record["coverage"] for record in train):
        message = f"expected objects in the masks of the training images, but all {len(train)} are empty"
        raise CohortError(f"{message}; correct the masks. The quality report is {report}")


def _fingerprint(train: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    shapes = np.array([record["stored_shape"] for record in train])
    diameters = [record["mean_diameter_px"] for record in train if record["mean_diameter_px"]]
    counts = [record["object_count"] for record in train]
    return {
        "num_cases": len(train),
        "num_groups": len({record["patient"] for record in train}),
        "stored_shape": {
            "minimum": shapes.min(axis=0).tolist(),
            "median": np.median(shapes, axis=0).tolist(),
            "maximum": shapes.max(axis=0).tolist(),
        },
        "mean_diameter_px": float(np.mean(diameters)) if diameters else None,
        "object_count": int(sum(counts)),
        "coverage": {
            "minimum": min(record["coverage"] for record in train),
            "mean": float(np.mean([record["coverage"] for record in train])),
            "maximum": max(record["coverage"] for record in train),
        },
    }


def patch_side(mean_diameter_px: float | None) -> int:
    """Return 2.5 diameters of a mean object, rounded up to 256, 384 or 512 pixels."""
    wanted = _DIAMETERS * (mean_diameter_px or 0.0)
    return next((side for side in _PATCH_SIDES if wanted <= side), _PATCH_SIDES[-1])


def _plan(settings: ImageCohortSettings, fingerprint: Mapping[str, Any]) -> Any:
    side = patch_side(fingerprint["mean_diameter_px"])
    size = settings.pixel_size_um
    return make_plan(
        spacing_mm=(1.0, 1.0) if size is None else tuple(um / 1000.0 for um in size),
        median_shape=[round(length) for length in fingerprint["stored_shape"]["median"]],
        patch_size=settings.patch_size or (side, side),
    )


# The manifest of SegOid, and what a split and a correction add.
_COLUMNS = (
    "basename", "image_path", "mask_path", "mask_coverage", "object_count", "mean_diameter", "empty_confirmed",
    *NOTES, "group", "role", "corrected_from", "pixel_size_um", "warnings",
)  # fmt: skip


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    size = record["pixel_size_um"]
    return {
        "basename": record["name"],
        "image_path": next(iter(record["images"].values()))["path"],
        "mask_path": (record["label"] or {}).get("path"),
        "mask_coverage": record["coverage"],
        "object_count": record["object_count"],
        "mean_diameter": record["mean_diameter_px"],
        "empty_confirmed": bool(record.get("empty_confirmed", False)),
        **{name: record.get(name) for name in NOTES},
        "group": record["patient"],
        "role": record["role"],
        "corrected_from": record.get("corrected_from"),
        "pixel_size_um": None if size is None else " x ".join(f"{um:g}" for um in size),
        "warnings": "; ".join(record["warnings"]),
    }


def _prepare_unseen(
    settings: ImageCohortSettings, source: Path, *, prepared: PreparedCohort, num_workers: int | None
) -> list[StoredCase]:
    raw = settings.find_cases(
        [source],
        channels=settings.channels,
        labels=settings.labels,
        patient_pattern=settings.group_pattern,
        manifest=None,
        exclude=(),
        corrections=(),
    )
    if not raw.cases:
        raise CohortError(f"{source}: expected TIFF images, found none")
    rebuild = Rebuilder.of(prepared.manifest)
    cases = [replace(case, role="test", problems=_real_problems(case)) for case in raw.cases]
    outcomes = store_cases(cases, rebuild.transform, store=prepared.store, num_workers=num_workers)
    bad = [outcome for outcome in outcomes if outcome.key is None]
    if bad:
        listing = "".join(f"\n  {outcome.case.case}: {'; '.join(outcome.reasons)}" for outcome in bad)
        raise CohortError(f"{source}: expected {len(outcomes)} usable images, but {len(bad)} cannot be used:{listing}")
    records = [case_record(outcome) for outcome in outcomes]
    _tell_seen(records, prepared)
    return [StoredCase.of(record, prepared.store, rebuild) for record in records]


def _real_problems(case: RawCase) -> tuple[str, ...]:
    """Return the problems without that of the group: an image that is only predicted belongs to none."""
    return tuple(problem for problem in case.problems if not problem.startswith("dataset.group_pattern"))


def _tell_seen(records: Sequence[Mapping[str, Any]], prepared: PreparedCohort) -> None:
    """Warn of images whose pixels the training images hold: scores on them say nothing."""
    holders = {
        key: case.case for case in prepared.cases if case.role == "train" for key in case.record["channel_sha256"]
    }
    for record in records:
        seen = [holders[key] for key in record["channel_sha256"] if key and key in holders]
        if seen:
            _log.warning("%s holds the same pixels as the training image %s", record["case"], seen[0])

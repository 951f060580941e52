"""Prepare a cohort: raw files -> prepared store, manifest, splits, fingerprint, plan, quality report."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from medexp.io.prepared import FINGERPRINT, MANIFEST, PLAN, SPLITS, PreparedCohort, StoredCase
from medexp.preparation.dose_summary import BATCH_SUMMARY
from medexp.preparation.image_cohort import IMAGES
from medexp.preparation.nnunet_layout import RawLayout
from medexp.preparation.raw_cases import RawCase
from medexp.runs.files import read_json
from medexp.runs.identity import identity_of
from medexp.stages.context import Context, Result
from medexp.types import Index

_OF_ONE_KIND = {"images": IMAGES, "batch_summary": BATCH_SUMMARY}
_LISTED = 5  # cases with warnings that are named in the summary


def prepare(
    datamodule: Any,
    *,
    store: str | Path,
    skip_bad_cases: bool,
    nnunet: RawLayout,
    num_workers: Index | None,
    context: Context,
) -> Result:
    """Verify every case, store it, and write the cohort's records into the run's folder.

    Repeating an interrupted or failed run finds the stored cases again and does the rest.

    Args:
        datamodule: Knows the raw format and the cohort's settings (`cohort`).
        store: The prepared store.
        skip_bad_cases: Go on without the cases that cannot be used; they are listed in the manifest and the report.
        nnunet: Where the nnU-Net raw layout of volumes goes.
        num_workers: Processes; None: one per core that this process may use.
        context: The run.

    Raises:
        CohortError: Cases cannot be used (all of them, with all reasons, in one message), or there are none.
        LeakageError: A patient or the same voxels would stand on both sides of a split.
        ConfigurationError: A setting does not fit the cohort; names the key.
        StorageError: A file cannot be written.
    """
    started = time.perf_counter()
    folder = context.run.folder
    settings = datamodule.cohort()
    if settings.has_nnunet_layout:
        nnunet.require_ours(settings.name, default_root=folder / "nnunet_raw")  # before the work, not after it
    cohort = settings.prepare(
        folder=folder,
        store=Path(store).absolute(),
        skip_bad_cases=skip_bad_cases,
        num_workers=num_workers,
    )
    layout = _nnunet_layout(nnunet, cohort, folder / "nnunet_raw") if settings.has_nnunet_layout else None
    files = {
        "manifest": MANIFEST,
        "splits": SPLITS,
        "fingerprint": FINGERPRINT,
        "plan": PLAN,
        "quality": "qc.json",
        "quality_table": "qc.csv",
        "quality_page": "qc.html",
    }
    files |= {name: file for name, file in _OF_ONE_KIND.items() if (folder / file).exists()}
    outputs = {name: folder / file for name, file in files.items()}
    splits_hash = identity_of({"splits": read_json(folder / SPLITS)})
    _track(context, cohort, splits_hash)
    lines = _summary(cohort, layout, outputs["quality_page"], elapsed_s=time.perf_counter() - started)
    # The plan is in: a configured patch makes other networks of the same cases.
    digest = identity_of({"cases": cohort.digest, "splits": splits_hash, "plan": read_json(folder / PLAN)})
    places = () if layout is None else (layout.absolute() / "dataset.json",)
    return Result(outputs=outputs, digest=digest, lines=lines, places=places)


def _nnunet_layout(nnunet: RawLayout, cohort: PreparedCohort, default_root: Path) -> Path:
    return nnunet.write(
        [_raw(case) for case in cohort.cases],
        name=cohort.name,
        channels=cohort.channels,
        labels=cohort.labels,
        default_root=default_root,
    )


def _raw(case: StoredCase) -> RawCase:
    return RawCase(case.case, case.patient, case.role, case.image_paths, case.label_path, str(case.record["name"]))


def _track(context: Context, cohort: PreparedCohort, splits_hash: str) -> None:
    excluded = cohort.manifest["excluded"]
    counts = Counter(case.role for case in cohort.cases)
    warned = sum(bool(case.record["warnings"]) for case in cohort.cases)
    values = {"train": counts["train"], "test": counts["test"], "left_out": len(excluded), "with_warnings": warned}
    context.tracker.log_metrics({f"cases/{name}": float(value) for name, value in values.items()}, step=0)
    context.tracker.set_tags({"medexp.dataset_digest": cohort.digest, "medexp.splits_sha256": splits_hash})
    context.tracker.log_params({"plan.patch_size": json.dumps(cohort.plan.patch_size)})
    context.tracker.log_artifact(context.run.folder / "qc.json")


def _summary(cohort: PreparedCohort, layout: Path | None, page: Path, *, elapsed_s: float) -> tuple[str, ...]:
    excluded = cohort.manifest["excluded"]
    warned = [case for case in cohort.cases if case.record["warnings"]]
    train = [case for case in cohort.cases if case.role == "train"]
    patients = len({case.patient for case in train})
    whose = "groups" if cohort.kind == "images" else "patients"
    each = elapsed_s / max(1, len(cohort.cases))
    lines = [
        f"{len(train)} training cases of {patients} {whose}, {len(cohort.test_cases)} test cases"
        f" in {elapsed_s:.1f} s ({each:.2f} s per case)",
        f"left out: {len(excluded)}" + "".join(f"\n  {record['case']}: {record['reasons'][0]}" for record in excluded),
        f"with warnings: {len(warned)}"
        + "".join(f"\n  {case.case}: {'; '.join(case.record['warnings'])}" for case in warned[:_LISTED])
        + (f"\n  and {len(warned) - _LISTED} more" if len(warned) > _LISTED else ""),
        f"folds: {len(cohort.splits)}, validation cases {', '.join(str(len(val)) for _, val in cohort.splits)}",
        _plan(cohort),
        f"store: {cohort.store}",
        *([] if layout is None else [f"nnU-Net raw layout: {layout}"]),
        f"quality report: {page}",
    ]
    return tuple(lines)


def _plan(cohort: PreparedCohort) -> str:
    patch, poolings = _sizes(cohort.plan.patch_size), len(cohort.plan.strides) - 1
    if cohort.kind == "images":
        diameter = cohort.fingerprint["mean_diameter_px"]
        objects = "no object" if diameter is None else f"objects {diameter:.1f} pixels wide in the mean"
        return f"plan: patch {patch} pixels, {objects}, {poolings} poolings"
    return f"plan: patch {patch}, spacing {_sizes(cohort.plan.spacing_mm)} mm, {poolings} poolings"


def _sizes(values: tuple[float | int, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)

"""The manifest: every prepared case with its sources, grid and hashes, and every case that was left out."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medexp.geometry.grids import grid_from_json
from medexp.io.prepared import FORMAT
from medexp.preparation.dose_entry import DoseTransform
from medexp.preparation.store import AnyTransform, Outcome
from medexp.runs.identity import identity_of

# What the facts of one kind of case add to its record.
_OF_IMAGES = ("coverage", "object_count", "mean_diameter_px", "stored_type")
_OF_DOSES = ("prescription_gy", "constraints", "case_type", "dose", "flags", "metadata", "unmatched_structures")


def case_record(outcome: Outcome) -> dict[str, Any]:
    """Return the manifest's entry for a stored case; `name` is what the raw folder or file is called."""
    case, facts = outcome.case, outcome.facts
    grid = grid_from_json(facts["grid"])
    files = {name: {"path": str(path), "sha256": outcome.source[name]} for name, path in case.images.items()}
    label = None if case.label is None else {"path": str(case.label), "sha256": outcome.source["label"]}
    return {
        "case": case.case,
        "name": case.name,
        "patient": case.patient,
        "role": case.role,
        "store": outcome.key,
        "images": files,
        "label": label,
        **grid.described(),
        "grid": dict(facts["grid"]),
        **({"stored_spacing_mm": list(facts["spacing_mm"])} if "spacing_mm" in facts else {}),
        **{name: facts[name] for name in (*_OF_IMAGES, *_OF_DOSES) if name in facts},
        **case.notes,
        "voxel_sha256": facts["voxel_sha256"],
        "channel_sha256": list(facts["channel_sha256"]),
        "label_sha256": facts["label_sha256"],
        "label_voxels": facts["label_voxels"],
        "intensity": list(facts["intensity"]),
        "warnings": [*facts["warnings"], *outcome.warnings],
        "sizes": dict(outcome.sizes),
    }


def make_manifest(
    *,
    dataset: str,
    transform: AnyTransform,
    normalization: str,
    store: Path,
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:
    """Return manifest.json's content; cases without an entry are listed under `excluded` with their reasons."""
    cases = [case_record(outcome) for outcome in outcomes if outcome.key is not None]
    for record, others in zip(cases, _same_labels(cases), strict=True):
        answer = "dose" if transform.kind == DoseTransform.kind else "label"
        record["warnings"] += [f"its {answer} has the same voxels as that of {', '.join(others)}"] if others else []
    excluded = [
        {"case": outcome.case.case, "name": outcome.case.name, "role": outcome.case.role, "reasons": [*outcome.reasons]}
        for outcome in outcomes
        if outcome.key is None
    ]
    return {
        "format": FORMAT,
        "dataset": dataset,
        "channels": list(transform.channels),
        "labels": dict(transform.labels),
        "normalization": normalization,
        "channel_normalization": list(transform.schemes),
        "kind": transform.kind,
        "transform": transform.to_json(),
        "store": str(store.resolve()),
        "digest": content_digest(cases, transform),
        "cases": cases,
        "excluded": excluded,
    }


def _same_labels(cases: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return, for each case, the cases of other patients with the same label, unless it is empty."""
    holders: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    keys = [str(case["label_sha256"]) if any((case["label_voxels"] or {}).values()) else None for case in cases]
    for key, case in zip(keys, cases, strict=True):
        if key is not None:
            holders[key].append((str(case["case"]), str(case["patient"])))
    return [
        [] if key is None else [name for name, patient in holders[key] if patient != case["patient"]]
        for key, case in zip(keys, cases, strict=True)
    ]


def content_digest(cases: Sequence[Mapping[str, Any]], transform: AnyTransform) -> str:
    """Return a hash of what the cases hold and what they are: no path, no order, no time goes into it."""
    fields = ("case", "patient", "role", "voxel_sha256", "label_sha256", "shape", "affine", "pixel_size_um")
    chosen = ({field: case[field] for field in fields if field in case} for case in cases)
    content = sorted(chosen, key=lambda case: str(case["case"]))
    return identity_of({"cases": content, "transform": transform.to_json()})

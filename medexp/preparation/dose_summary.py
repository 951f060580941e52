"""batch_summary.json: what became of every patient, in the manner of the origin system's batch preparation."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medexp.runs.files import write_json

BATCH_SUMMARY = "batch_summary.json"


def write_batch_summary(manifest: Mapping[str, Any], *, folder: Path) -> None:
    """Write the summary of a manifest to `folder`.

    Raises:
        StorageError: The file cannot be written.
    """
    done = [_done(record) for record in manifest["cases"]]
    failed = [
        {"case_id": one["case"], "success": False, "errors": list(one["reasons"])} for one in manifest["excluded"]
    ]
    unmet = Counter(name for one in done for name in one["failed_checks"])
    summary = {
        "total": len(done) + len(failed),
        "successful": len(done),
        "failed": len(failed),
        "failed_checks": dict(sorted(unmet.items())),
        "settings": manifest["transform"],
        "cases": [*failed, *done],
    }
    write_json(folder / BATCH_SUMMARY, summary)


def _done(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "case_id": record["case"],
        "success": True,
        "shape": record["stored_shape"],
        "spacing_mm": record["spacing_mm"],
        "prescription_gy": record["prescription_gy"],
        "structures": {name: voxels for name, voxels in record["label_voxels"].items() if voxels},
        "failed_checks": [flag["name"] for flag in record["flags"] if not flag["passed"]],
        "warnings": list(record["warnings"]),
    }

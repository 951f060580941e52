"""Chains of finished runs that end in an evaluation with a given per-case table, without any image."""

import hashlib
import os
from pathlib import Path
from typing import Any

from medexp.io.tables import write_table
from medexp.runs.files import sha256_of, write_json
from medexp.runs.ledger import Run
from medexp.stages.compare import compare
from medexp.stages.context import Context, Result
from tests.synthetic.evaluations import LABELS, REGIONS, context_of

SETTINGS = {
    "empty_reference": "nan",
    "nsd_tolerances_mm": [1.0],
    "lesions": None,
    "lesion_variant": None,
    "snfh_slip": None,
    "protocol": None,
    "labels": LABELS,
    "regions": {name: list(members) for name, members in REGIONS.items()},
}
COMPARE = {
    "by": None,
    "metrics": ["mean_dice"],
    "higher_is_better": [],
    "lower_is_better": [],
    "infinite_as": None,
    "confidence": 0.95,
    "num_resamples": 1000,
    "bootstrap_seed": 0,
}


def recorded(
    output_dir: Path, stage: str, received: dict[str, Any], tags: dict[str, Any], upstream: dict[str, list[Run]], **more
) -> Run:
    """Return a run that has begun; what it received decides its identity."""
    text = repr((stage, received, tags, [run.identity for runs in upstream.values() for run in runs], more))
    identity = hashlib.sha256(text.encode()).hexdigest()
    numbers = [f"{name}{tags[name]}" for name in ("fold", "seed") if name in tags]
    label = "-".join([stage, *([tags["model"]] if "model" in tags else []), *numbers])
    folder = output_dir / "brats" / f"{label}-{identity[:10]}"
    links = {name: [os.path.relpath(run.folder, folder) for run in runs] for name, runs in upstream.items()}
    record = {
        "identity": identity,
        "stage": stage,
        "dataset": "brats",
        "label": label,
        "tags": {"stage": stage, "dataset": "brats", **tags},
        "user_tags": [],
        "command": f"python -m medexp.run stage={stage}",
        "received": received,
        "upstream": links,
        "created": "2026-01-01T00:00:00.000+00:00",
    }
    run = Run(folder, {**record, **more})
    run.begin()
    return run


def evaluation(
    output_dir: Path,
    scores: dict[str, float | dict[str, float]],
    *,
    model: str | None = "unet3d",
    fold: int = 0,
    seed: int = 0,
    stage: str = "1",
    source: str = "validation",
    rate: float = 0.01,
    patients: dict[str, str] | None = None,
    settings: dict[str, Any] | None = None,
    reference: str = "r",
    predictions: str | None = None,
    **more,
) -> Run:
    """Return a finished evaluation: `scores` are columns by case, or the mean Dice; `model=None` is foreign."""
    tags = {} if model is None else {"model": model, "fold": fold, "seed": seed}
    upstream: dict[str, list[Run]] = {}
    if model is not None:
        network = {"_target_": f"networks.{model}"}
        received = {"model": {"network": network, "optimizer": {"lr": rate}}, "fold": fold, "seed": seed}
        trained = recorded(output_dir, stage, received, tags, {})
        trained.end("finished")
        predicted = recorded(output_dir, "predict", {"source": source, "fold": fold}, tags, {"trained": [trained]})
        predicted.end("finished")
        upstream = {"predicted": [predicted]}
    run = recorded(output_dir, "evaluate", {"predictions": predictions, "marker": str(more)}, tags, upstream, **more)
    return finished(run, scores, patients or {}, {**SETTINGS, **(settings or {})}, reference)


def finished(
    run: Run,
    scores: dict[str, float | dict[str, float]],
    patients: dict[str, str],
    settings: dict[str, Any],
    reference: str,
) -> Run:
    """Write what stage=evaluate writes, and end the run."""
    rows = [
        {"case": case, "patient": patients.get(case, ""), **(row if isinstance(row, dict) else {"mean_dice": row})}
        for case, row in scores.items()
    ]
    files = {"cases": run.folder / "cases.csv"}
    write_table(files["cases"], [{"mean_dice": 0.5, **row} for row in rows])
    entries = [{"case": case, "reference": {"path": case, "sha256": f"{reference}-{case}"}} for case in scores]
    files |= {"evaluation": run.folder / "evaluation.json", "summary": run.folder / "summary.json"}
    digests = {"cases": {"path": "cases.csv", "sha256": sha256_of(files["cases"])}}
    write_json(files["evaluation"], {"settings": settings, "cases": entries, "files": digests})
    write_json(files["summary"], {"medexp": {"num_cases": len(rows)}})
    run.write_outputs(files, digest=None, objective=0.5, scores={}, lines=[])
    run.end("finished")
    return run


def compared(output_dir: Path, runs: list[Run], **changes) -> tuple[Run, Result]:
    """Return a finished comparison of evaluations, and what the stage handed back."""
    run = recorded(output_dir, "compare", {}, {}, {"evaluated": runs})
    context: Context = context_of(run, evaluated=runs)
    result = compare("a comparison", **{**COMPARE, **changes}, context=context)
    run.write_outputs(result.outputs, digest=None, scores=dict(result.scores), lines=list(result.lines))
    run.end("finished")
    return run, result

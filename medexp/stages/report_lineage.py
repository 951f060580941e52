"""Where a report's numbers come from: the runs behind them, their training curves, what was left out."""

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from medexp.io.tables import number, read_table
from medexp.plots.curves import training_curves
from medexp.plots.theme import inline_svg
from medexp.runs.files import read_json
from medexp.runs.identity import short
from medexp.runs.ledger import Run
from medexp.stages.recorded_evaluation import Evaluation

_DEFAULT_MONITOR = ("val/dice/mean", "max")
_NAMES = {"val/dice/mean": "mean Dice", "val/mae_gy": "mean absolute error in Gy"}
_DRAWN = ("val/dice/", "val/mae_gy", "train/loss/")  # beginnings of columns, besides loss and learning rate
_MAX_NAMED = 50


def stage_records(runs: Sequence[Run]) -> list[dict[str, str]]:
    """Return each run's stage, its command line and its facts in the order in which they were made.

    `runs` come nearest first, which decides between those of the same second.
    """
    nearest_last = list(reversed(runs))
    ordered = sorted(nearest_last, key=lambda run: str(run.record["created"]))
    return [
        {"stage": _stage_name(run), "command": str(run.record["command"]), "facts": " · ".join(_facts_of(run))}
        for run in ordered
    ]


def _stage_name(run: Run) -> str:
    stage = str(run.record["stage"])
    return f"stage {stage}" if stage.isdigit() else stage


def _facts_of(run: Run) -> list[str]:
    git = run.record.get("git") or {}
    elapsed = run.result.get("elapsed_s")
    facts = [f"run {short(run.identity)}", str(run.record["created"])[:19].replace("T", " ")]
    if elapsed is not None:
        facts.append(f"{float(elapsed):.0f} s")
    if git.get("commit"):
        facts.append(f"commit {str(git['commit'])[:10]}{' with changes' if git.get('dirty') else ''}")
    return facts


def trainings(runs: Sequence[Run], *, colors: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the curves of every training among the runs that left a history, the earliest first."""
    found = []
    for run in sorted(runs, key=lambda run: str(run.record["created"])):
        path = run.folder / "history.csv"
        rows = read_table(path) if path.is_file() else []
        if rows:
            found.append(_training(run, rows, colors))
    return found


def _training(run: Run, rows: Sequence[Mapping[str, str]], colors: Mapping[str, str]) -> dict[str, Any]:
    epochs = [number(row.get("epoch")) + 1.0 for row in rows]
    curves = {
        name: (epochs, [number(row.get(name)) for row in rows])
        for name in rows[0]
        if name in {"train/loss", "val/loss", "lr"} or name.startswith(_DRAWN)
    }
    monitor, mode = _monitor_of(run)
    scores = [(number(row.get(monitor)), epoch) for row, epoch in zip(rows, epochs, strict=True)]
    known = [(score, epoch) for score, epoch in scores if not math.isnan(score)]
    best = (max if mode == "max" else min)(known, default=None, key=itemgetter(0))
    figure = training_curves(curves, colors=colors, best_epoch=best[1] if best else None)
    stage = _stage_name(run).capitalize()
    score = _NAMES.get(monitor, monitor)
    return {
        "title": " · ".join([stage, *str(run.record["label"]).split("-")[1:]]),
        "note": f"best {score} {best[0]:.4f} after epoch {best[1]:.0f} of {epochs[-1]:.0f}" if best else "",
        "figure": inline_svg(figure, name=f"curves{short(run.identity)}", description=f"Training curves of {stage}"),
    }


def _monitor_of(run: Run) -> tuple[str, str]:
    """Return what the run's best checkpoint was chosen by, and whether more of it or less is better."""
    best = (run.record.get("received", {}).get("callbacks") or {}).get("best")
    return (str(best["monitor"]), str(best["mode"])) if best else _DEFAULT_MONITOR


def prepared_manifest(runs: Sequence[Run]) -> Mapping[str, Any] | None:
    """Return the manifest of the cohort behind the runs, if one was prepared."""
    prepared = [run for run in runs if run.record["stage"] == "prepare"]
    return read_json(prepared[0].folder / "manifest.json") if prepared else None


def warnings(evaluation: Evaluation, manifest: Mapping[str, Any] | None, runs: Sequence[Run]) -> list[str]:
    """Return what a reader must know before believing a number."""
    found = []
    excluded = [f"{entry['case']} ({'; '.join(entry['reasons'])})" for entry in (manifest or {}).get("excluded", [])]
    if excluded:
        found.append(f"Could not be used and are in no number: {_count(excluded, 'raw case')}, {_named(excluded)}.")
    without = [str(case) for case in evaluation.manifest["without_reference"]]
    if without:
        what = "Predicted but not scored, because no reference is known"
        found.append(f"{what}: {_count(without, 'case')}, {_named(without)}.")
    missing = () if evaluation.of_doses else evaluation.summary["mean_foreground_dice"]["labels_without_value"]
    if missing:
        found.append(f"In no case at all, and so not in the mean foreground Dice: {', '.join(missing)}.")
    if len({run.record.get("code_version") for run in runs}) > 1:
        found.append("The stages were run with different versions of the code.")
    return found


def _count(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what}{'s' if len(names) != 1 else ''}"


def _named(names: Sequence[str]) -> str:
    rest = f", and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + rest


def facts(evaluation: Evaluation, manifest: Mapping[str, Any] | None, runs: Sequence[Run]) -> dict[str, str]:
    """Return what identifies data, code and machine."""
    record = evaluation.run.record
    git = record.get("git") or {}
    changed = ", with uncommitted changes" if git.get("dirty") else ""
    found = {name.capitalize(): str(evaluation.manifest[name]) for name in ("predictions", "references")}
    if manifest is not None:
        roles = [entry["role"] for entry in manifest["cases"]]
        counts = f"{roles.count('train')} training and {roles.count('test')} test cases"
        found["Cohort"] = f"{manifest['dataset']}: {counts}, {len(manifest['excluded'])} excluded"
        found["Data digest"] = str(manifest["digest"])
    found |= {
        "Evaluation": evaluation.run.identity,
        "Trained runs": ", ".join(run.folder.name for run in runs if str(run.record["stage"]).isdigit()),
        "Code": f"commit {git['commit']}{changed}" if git.get("commit") else "",
        "Versions": ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items()),
        "Machine": str((record.get("machine") or {}).get("platform", "")),
        "Folder": str(Path(evaluation.run.folder)),
    }
    return {name: text for name, text in found.items() if text}


def definitions(evaluation: Evaluation) -> dict[str, str]:
    """Return the definition of every number on the page."""
    settings = evaluation.settings
    pixel = "pixels" if evaluation.of_images else "voxels"
    found = {
        "Mean foreground Dice": "Mean over the labels of the mean Dice over cases; regions do not count. A case's mean "
        "Dice is that over the labels present in it.",
        "Dice": f"Twice the shared {pixel} over the {pixel} of both masks.",
    }
    if evaluation.of_images:
        found |= _of_objects(settings["objects"])
    else:
        found |= {
            "HD95": "The larger of the two directed 95th percentiles of surface distances, weighted by area, in mm.",
            "NSD": "Share of both surfaces that lie within the tolerance of the other (normalized surface Dice).",
        }
    found["Intervals"] = "95 %, percentile bootstrap over cases, 2,000 resamples."
    if settings["protocol"] is not None:
        rule = "mean over the lesions of the reference and the spurious ones of the prediction; missed and spurious"
        found["Lesion-wise"] = f"{settings['protocol']}: {rule} lesions score Dice 0 and the penalty distance."
    return found


def _of_objects(settings: Mapping[str, Any]) -> dict[str, str]:
    holes = "holes filled" if settings["fill_holes"] else "holes left open"
    touching = "split at their necks" if settings["split_touching"] else "not split"
    return {
        "IoU": "The shared pixels over the pixels of either mask.",
        "Objects": f"8-connected, at least {settings['min_area_px']} pixels, {holes}, touching ones {touching}; of "
        "prediction and reference alike.",
        "Object F1": f"2 TP / (2 TP + FP + FN) of objects matched one to one at an IoU of {settings['iou']:g} or more.",
        "Average precision": "TP / (TP + FP + FN) at an IoU threshold (StarDist, Cellpose); 0.50–0.95 is its mean over "
        "0.50, 0.55, ... 0.95. Not the area under a precision-recall curve.",
    }

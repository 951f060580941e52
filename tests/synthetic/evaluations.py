"""Small label maps in folders, and chains of finished runs around them."""

import os
from pathlib import Path

import numpy as np

from medexp.geometry.grids import Grid
from medexp.io.nifti import write_nifti
from medexp.io.tables import write_table
from medexp.metrics.dose_scoring import DoseScoring
from medexp.metrics.object_scores import ObjectScoring
from medexp.runs.files import sha256_of, write_json
from medexp.runs.ledger import Run, now
from medexp.stages.context import Context, Result
from medexp.stages.evaluate import evaluate
from medexp.stages.report import report
from medexp.tracking import Tracker
from tests.synthetic.wells import write_image, write_mask

LABELS = {"NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}
REGIONS = {"WT": ("NETC", "SNFH", "ET"), "TC": ("NETC", "ET")}
SHAPE = (24, 20, 22)
AFFINE = np.array([[-1.0, 0, 0, 23], [0, 1, 0, 0], [0, 0, 1.5, 0], [0, 0, 0, 1]])

OBJECTS = ObjectScoring(
    min_area_px=1, fill_holes=False, split_touching=False, split_depth_px=1.0, iou=0.5, pixel_size_um=None
)
NO_DOSES = DoseScoring(
    structures=None,
    targets={},
    gamma=(),
    gamma_cutoff_percent=10.0,
    gamma_max=2.0,
    gamma_subsample=1,
    gamma_method="exact",
    ptv_margin_mm=5.0,
    volume_doses_gy=(),
    limits=None,
    openkbp=True,
    goal_mae_gy=2.0,
    goal_gamma_percent=95.0,
)
SETTINGS = {
    "labels": LABELS,
    "regions": REGIONS,
    "empty_reference": "nan",
    "nsd_tolerances_mm": [1.0],
    "lesions": "brats_2024_gli",
    "lesion_variant": "official",
    "snfh_slip": True,
    "objects": OBJECTS,
    "doses": NO_DOSES,
    "measure_only": False,
    "num_workers": 1,
}


def tumor(size: int = 5, *, at: tuple[int, int, int] = (8, 8, 8)) -> np.ndarray:
    """Return a label map with nested boxes of SNFH, ET and NETC."""
    label = np.zeros(SHAPE, np.uint8)
    for value, margin in ((2, 0), (3, 1), (1, 2)):
        label[tuple(slice(start + margin, start + size - margin) for start in at)] = value
    return label


def write_map(path: Path, label: np.ndarray, *, affine: np.ndarray = AFFINE) -> Path:
    """Write a label map, or an image of another kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, label, Grid.native(label.shape, affine))
    return path


def fake_run(
    output_dir: Path,
    stage: str,
    *,
    upstream: dict[str, list[Run]] | None = None,
    letter: str = "a",
    label: str | None = None,
    **record,
) -> Run:
    """Return a run that has begun."""
    name = label or stage
    folder = output_dir / "brats" / f"{name}-{letter * 10}"
    links = {key: [os.path.relpath(run.folder, folder) for run in runs] for key, runs in (upstream or {}).items()}
    values = {
        "identity": letter * 64,
        "stage": stage,
        "dataset": "brats",
        "label": name,
        "command": f"python -m medexp.run dataset=brats stage={stage}",
        "received": {},
        "config": {},
        "inputs": {},
        "upstream": links,
        "code_version": "0" * 64,
        "git": {"commit": "c0ffee" * 6, "branch": "main", "dirty": False},
        "versions": {"python": "3.11"},
        "machine": {"platform": "Linux"},
        "created": now(),
    }
    run = Run(folder, {**values, **record})
    run.begin()
    return run


def finish(run: Run, result: Result) -> Run:
    """Record what a run made, as a job does."""
    run.write_outputs(result.outputs, digest=result.digest, scores=dict(result.scores), lines=list(result.lines))
    run.end("finished")
    return run


def context_of(run: Run, **upstream: list[Run]) -> Context:
    """Return the context of a run whose tracker writes to its folder only."""
    settings = {"uri": None, "experiment": "test", "enabled": False, "strict": False, "flush_every_s": 1.0}
    return Context(run=run, tracker=Tracker(run, output_dir=run.folder.parents[1], **settings), upstream=upstream)


def evaluated(output_dir: Path, predictions: Path | None, references: Path | None, *, upstream=None, **changes) -> Run:
    """Return a finished evaluation."""
    run = fake_run(output_dir, "evaluate", upstream=upstream, letter="e")
    own = {"lesions": None} if changes.get("doses", NO_DOSES).structures else {}
    result = evaluate(
        predictions, references, **{**SETTINGS, **own, **changes}, context=context_of(run, **(upstream or {}))
    )
    return finish(run, result)


def reported(output_dir: Path, evaluation: Run, *, max_cases: int = 3, title: str = "test") -> str:
    """Return the page of a report on an evaluation."""
    run = fake_run(output_dir, "report", upstream={"evaluated": [evaluation]}, letter="f")
    result = report(title, max_cases, context=context_of(run, evaluated=[evaluation]))
    return finish(run, result).output("report").verified().read_text(encoding="utf-8")


def predicted(output_dir: Path, maps: dict[str, tuple[np.ndarray, np.ndarray | None]], **manifest) -> Run:
    """Return a finished stage=predict behind two trainings and a prepared cohort; `maps` are prediction and label."""
    raw = output_dir / "raw"
    prepared = fake_run(output_dir, "prepare", letter="b")
    trained: list[Run] = []
    for stage, letter in (("1", "c"), ("2", "d")):
        links = {"prepared": [prepared], **({"initial": trained[-1:]} if trained else {})}
        run = fake_run(output_dir, stage, upstream=links, letter=letter, label=f"{stage}-unet3d-fold0-seed0")
        history = [
            {
                "epoch": epoch,
                "step": epoch + 1,
                "train/loss": 1.0 - 0.1 * epoch,
                "lr": 0.01,
                "val/dice/mean": 0.1 * epoch,
            }
            for epoch in range(4)
        ]
        write_table(run.folder / "history.csv", history)
        trained.append(finish(run, Result(outputs={"history": run.folder / "history.csv"}, lines=("best of all",))))
    links = {"prepared": [prepared], "trained": trained[-1:]}
    run = fake_run(output_dir, "predict", upstream=links, letter="9", label="predict-unet3d-fold0-seed0")
    entries, cases = [], []
    for number, (case, (prediction, label)) in enumerate(maps.items()):
        path = write_map(run.folder / "predictions" / f"case{number}.nii.gz", prediction)
        image = write_map(raw / f"case{number}" / "t1c.nii.gz", np.full(SHAPE, 100, np.int16))
        reference = None if label is None else str(write_map(raw / f"case{number}" / "seg.nii.gz", label))
        relative = str(path.relative_to(run.folder))
        shared = {"case": case, "patient": f"patient of {case}"}
        entries.append({**shared, "prediction": relative, "sha256": sha256_of(path), "reference": reference})
        images = {"t1c": {"path": str(image), "sha256": sha256_of(image)}}
        cases.append({**shared, "role": "train", "images": images, "label": reference and {"path": reference}})
    content = {"dataset": "brats", "labels": LABELS, "cases": cases, "excluded": [], "digest": "d" * 64, **manifest}
    write_json(prepared.folder / "manifest.json", content)
    finish(prepared, Result(outputs={"manifest": prepared.folder / "manifest.json"}, digest="d" * 64))
    write_json(run.folder / "predictions.json", {"cases": entries})
    return finish(run, Result(outputs={"predictions": run.folder / "predictions.json"}))


def predicted_images(output_dir: Path, masks: dict[str, tuple[np.ndarray, np.ndarray | None]]) -> Run:
    """Return a finished stage=predict of images behind a prepared cohort; `masks` are prediction and reference."""
    raw = output_dir / "raw"
    prepared = fake_run(output_dir, "prepare", letter="b")
    run = fake_run(output_dir, "predict", upstream={"prepared": [prepared]}, letter="9")
    entries, cases = [], []
    for number, (case, (prediction, label)) in enumerate(masks.items()):
        path = write_mask(run.folder / "predictions" / f"{case}_pred_mask.tif", prediction)
        image = write_image(raw / "images" / f"{case}.tif", prediction if label is None else label, seed=number)
        reference = None if label is None else str(write_mask(raw / "masks" / f"{case}_mask.tif", label))
        shared = {"case": case, "patient": case}
        relative = str(path.relative_to(run.folder))
        images = {"gray": {"path": str(image), "sha256": sha256_of(image)}}
        entries.append({**shared, "prediction": relative, "sha256": sha256_of(path), "reference": reference})
        entries[-1]["images"] = {"gray": str(image)}
        cases.append({**shared, "role": "train", "images": images, "label": reference and {"path": reference}})
    content = {"dataset": "wells", "labels": {"spheroid": 1}, "cases": cases, "excluded": [], "digest": "d" * 64}
    write_json(prepared.folder / "manifest.json", content)
    finish(prepared, Result(outputs={"manifest": prepared.folder / "manifest.json"}, digest="d" * 64))
    write_json(run.folder / "predictions.json", {"cases": entries})
    return finish(run, Result(outputs={"predictions": run.folder / "predictions.json"}))

"""Best checkpoints -> predictions on the sources' native grids, in their native format."""

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medexp.errors import CheckpointMismatchError, CohortError, ConfigurationError
from medexp.inference.cleaning import Cleaning
from medexp.inference.decisions import AnyDecision, Dose, decision_from_json
from medexp.inference.devices import Accelerator, Precision, autocast_for, choose_device
from medexp.inference.dose_writers import DoseFiles
from medexp.inference.ensembling import Combination, average, combine
from medexp.inference.sliding_window import SlidingWindow
from medexp.io.prepared import MANIFEST, StoredCase
from medexp.networks.pretrained import load_all
from medexp.networks.weights import read_weights
from medexp.runs.files import read_json
from medexp.runs.ledger import Output, Run
from medexp.stages.context import Context, Result
from medexp.stages.prediction_journal import Journal
from medexp.stages.prediction_writers import writer_for
from medexp.stages.threads import arithmetic_threads
from medexp.transforms.dose_augmentation import LEFT_RIGHT
from medexp.types import Count, Index, Share

log = logging.getLogger(__name__)

VALIDATION, OUT_OF_FOLD = "validation", "out_of_fold"

_LISTED = 20
# What models must agree on to be averaged; a kind of model has some of these.
_SHARED = ("channels", "labels", "patch_size", "plan", "prescription_gy", "distance_clip_mm", "diffusion")


@dataclass(frozen=True, eq=False)
class _Member:
    """One trained model and the data as it saw them: its fold's training cases normalize CT."""

    model: Any
    checkpoint: Output
    inputs: Callable[[StoredCase], Mapping[str, Tensor]]
    held_out: tuple[StoredCase, ...]
    flip_axes: tuple[int, ...]


def predict(
    datamodule: Any,
    model: Callable[..., Any],
    *,
    source: str,
    fold: Index,
    window: SlidingWindow,
    flips: bool,
    cleaning: Cleaning,
    doses: DoseFiles,
    save_probabilities: bool,
    accelerator: Accelerator,
    precision: Precision,
    num_workers: Index | None,
    threads: Count | None = None,
    context: Context,
    tile: Sequence[Count] | None = None,
    threshold: Share | None = None,
    combination: Combination = "average",
    sampling_steps: Count | None = None,
    noise_seed: Index | None = None,
) -> Result:
    """Predict every case of `source` and write predictions.json beside the folder of predictions.

    Several trained runs make an ensemble; with `out_of_fold` each predicts only the cases that it validated on, which
    together are the cohort. What decides, and how large windows are, is read from the checkpoints. An interrupted
    prediction goes on after the last case that was written by the same checkpoints.

    Args:
        datamodule: Is opened on the upstream run `prepared`.
        model: Completed here with the dataset's contract; its weights are those of the upstream runs `trained`.
        source: "validation", "test", "out_of_fold", or a folder in the dataset's raw layout; images need no masks.
        fold: Whose validation cases.
        window: Covers whole volumes.
        flips: Average over the copies that are mirrored along the axes along which training mirrored.
        cleaning: What is done to masks of images.
        doses: The files of a predicted dose.
        save_probabilities: Write them too, on the native grid; float16 for volumes, float32 for images.
        accelerator: Where to run.
        precision: How precisely.
        num_workers: Processes that store unseen cases.
        threads: Of arithmetic on the processor; None: one per core.
        context: The run.
        tile: Size of the windows; None: that of the patches that the models were trained on.
        threshold: Of the probability, where there is one output; None: the models'.
        combination: How an ensemble comes to one opinion; doses are averaged.
        sampling_steps: Of a diffusion model; None: as many as in validation.
        noise_seed: Of the noise that a diffusion model starts from; None: as in validation.

    Raises:
        CheckpointMismatchError: A checkpoint has changed since it was recorded, or models do not fit together.
        CohortError: `source` has no cases.
        ConfigurationError: The validation cases of one fold would be predicted by a model that trained on them, or
            mirrored copies are asked of a model that was never shown any, or a setting means nothing to the model.
        StorageError: A prediction cannot be written; earlier ones are untouched.
    """
    trained = context.upstream["trained"]
    _refuse_seen(trained, source, fold)
    device = choose_device(accelerator)
    prepared = context.upstream["prepared"][0].folder
    members = [_load(run, datamodule, model, prepared, fold, num_workers, device, flips=flips) for run in trained]
    for member in members:
        member.model.set_sampling(steps=sampling_steps, seed=noise_seed)
    decision = members[0].model.decision if threshold is None else members[0].model.decision.at(threshold)
    settings = {
        "checkpoints": [member.checkpoint.sha256 for member in members],
        "overlap": window.overlap,
        "flips": flips,
        "tile": list(members[0].model.contract.patch_size if tile is None else tile),
        **members[0].model.sampling,
    }
    write = writer_for(
        decision,
        cleaning=cleaning,
        save_probabilities=save_probabilities,
        doses=doses,
        window=window,
        combination=combination,
        settings=settings,
    )
    datamodule.open(prepared, fold=fold, num_workers=num_workers)
    by_case = _held_out(members) if source == OUT_OF_FOLD else [(case, members) for case in datamodule.cases(source)]
    if not by_case:
        raise CohortError(f"predict.source={source}: expected cases to predict, got none: name another source")
    journal = Journal(context, [member.checkpoint for member in members])
    with torch.inference_mode(), autocast_for(precision, device), arithmetic_threads(threads):
        for number, (case, own) in enumerate(by_case, start=1):
            if journal.holds(case.case):
                continue
            parts = (
                member.model.infer(
                    _on(device, member.inputs(case)), window=window, flip_axes=member.flip_axes, tile=tile
                )
                for member in own
            )
            joined, deciding = (next(parts), decision) if len(own) == 1 else _combined(parts, decision, combination)
            journal.note(case.case, write(journal.folder, case, joined, deciding))
            log.info("predicted %d of %d: %s", number, len(by_case), case.case)
    cases = [case for case, _ in by_case]
    return journal.result(cases, source, not_predicted=_left_out(prepared, cases) if source == OUT_OF_FOLD else ())


def _on(device: torch.device, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in inputs.items()}


def _combined(parts: Iterable[Tensor], decision: AnyDecision, combination: Combination) -> tuple[Tensor, AnyDecision]:
    return (average(parts), decision) if isinstance(decision, Dose) else combine(parts, decision, combination)


def _held_out(members: Sequence[_Member]) -> list[tuple[StoredCase, list[_Member]]]:
    """Return every validation case of the members' folds with those that did not train on it, sorted by name."""
    found: dict[str, tuple[StoredCase, list[_Member]]] = {}
    for member in members:
        for case in member.held_out:
            found.setdefault(case.case, (case, []))[1].append(member)
    return [found[name] for name in sorted(found)]


def _left_out(prepared: Path, cases: Sequence[StoredCase]) -> list[str]:
    """Return the training cases of the cohort that no member's fold validates, and say so."""
    predicted = {case.case for case in cases}
    entries = read_json(prepared / MANIFEST)["cases"]
    left_out = [str(one["case"]) for one in entries if one["role"] == "train" and str(one["case"]) not in predicted]
    if left_out:
        listing = ", ".join(left_out[:_LISTED]) + (" ..." if len(left_out) > _LISTED else "")
        log.warning(
            "%d training cases are in no fold that was asked for, and not predicted: %s", len(left_out), listing
        )
    return left_out


def _load(
    run: Run,
    datamodule: Any,
    model: Callable[..., Any],
    prepared: Path,
    fold: int,
    num_workers: int | None,
    device: torch.device,
    *,
    flips: bool,
) -> _Member:
    flip_axes = _flip_axes(run) if flips else ()
    checkpoint = run.output("best")
    weights = read_weights(checkpoint.path, sha256=checkpoint.sha256)
    opened = copy.copy(datamodule)
    opened.open(prepared, fold=_fold_of(run, fold), num_workers=num_workers)
    module = model(contract=opened.contract, weights=None)
    _require_same_contract(dict(weights.contract or {}), dict(module.hparams["contract"]), checkpoint.path)
    load_all(module, weights)
    module.decision = decision_from_json((weights.contract or {}).get("decision"))
    return _Member(module.eval().to(device), checkpoint, opened.inputs, tuple(opened.cases(VALIDATION)), flip_axes)


def _flip_axes(run: Run) -> tuple[int, ...]:
    """Return the axes along which the run's training mirrored its patches."""
    augmentation = run.record["received"]["datamodule"]["augmentation"]
    axes = tuple(int(axis) for axis in augmentation.get("flip_axes", ()))
    if float(augmentation.get("flip_probability", 0.0)) > 0.0:  # patients are mirrored in one way only
        axes = (LEFT_RIGHT,)
    if not axes:
        message = "predict.flips=true: expected a model that was trained on mirrored patches (flip_axes), got none in"
        raise ConfigurationError(f"{message} {run.folder.name}: leave predict.flips out")
    return axes


def _fold_of(run: Run, fold: int) -> int:
    return int(run.record.get("received", {}).get("fold", fold))


def _require_same_contract(trained: dict[str, Any], given: dict[str, Any], path: Path) -> None:
    differing = [key for key in _SHARED if trained.get(key) != given.get(key)]
    if differing:
        values = "; ".join(f"{key}: {trained.get(key)} there, {given.get(key)} here" for key in differing)
        raise CheckpointMismatchError(
            f"{path}: expected a model trained on data of this dataset's contract, got another one ({values}): "
            f"compose the dataset as it was for training, or train again"
        )


def _refuse_seen(trained: Sequence[Run], source: str, fold: int) -> None:
    strangers = sorted({_fold_of(run, fold) for run in trained} - {fold})
    if source == VALIDATION and strangers:
        raise ConfigurationError(
            f"predict.folds: expected [{fold}] with predict.source=validation, got models of the folds {strangers}, "
            f"which trained on these cases: predict the test set, a folder or out_of_fold, or one fold at a time"
        )

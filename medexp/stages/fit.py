"""Train one stage of a model's curriculum: prepared cases -> best and last checkpoint, history."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from medexp.callbacks.checkpoint_files import AtomicCheckpointIO, forget_after, loader_states, newest_valid, step_of
from medexp.callbacks.checkpoints import BestCheckpoints, LastCheckpoint
from medexp.callbacks.interruption import EXIT_KEYBOARD, Interruption
from medexp.callbacks.randomness import PureRandomness, seed_everything
from medexp.callbacks.recorder import Recorder
from medexp.callbacks.resources import LoaderWait
from medexp.errors import CohortError, ConfigurationError, ResumeError
from medexp.io.prepared import MANIFEST, SPLITS
from medexp.runs.files import read_json
from medexp.runs.identity import identity_of
from medexp.runs.ledger import Run
from medexp.stages.context import Context, Result
from medexp.stages.hand_over import source_of, take_over
from medexp.stages.pretraining import require_unseen
from medexp.stages.ranks import OneMachine, all_ranks
from medexp.stages.threads import arithmetic_threads
from medexp.types import Count, Index

log = logging.getLogger(__name__)

_FAMILIES = {"dice": "Dice", "mae_gy": "mean absolute error in Gy"}
_EXPECTED_WARNINGS = (
    r".*does not have many workers",  # the loader has the workers that were asked for
    r"Found \d+ module\(s\) in eval mode",  # frozen parts are meant to be
    r".*`srun` command is available",  # jobs reach Slurm through hardware=slurm
    r"It is recommended to use `self.log\('val/",  # every rank has seen all cases
    r".*LeafSpec.* is deprecated",  # Lightning 2.6.6 with torch 2.13 and later
)


def fit(
    datamodule: Any,
    model: Callable[..., LightningModule],
    *,
    trainer: Callable[..., Trainer],
    callbacks: Mapping[str, Callback],
    curriculum: str,
    fold: Index,
    seed: Index,
    num_workers: Index | None,
    threads: Count | None = None,
    context: Context,
) -> Result:
    """Train and return the best and the last checkpoint, the history and the best score.

    Everything that is drawn at random follows from `seed`. An interrupted run goes on from its newest intact
    checkpoint and ends with the same bits as one that was never interrupted (on the same device type).

    Args:
        datamodule: Is opened on the upstream run `prepared`.
        model: Completed here with the dataset's contract and the phase. A second stage starts from the
            upstream run `initial`, a first one from what the model's own `weights` say.
        trainer: Completed here with callbacks and files.
        callbacks: By name; a name set to null is left out.
        curriculum: The phase's name.
        fold: Which fold validates.
        seed: Of initial weights, order, augmentation and dropout.
        num_workers: Loader processes; None: the datamodule chooses.
        threads: Of arithmetic on the processor; None: one per core.
        context: The run.

    Raises:
        CohortError: The fold has no training or no validation cases.
        LeakageError: The initial weights were trained on a case that this run is judged by.
        ConfigurationError: Nothing would be validated.
        ResumeError: `resume=require`, and there is no checkpoint to go on from.
        CheckpointMismatchError: It is damaged, and so are the others (`resume=require`: the newest).
        RankDiedError: One of several processes that train together died.
        SystemExit: The run was asked to end by SIGTERM (143); the current step is saved.
        KeyboardInterrupt: The same by Ctrl-C.
    """
    started_s = time.monotonic()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it advertises and repeats itself otherwise
    seed_everything(seed, "data")
    datamodule.open(context.upstream["prepared"][0].folder, fold=fold, seed=seed, num_workers=num_workers)
    train, validation = datamodule.train_dataloader(), datamodule.val_dataloader()
    _refuse_empty(len(train), len(validation), fold)
    require_unseen(context, fold=fold)

    start = _find_start(context)
    module, lines = _build_model(model, datamodule.contract, curriculum, seed, context, start)
    recorder = Recorder(context.tracker, folder=context.run.folder)
    machine = OneMachine(context.member)
    built = _build_trainer(trainer, callbacks, seed, recorder, context.run.folder, machine)
    _describe(module, context)

    seed_everything(seed, "training")
    if built.overfit_batches:  # type: ignore[attr-defined] # set by Lightning
        train.repeat_first_epoch()
    if start is not None:
        # Lightning 2.6.6 restores a loader in the middle of an epoch, but not between two.
        for state in loader_states(start.path):
            train.load_state_dict(state)
    checkpoint = None if start is None else str(start.path)
    with _without_expected_warnings(), arithmetic_threads(threads):
        try:
            with all_ranks(built, context, machine.main_port, None if start is None else start.path):
                built.fit(module, train, validation, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as error:
            if error.code == EXIT_KEYBOARD:  # Lightning would have turned a KeyboardInterrupt into an exit with 1
                raise KeyboardInterrupt from error
            raise
    return _result(built, context, lines, time.monotonic() - started_s)


@contextmanager
def _without_expected_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for known in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=known)
        yield


def _refuse_empty(num_train: int, num_validation: int, fold: int) -> None:
    for name, number in (("training", num_train), ("validation", num_validation)):
        if number == 0:
            message = f"fold={fold}: expected {name} batches, got none; prepare more cases, or lower"
            raise CohortError(f"{message} dataset.num_folds or dataset.batch_size")


@dataclass(frozen=True)
class _Start:
    """The checkpoint that an interrupted run goes on from."""

    path: Path
    step: int


def _find_start(context: Context) -> _Start | None:
    if not context.resume:
        return None
    folder = context.run.folder / "checkpoints"
    if context.member is not None:  # the leader has chosen and tidied up
        chosen = context.member.resumes_from()
        return None if chosen is None else _Start(chosen, step_of(chosen))
    path = newest_valid(folder, strict=context.require)
    if path is None and context.require:
        message = f"resume=require: expected a checkpoint in {folder}, found none"
        raise ResumeError(f"{message}; resume=auto starts at step 1")
    step = 0 if path is None else step_of(path)
    forget_after(folder, step)
    repeated = context.tracker.rewind(step)
    if path is None:
        log.info("resume: no checkpoint was written before the interruption; training starts at step 1")
        return None
    log.info("resume: %d steps recovered from %s; %d logged lines are made again", step, path.name, repeated)
    return _Start(path, step)


def _build_model(
    model: Callable[..., LightningModule],
    contract: object,
    phase: str,
    seed: int,
    context: Context,
    start: _Start | None,
) -> tuple[LightningModule, list[str]]:
    """Return the model with its initial weights, and a line for each proof of what was loaded."""
    seed_everything(seed, "weights")
    initial = context.upstream.get("initial", [])
    if start is not None:
        lines = [*map(source_of, initial), f"resumed at step {start.step}"]
        return model(contract=contract, phase=phase, weights=None), lines
    if not initial:
        module = model(contract=contract, phase=phase)
        line = getattr(module, "weights_report", None)
        return module, [str(line)] if line else []
    module = model(contract=contract, phase=phase, weights=None)
    line = take_over(module, initial[0])  # logs what was loaded; the line stands in the run's result
    context.tracker.set_tags({"medexp.initial_weights_sha256": initial[0].output("best").sha256})
    return module, [line]


def _build_trainer(
    trainer: Callable[..., Trainer],
    callbacks: Mapping[str, Callback],
    seed: int,
    recorder: Recorder,
    folder: Path,
    machine: OneMachine,
) -> Trainer:
    configured = [callback for callback in callbacks.values() if callback is not None]
    last = next((callback for callback in configured if isinstance(callback, LastCheckpoint)), None)
    # Lightning moves checkpoints to the end in this order, so lines are written before a step is saved.
    build = partial(
        trainer,
        callbacks=[PureRandomness(seed), *configured, recorder, Interruption(last)],
        plugins=[AtomicCheckpointIO(), machine],
        default_root_dir=folder,
        logger=False,
        profiler=LoaderWait(),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    with _without_expected_warnings():
        built = build()
    every, epochs = built.check_val_every_n_epoch, built.max_epochs
    if every is not None and epochs is not None and every > epochs > 0:
        message = "trainer.check_val_every_n_epoch=%d is more than max_epochs=%d: the last one is validated"
        log.warning(message, every, epochs)
        built.check_val_every_n_epoch = epochs
    return built


def _describe(module: LightningModule, context: Context) -> None:
    weights = list(module.parameters())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    context.tracker.log_params({"parameters": sum(weight.numel() for weight in weights), "parameters_trained": trained})
    context.tracker.set_tags(_data_tags(context.upstream["prepared"][0]))


def _data_tags(prepared: Run) -> dict[str, str]:
    """Return which data these are, in the words of stage=prepare."""
    tags = {"medexp.prepared": prepared.name, "medexp.prepared_digest": str(prepared.digest)}
    if (prepared.folder / MANIFEST).exists():
        tags["medexp.dataset_digest"] = str(read_json(prepared.folder / MANIFEST)["digest"])
    if (prepared.folder / SPLITS).exists():
        tags["medexp.splits_sha256"] = identity_of({"splits": read_json(prepared.folder / SPLITS)})
    return tags


def _result(trainer: Trainer, context: Context, lines: list[str], elapsed_s: float) -> Result:
    folder = context.run.folder / "checkpoints"
    present: list[Callback] = trainer.callbacks  # type: ignore[attr-defined] # set by Lightning
    ranking = next((callback for callback in present if isinstance(callback, BestCheckpoints)), None)
    if ranking is None or ranking.best is None:
        message = "expected at least one validation, got none: callbacks.best is off or trainer.limit_val_batches is 0"
        raise ConfigurationError(message)
    value, step, epoch = ranking.best
    recorder = next(callback for callback in present if isinstance(callback, Recorder))
    scores = recorder.scores_at(step)
    outputs = {
        "best": folder / "best.ckpt",
        "last": folder / "last.ckpt",
        "history": context.run.folder / "history.csv",
    }
    outputs = {name: path for name, path in outputs.items() if path.exists()}
    context.tracker.set_tags({"medexp.best_epoch": epoch, "medexp.best_step": step})
    family = ranking.monitor.split("/")[1] if "/" in ranking.monitor else ranking.monitor
    prefix = f"val/{family}/"
    parts = {name.removeprefix(prefix): score for name, score in scores.items() if name.startswith(prefix)}
    by_part = "  ".join(f"{name} {score:.4f}" for name, score in parts.items())
    summary = (
        *lines,
        f"best {ranking.monitor} {value:.4f} after epoch {epoch + 1} of {trainer.current_epoch}, step {step}",
        *([f"{_FAMILIES.get(family, family)}: {by_part}"] if by_part else []),
        f"trained in {elapsed_s:.0f} s; checkpoints and history.csv in {context.run.folder}",
    )
    return Result(outputs=outputs, objective=value, scores=scores, lines=summary)

"""One job: a composed stage, from its address in the ledger to its final state."""

import logging
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from medexp.composition.build import instantiate
from medexp.composition.composer import resolved_stage
from medexp.composition.recipes import recipe_of
from medexp.errors import MedexpError
from medexp.runs.ledger import Run
from medexp.runs.lineage import Action, Addressed, Recipe, address, open_run, weights_of
from medexp.runs.members import Member
from medexp.sweeps.logs import log_to_console, log_to_file
from medexp.sweeps.membership import arguments_of, member_context
from medexp.sweeps.slurm_queue import refuse_outside_queue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medexp.stages.context import Context, Result
    from medexp.tracking import Tracker

log = logging.getLogger(__name__)

EXIT_TERMINATED = 143


@dataclass(frozen=True)
class Outcome:
    """How a job ended. As a number it is its objective, which is what hyper-parameter search asks for."""

    state: str
    folder: str
    objective: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    reused: bool = False
    elapsed_s: float = 0.0

    def __float__(self) -> float:
        return float("nan") if self.objective is None else float(self.objective)


def run_composed(config: DictConfig, recipe: Recipe | None = None) -> Outcome:
    """Run the stage of a configuration that Hydra has composed for this process.

    `recipe` is the configuration's, where the sweep's process knows it already.
    """
    log_to_console()
    refuse_outside_queue(HydraConfig.get())
    return run_job(config, composed_here(config) if recipe is None else recipe)


def composed_here(config: DictConfig) -> Recipe:
    """Return the recipe of the configuration that Hydra has composed for this process."""
    hydra_config = HydraConfig.get()
    overrides, choices = list(hydra_config.overrides.task), dict(hydra_config.runtime.choices)
    return recipe_of(config, overrides, choices, config_dirs=config_dirs_of(hydra_config))


def config_dirs_of(hydra_config: Any) -> list[Path]:
    """Return the folders that were given with `--config-dir`."""
    sources = hydra_config.runtime.config_sources
    return [Path(source.path) for source in sources if source.provider == "command-line"]


def run_job(config: DictConfig, recipe: Recipe) -> Outcome:
    """Find or start the run that the configuration addresses, and bring it to its end.

    Raises:
        MedexpError: Whatever the stage refuses; the ledger then says `failed` with the reason.
    """
    output_dir = Path(config.output_dir).absolute()
    addressed = address(recipe, output_dir)
    if (member := Member.of_environment()) is not None:
        return _take_part(config, addressed, member)
    run, action = open_run(addressed, output_dir, resume=config.resume, run_id=config.run)
    if action is Action.REUSE:
        return _reused(run)
    run.begin()
    with log_to_file(run.folder / "log.txt"), _recorded(run):
        return _executed(config, addressed, run, resume=action is Action.CONTINUE)


def _take_part(config: DictConfig, addressed: Addressed, member: Member) -> Outcome:
    """Train with the process that holds the run; everything that is recorded, it records."""
    member.end_with_leader()
    result = _call_stage(config, member_context(config, addressed, member))
    return Outcome("finished", member.folder, result.objective, result.scores)


def _executed(config: DictConfig, addressed: Addressed, run: Run, *, resume: bool) -> Outcome:
    started = time.monotonic()
    log.info("%s: %s", "continues" if resume else "starts", run.folder)
    with _tracked(config, addressed, run) as tracker:
        result = _call_stage(config, _context(config, addressed, run, tracker, resume=resume))
        elapsed_s = time.monotonic() - started
        details = {"scores": dict(result.scores), "objective": result.objective, "lines": list(result.lines)}
        details["places"] = [str(place) for place in result.places]
        run.write_outputs(result.outputs, digest=result.digest, elapsed_s=elapsed_s, **details)
        tracker.set_tags({f"sha256.{name}": output.sha256 for name, output in run.outputs().items()})
        tracker.set_tags({"digest": run.digest})
    run.end("finished", elapsed_s=elapsed_s)
    outcome = Outcome("finished", str(run.folder), result.objective, result.scores, result.lines, elapsed_s=elapsed_s)
    _say(outcome)
    return outcome


def _context(config: DictConfig, addressed: Addressed, run: Run, tracker: "Tracker", *, resume: bool) -> "Context":
    from medexp.stages.context import Context

    return Context(
        run=run,
        tracker=tracker,
        upstream=addressed.upstream,
        resume=resume,
        require=config.resume == "require",
        command=addressed.recipe.command,
        arguments=arguments_of(addressed.recipe),
        output_dir=Path(config.output_dir).absolute(),
    )


def _call_stage(config: DictConfig, context: "Context") -> "Result":
    call = resolved_stage(config)["call"]
    if isinstance(call.get("model"), dict) and call["model"].get("weights") is not None:
        call["model"]["weights"], _ = weights_of(str(call["model"]["weights"]), context.output_dir)
    stage = instantiate(call, key="stage.call")
    return stage(context=context)


@contextmanager
def _tracked(config: DictConfig, addressed: Addressed, run: Run) -> "Iterator[Tracker]":
    """Show the run in MLflow, and how it ended."""
    from medexp.tracking import Tracker

    tracker = Tracker(
        run,
        output_dir=Path(config.output_dir).absolute(),
        experiment=str(config.name),
        tags={**addressed.recipe.tags, **{f"tag.{tag}": "true" for tag in addressed.recipe.user_tags}},
        **dict(config.tracking),
    )
    tracker.log_params(addressed.recipe.received)
    tracker.log_artifact(run.folder / "run.json")
    try:
        yield tracker
    except BaseException as error:
        tracker.finish("KILLED" if _was_stopped(error) else "FAILED")
        raise
    tracker.finish("FINISHED")


def outcome_of(run: Run, *, reused: bool) -> Outcome:
    """Return the outcome of a finished run, as its folder records it."""
    result = run.result
    lines, elapsed_s = tuple(result["lines"]), float(result.get("elapsed_s", 0.0))
    return Outcome("finished", str(run.folder), result.get("objective"), result["scores"], lines, reused, elapsed_s)


def _reused(run: Run) -> Outcome:
    outcome = outcome_of(run, reused=True)
    log.info("finished before, nothing to do (resume=never starts over): %s", run.folder)
    _say(outcome)
    return outcome


def _say(outcome: Outcome) -> None:
    for line in outcome.lines:
        log.info(line)
    log.info("in %s", outcome.folder)


@contextmanager
def _recorded(run: Run) -> "Iterator[None]":
    """Write how the run ended, whatever happens; a kill is found by its lock."""
    try:
        yield
    except BaseException as error:
        log.log(logging.INFO if isinstance(error, MedexpError) else logging.ERROR, "%s", error, exc_info=error)
        state = "interrupted" if _was_stopped(error) else "failed"
        run.end(state, reason=f"{type(error).__name__}: {error}")
        raise


def _was_stopped(error: BaseException) -> bool:
    """Say whether somebody ended the run, by the keyboard or by SIGTERM."""
    left = isinstance(error, SystemExit) and error.code == EXIT_TERMINATED
    return left or isinstance(error, KeyboardInterrupt)

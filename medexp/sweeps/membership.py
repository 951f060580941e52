"""A process that trains as a further rank of a run which another process holds and records."""

from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from medexp.errors import ResumeError
from medexp.runs.ledger import Run
from medexp.runs.lineage import Addressed, Recipe
from medexp.runs.members import Member

if TYPE_CHECKING:
    from medexp.stages.context import Context


def arguments_of(recipe: Recipe) -> tuple[str, ...]:
    """Return the words after `python -m medexp.run` with which another process joins the run of this one."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    folders = [source.path for source in sources if source.provider == "command-line"]
    return (*recipe.overrides, *(word for folder in folders for word in ("--config-dir", str(folder))))


def member_context(config: DictConfig, addressed: Addressed, member: Member) -> "Context":
    """Return what a member's stage gets: the leader's run, and a tracker that stays silent.

    Raises:
        ResumeError: This process has composed another configuration than the leader.
    """
    from medexp.stages.context import Context
    from medexp.tracking.silent import SilentTracker

    run = Run.read(Path(member.folder))
    if run.identity != addressed.identity:
        message = f"rank {member.rank}: expected the configuration of {run.folder}, got another one"
        raise ResumeError(f"{message}: conf/ or the raw data changed while it started; run the same command again")
    return Context(
        run=run,
        tracker=SilentTracker(),
        upstream=addressed.upstream,
        resume=True,
        output_dir=Path(config.output_dir).absolute(),
        member=member,
    )

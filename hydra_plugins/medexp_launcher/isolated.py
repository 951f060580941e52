"""Hydra's way to `medexp.sweeps.isolated`: choose it with hydra/launcher=isolated."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from medexp.types import Amount, Count, Index, Positive

if TYPE_CHECKING:
    from medexp.runs.lineage import Recipe
    from medexp.sweeps.isolated import Events
    from medexp.sweeps.plan import SweepJob
    from medexp.sweeps.worker import Job


@dataclass
class IsolatedLauncherConf:
    """Configuration of the launcher; interpolations point at `sweep` in conf/config.yaml."""

    _target_: str = "hydra_plugins.medexp_launcher.isolated.IsolatedLauncher"
    max_parallel: Any = "${sweep.max_parallel}"
    fail_fast: Any = "${sweep.fail_fast}"
    retry: Any = "${sweep.retry}"
    timeout_s: Any = "${sweep.timeout_s}"
    grace_s: Any = "${sweep.grace_s}"
    gpus: Any = "${sweep.gpus}"


class IsolatedLauncher(Launcher):
    """One fresh process per job, from a warm fork server."""

    def __init__(
        self,
        max_parallel: Count,
        fail_fast: bool,  # noqa: FBT001 - built from YAML by name
        retry: Index,
        timeout_s: Positive | None,
        grace_s: Amount,
        gpus: Any,
    ) -> None:
        from medexp.sweeps.isolated import Limits

        self.limits = Limits(
            max_parallel=int(max_parallel),
            fail_fast=bool(fail_fast),
            retry=int(retry),
            timeout_s=None if timeout_s is None else float(timeout_s),
            grace_s=float(grace_s),
        )
        self.gpus: Any = OmegaConf.to_container(gpus) if OmegaConf.is_config(gpus) else gpus

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what `launch` needs; the slots are known from here on."""
        from dataclasses import replace

        from medexp.sweeps.slots import slots_of

        self.limits = replace(self.limits, slots=tuple(slots_of(self.gpus)))
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.name = f"search-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs for another sweeper, a search for instance, and return how each ended, in order."""
        from medexp.composition.recipes import composed_recipe
        from medexp.sweeps.isolated import run_isolated
        from medexp.sweeps.job import config_dirs_of
        from medexp.sweeps.preload import announce

        config_dirs = tuple(config_dirs_of(self.config.hydra))
        recipes = [composed_recipe(tuple(overrides), config_dirs) for overrides in job_overrides]
        announce(recipes, is_tracked=bool(self.config.tracking.enabled))
        jobs = [
            partial(self._composed, number, tuple(overrides), self._log_path(number), {}, recipe)
            for number, (overrides, recipe) in enumerate(
                zip(job_overrides, recipes, strict=True), start=initial_job_idx
            )
        ]
        return run_isolated(jobs, limits=self.limits)

    def _log_path(self, number: int) -> Path | None:
        """Return where a search's job writes; one at a time they share the terminal."""
        if self.limits.max_parallel == 1:
            return None
        return Path(self.config.output_dir).absolute() / "sweeps" / self.name / f"{number:03d}.log"

    def supervise(
        self,
        jobs: Sequence["SweepJob"],
        *,
        events: "Events",
        log_path: Callable[["SweepJob"], Path],
        environment: Mapping[str, str],
    ) -> list[JobReturn]:
        """Run the jobs of a sweep, each composed when its turn has come, and return how each ended, in order."""
        from medexp.sweeps.isolated import run_isolated

        composers = [
            partial(self._composed, job.number, tuple(job.overrides), log_path(job), environment, job.recipe)
            for job in jobs
        ]
        return run_isolated(composers, limits=self.limits, events=events)

    def _composed(
        self,
        number: int,
        overrides: tuple[str, ...],
        log_path: Path | None,
        environment: Mapping[str, str],
        recipe: "Recipe | None",
    ) -> "Job":
        from medexp.sweeps.worker import Job

        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        given: Any = self.task_function  # medexp.run.task, which takes the recipe where it is known
        task = given if recipe is None else partial(given, recipe=recipe)
        return Job(number, config, overrides, task, log_path, environment)


ConfigStore.instance().store(
    group="hydra/launcher", name="isolated", node=IsolatedLauncherConf, provider="medexp_launcher"
)

"""Hydra's way to `medexp.sweeps.isolated`: choose it with hydra/launcher=isolated."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from medexp.types import Count


@dataclass
class IsolatedLauncherConf:
    """Configuration of the launcher; interpolations point at `sweep` in conf/config.yaml."""

    _target_: str = "hydra_plugins.medexp_launcher.isolated.IsolatedLauncher"
    max_parallel: str = "${sweep.max_parallel}"
    fail_fast: str = "${sweep.fail_fast}"


class IsolatedLauncher(Launcher):
    """One fresh process per job, from a warm fork server."""

    def __init__(self, max_parallel: Count, fail_fast: bool) -> None:  # noqa: FBT001 - built from YAML by name
        self.max_parallel = int(max_parallel)
        self.fail_fast = bool(fail_fast)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what `launch` needs."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.name = f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return how each ended, in order."""
        from medexp.sweeps.isolated import Job, run_isolated
        from medexp.sweeps.preload import modules_of

        # One job at a time writes to the terminal; several at once would write over each other.
        logs = Path(self.config.output_dir).absolute() / "sweeps" / self.name if self.max_parallel > 1 else None
        jobs = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            path = logs / f"{number}-stage-{config.hydra.runtime.choices.stage}.log" if logs else None
            jobs.append(Job(number, config, tuple(overrides), path))
        preload = {name for job in jobs for name in modules_of(job.config)}
        return run_isolated(
            jobs, self.task_function, max_parallel=self.max_parallel, preload=preload, fail_fast=self.fail_fast
        )


ConfigStore.instance().store(
    group="hydra/launcher", name="isolated", node=IsolatedLauncherConf, provider="medexp_launcher"
)

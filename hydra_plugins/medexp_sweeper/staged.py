"""Hydra's way to `medexp.sweeps.staged`: choose it with hydra/sweeper=staged."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class StagedSweeperConf:
    """Configuration of the sweeper; `params` are choices that the command line may replace."""

    _target_: str = "hydra_plugins.medexp_sweeper.staged.StagedSweeper"
    params: dict[str, str] = field(default_factory=dict)


class StagedSweeper(Sweeper):
    """Every combination of the choices, in the order of the stages."""

    def __init__(self, params: dict[str, str] | None) -> None:
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Build the launcher."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Run the sweep; raises SweepFailedError if a job did not finish."""
        from medexp.runs.lineage import command_line
        from medexp.sweeps.job import config_dirs_of
        from medexp.sweeps.plan import plan
        from medexp.sweeps.staged import Settings, run_sweep

        config: Any = self.config
        # `params` are read from the composed configuration, where the command line has already replaced some.
        assert self.launcher is not None, "Hydra calls setup first"
        settings = Settings(
            title=str(config.name),
            output_dir=Path(config.output_dir).absolute(),
            command=command_line(arguments, "-m"),
            fail_fast=bool(config.sweep.fail_fast),
            retry=int(config.sweep.retry),
            tracking=dict(config.tracking),
        )
        return run_sweep(plan(arguments, config_dirs_of(config.hydra)), self.launcher, settings)


ConfigStore.instance().store(group="hydra/sweeper", name="staged", node=StagedSweeperConf, provider="medexp_sweeper")

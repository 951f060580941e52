"""Hydra's way to `medexp.sweeps.slurm`: choose it with hardware=slurm."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from medexp.types import Count, Index


@dataclass
class SlurmLauncherConf:
    """Configuration of the launcher; interpolations point at conf/hardware/slurm.yaml."""

    _target_: str = "hydra_plugins.medexp_launcher.slurm.SlurmLauncher"
    partition: Any = "${hardware.partition}"
    account: Any = "${hardware.account}"
    qos: Any = "${hardware.qos}"
    constraint: Any = "${hardware.constraint}"
    exclude: Any = "${hardware.exclude}"
    time_min: Any = "${hardware.time_min}"
    memory_gb: Any = "${hardware.memory_gb}"
    cpus: Any = "${hardware.cpus}"
    gpus: Any = "${hardware.gpus}"
    jobs_at_once: Any = "${hardware.jobs_at_once}"
    warn_s: Any = "${hardware.warn_s}"
    requeues: Any = "${hardware.requeues}"


class SlurmLauncher(Launcher):
    """One Slurm job per job of the sweep."""

    def __init__(
        self,
        partition: str | None,
        account: str | None,
        qos: str | None,
        constraint: str | None,
        exclude: str | None,
        time_min: Count,
        memory_gb: Count | None,
        cpus: Count | None,
        gpus: Index,
        jobs_at_once: Count,
        warn_s: Count,
        requeues: Index,
    ) -> None:
        self.parameters = {
            "slurm_partition": partition,
            "slurm_account": account,
            "slurm_qos": qos,
            "slurm_constraint": constraint,
            "slurm_exclude": exclude,
            "timeout_min": time_min,
            "mem_gb": memory_gb,
            "cpus_per_task": cpus,
            "gpus_per_node": gpus or None,
            "slurm_array_parallelism": jobs_at_once,
            "slurm_signal_delay_s": warn_s,
        }
        self.requeues = requeues

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what `launch` needs."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit the jobs, wait for them and return how each ended, in order."""
        from medexp.sweeps.slurm import run_on_slurm
        from medexp.sweeps.slurm_node import NodeJob

        jobs = [
            NodeJob(
                hydra_context=self.hydra_context,
                config=self.config,
                task=self.task_function,
                overrides=tuple(overrides),
                number=number,
                requeues=self.requeues,
                singletons=Singleton.get_state(),
            )
            for number, overrides in enumerate(job_overrides, start=initial_job_idx)
        ]
        output_dir = Path(self.config.output_dir).absolute()
        return run_on_slurm(jobs, parameters=self.parameters, output_dir=output_dir)


ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmLauncherConf, provider="medexp_launcher")

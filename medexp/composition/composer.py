"""Composes configurations and checks them whole, before anything heavy is imported and before Hydra acts on them.

Neither Hydra's global state nor the file system is touched, so this works inside `@hydra.main`, outside of it, and in
a notebook.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from medexp.composition.families import Family, Shape, shape_of
from medexp.composition.hydra_node import check_hydra_node, has_interpolated_target
from medexp.composition.jobs import Sweep, read_sweep, sweeper_lines
from medexp.composition.loading import Loader
from medexp.composition.locations import conf_dir, set_default_output_dir
from medexp.composition.overrides import normalize
from medexp.composition.relations import require_folds_exist, require_relations
from medexp.composition.resolution import resolved, resolved_where_possible
from medexp.composition.schema import raise_for
from medexp.composition.targets import admitted_prefixes
from medexp.errors import ConfigurationError, UnknownOptionError


@dataclass(frozen=True)
class Composed:
    """A checked command line.

    Attributes:
        config: The configuration with its `hydra` node; of a sweep, what its jobs share.
        overrides: The command line as Hydra needs it.
        jobs: Of a sweep, the overrides of every job, complete; empty for a single run.
    """

    config: DictConfig
    overrides: tuple[str, ...]
    jobs: tuple[tuple[str, ...], ...] = ()


def compose(
    overrides: Iterable[str] = (), *, config_dirs: Sequence[Path | str] = (), with_hydra: bool = False
) -> DictConfig:
    """Return the checked configuration of a single run, as `python -m medexp.run` would have it.

    Args:
        overrides: What would stand on the command line, for example `["dataset=brats", "stage=2"]`.
        config_dirs: Folders with more configuration files, as `--config-dir` gives.
        with_hydra: Keep the `hydra` node.

    Raises:
        ConfigurationError: A key, option, target or value is wrong; the message says which and what would be right.
    """
    normal = tuple(normalize(overrides, config_dirs=config_dirs))
    composer = _composer(config_dirs)
    composer.refuse_sweep(normal)
    config = copy.deepcopy(composer.job(normal))
    if not with_hydra:
        with open_dict(config):
            del config["hydra"]
    return config


def checked(overrides: Iterable[str], *, config_dirs: Sequence[Path | str] = (), multirun: bool = False) -> Composed:
    """Return a command line that was composed and checked, of a sweep every job.

    Args:
        overrides: The command line without flags.
        config_dirs: Folders with more configuration files.
        multirun: Whether `--multirun` was given; an experiment can ask for it, too.

    Raises:
        ConfigurationError: As `compose`; a sweep's message names the job.
    """
    normal = tuple(normalize(overrides, config_dirs=config_dirs))
    composer = _composer(config_dirs)
    config = composer.shared(normal)
    is_multirun = multirun or config.hydra.mode == RunMode.MULTIRUN
    sweep = composer.sweep(config, normal) if is_multirun else None
    if sweep is None or not sweep.is_several:
        composer.refuse_sweep(normal)
        return Composed(copy.deepcopy(composer.job(normal)), normal)
    composer.check_jobs(sweep)
    return Composed(copy.deepcopy(config), normal, tuple(dict.fromkeys(sweep.jobs())))


@contextmanager
def variant(
    overrides: Iterable[str], *, config_dirs: Sequence[Path | str] = ()
) -> Iterator[tuple[DictConfig, tuple[str, ...], dict[str, str | None]]]:
    """Lend the checked configuration of a single run, without its `hydra` node; it must not be kept or changed.

    Lines that differ in bare values are composed once, which makes a sweep's plan fast.

    Yields:
        The configuration, the overrides as Hydra needs them, and the options that were taken.

    Raises:
        ConfigurationError: As `compose`.
    """
    normal = tuple(normalize(overrides, config_dirs=config_dirs))
    composer = _composer(config_dirs)
    family = composer.family(normal)
    with family.varied(normal) as config:
        if config is None:
            yield compose(normal, config_dirs=config_dirs), normal, family.choices
        else:
            composer.check_values(config, family.unchecked(normal))
            yield config, normal, family.choices


def resolved_stage(config: DictConfig) -> dict[str, Any]:
    """Return the `stage` node as plain containers: the one thing that is built.

    Raises:
        UnknownOptionError: The model has no such stage.
        ConfigurationError: An interpolation fails, or a value that must be given is not.
    """
    if not isinstance(config.get("stage"), DictConfig):
        raise ConfigurationError("stage: expected one of the stages, got none; give stage=<name>")
    _check_curriculum(config)
    return resolved(config.stage, "stage")


def _check_curriculum(config: DictConfig) -> None:
    wanted = config.stage.get("curriculum")
    curriculum = OmegaConf.select(config, "model.curriculum")
    if wanted is None or not isinstance(curriculum, DictConfig) or wanted in curriculum:
        return
    choices = OmegaConf.select(config, "hydra.runtime.choices") or {}
    model, stage = choices.get("model", "(as composed)"), choices.get("stage", str(wanted).removeprefix("stage_"))
    names = ", ".join(str(name) for name in curriculum) or "nothing"
    raise UnknownOptionError(f"stage={stage}: model {model} has no stage {stage}; its curriculum: {names}")


def _all_but(config: DictConfig, section: str) -> tuple[str, ...]:
    return tuple(str(name) for name in config if name != section)


def _composer(config_dirs: Sequence[Path | str]) -> "_Composer":
    set_default_output_dir()
    folders = tuple(Path(folder).absolute() for folder in config_dirs)
    for folder in folders:
        if not folder.is_dir():
            raise ConfigurationError(f"--config-dir {folder}: expected a folder, found none")
    files = [path for folder in (conf_dir(), *folders) for path in folder.rglob("*.yaml")]
    newest_ns = max((path.stat().st_mtime_ns for path in files), default=0)
    return _composer_of(folders, len(files), newest_ns, admitted_prefixes())


@lru_cache(maxsize=4)
def _composer_of(folders: tuple[Path, ...], num_files: int, newest_ns: int, admitted: tuple[str, ...]) -> "_Composer":
    del num_files, newest_ns, admitted  # only parts of the cache's key: what was checked stays checked until then
    return _Composer(folders)


class _Composer:
    """One search path, and what was composed and found sound on it; what it returns is not to be changed."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._loader = Loader(conf_dir(), folders)
        self._folders = folders
        self._shared: dict[tuple[str, ...], DictConfig] = {}
        self._sound: set[tuple[str, ...]] = set()
        self._sound_sweeps: set[Sweep] = set()
        self._families: dict[Shape, Family] = {}

    def shared(self, overrides: tuple[str, ...]) -> DictConfig:
        """Return what Hydra composes first, keys with several values left out; its `hydra` node is checked."""
        if overrides not in self._shared:
            # A name that a glob found may look like a number.
            config = self._loader.load(normalize(overrides, config_dirs=self._folders))
            raise_for(check_hydra_node(config, self._loader.shipped))
            self._shared[overrides] = config
        return self._shared[overrides]

    def job(self, overrides: tuple[str, ...], *, name: str = "") -> DictConfig:
        """Return the configuration of one run, checked."""
        config = self.shared(overrides)
        if overrides not in self._sound:
            self._check(config, job=name)
            self._sound.add(overrides)
        return config

    def family(self, overrides: tuple[str, ...]) -> Family:
        """Return the family of a line; the first of its lines that is asked for is checked whole."""
        shape = shape_of(overrides, self._loader.groups)
        if shape not in self._families:
            self.refuse_sweep(overrides)
            config = self.job(overrides)
            if has_interpolated_target(config):
                shape = overrides  # a bare value could change what code is named
            self._families[shape] = Family(copy.deepcopy(config), overrides, self._value_of)
        return self._families[shape]

    def check_values(self, config: DictConfig, keys: Iterable[str]) -> None:
        """Check the sections that hold some keys, and what a bare value can break elsewhere."""
        for section in {key.partition(".")[0] for key in keys}:
            self._loader.checker().check_section(resolved_where_possible(config, without=_all_but(config, section)))
        require_relations(config)

    def _value_of(self, override: str) -> Any:
        return self._loader.parse([override])[0].value()

    def refuse_sweep(self, overrides: Sequence[str]) -> None:
        """Raise if a key has several values."""
        swept = [override.input_line for override in self._loader.parse(overrides) if override.is_sweep_override()]
        if swept:
            raise ConfigurationError(f"{swept[0]}: several values are a sweep; add -m, or write a list as key=[a,b]")

    def sweep(self, config: DictConfig, overrides: Sequence[str]) -> Sweep:
        """Return the jobs that the command line and the sweeper's own parameters mean."""
        sweeper = resolved_where_possible(config.hydra.sweeper)
        lines = normalize([*sweeper_lines(sweeper.get("params"), overrides), *overrides], config_dirs=self._folders)
        parsed = self._loader.parse(lines)
        if "optuna" not in str(sweeper.get("_target_")):
            _refuse_intervals(parsed)
        return read_sweep(parsed, self._loader.groups)

    def check_jobs(self, sweep: Sweep) -> None:
        """Check every job: each different structure is composed, bare values are tried on the first.

        If a target depends on an interpolation, a bare value may change it, and every job is composed.
        """
        if sweep in self._sound_sweeps:
            return
        composed = [self.job(job, name=" ".join(job)) for job in sweep.structural_jobs()]
        for value in sweep.bare_values():
            (override,) = self._loader.parse([value])
            changed = copy.deepcopy(composed[0])
            OmegaConf.update(changed, override.key_or_group, override.value(), force_add=True)
            self._check(changed, job=value)
            if override.key_or_group == "fold":
                self._check_fold_of_every(composed, override.value(), job=value)
        if any(has_interpolated_target(config) for config in composed):
            for job in sweep.jobs():
                self.job(job, name=" ".join(job))
        self._sound_sweeps.add(sweep)

    def _check_fold_of_every(self, composed: Sequence[DictConfig], fold: object, *, job: str) -> None:
        for config in composed:
            try:
                require_folds_exist(config, fold=fold)
            except ConfigurationError as error:
                raise type(error)(f"{error} (in the job {job})") from error

    def _check(self, config: DictConfig, *, job: str) -> None:
        """Raise if anything beside the `hydra` node is wrong; the stage last, for it repeats the rest."""
        try:
            self._loader.checker().check_section(resolved_where_possible(config, without=("hydra", "stage")))
            self._loader.checker().check_section({"stage": resolved_stage(config)})
            require_relations(config)
        except ConfigurationError as error:
            raise type(error)(f"{error} (in the job {job})" if job else str(error)) from error


def _refuse_intervals(parsed: Sequence[Override]) -> None:
    """Raise if a key has an interval, of which only a search can choose values."""
    intervals = [override.input_line for override in parsed if override.is_interval_sweep()]
    if intervals:
        raise ConfigurationError(
            f"{intervals[0]}: expected values to try, got an interval, which only a search chooses from: add "
            "hydra/sweeper=optuna (pip install 'medexp[hpo]'), or list values"
        )

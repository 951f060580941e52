"""Hydra's loader on medexp's search path, without Hydra's global state, and with errors in medexp's words."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from medexp.composition.diagnosis import KNOWN_ERRORS, explained
from medexp.composition.groups import Option, options_by_group
from medexp.composition.hydra_node import check_hydra_node
from medexp.composition.resolution import resolved_where_possible
from medexp.composition.schema import Checker, Fault, raise_for
from medexp.composition.shipped import Shipped, read_shipped

_CONFIG = "config"
_HYDRA_VERSION_BASE = "1.3"
# Hydra raises bare ValueErrors and AssertionErrors for some malformed defaults lists and overrides.
_COMPOSITION_ERRORS = (*KNOWN_ERRORS, OmegaConfBaseException, ValueError, AssertionError)


class Loader:
    """Composes, unchecked. Files are read once; a loader lives as long as they do not change."""

    def __init__(self, conf: Path, config_dirs: Sequence[Path]) -> None:
        version.setbase(_HYDRA_VERSION_BASE)
        setup_globals()
        path = create_config_search_path(str(conf))
        for folder in config_dirs:
            path.prepend(provider="command-line", path=f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
        self._loader = ConfigLoaderImpl(config_search_path=path)
        self._loader.repository = _Remembering(path)
        self.groups: Mapping[str, Sequence[Option]] = options_by_group([conf, *config_dirs])
        self.shipped: Shipped = read_shipped(conf)

    def checker(self) -> Checker:
        """Return a fresh checker of keys, targets and values."""
        return Checker(self.shipped, extra_keys=[*self.groups])

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        """Return the overrides parsed.

        Raises:
            ConfigurationError: One is not readable.
        """
        try:
            return OverridesParser.create(config_loader=self._loader).parse_overrides(list(overrides))
        except KNOWN_ERRORS as error:
            raise explained(error, groups=self.groups, shipped=self.shipped) from error

    def load(self, overrides: Sequence[str]) -> DictConfig:
        """Return the composed configuration; keys with several values are left out.

        Raises:
            ConfigurationError: Hydra cannot compose it; the message names the nearest key or option.
        """
        try:
            return self._load(overrides)
        except _COMPOSITION_ERRORS as error:
            parsed = self.parse(overrides)
            is_addable = self._is_sound_with_keys_added(parsed)
            raise explained(
                error, groups=self.groups, shipped=self.shipped, overrides=parsed, is_addable=is_addable
            ) from error

    def _load(self, overrides: Sequence[str]) -> DictConfig:
        return self._loader.load_configuration(
            _CONFIG, list(overrides), run_mode=RunMode.MULTIRUN, from_shell=False, validate_sweep_overrides=False
        )

    def _is_sound_with_keys_added(self, overrides: Sequence[Override]) -> bool:
        """Compose once more with every key forced in, and let the schema find the unknown ones.

        Raises:
            ConfigurationError: A key is unknown or a target refused; the message has the nearest.
        """
        forced = [self._forced(override) for override in overrides if not override.is_sweep_override()]
        try:
            config = self._load(forced)
        except _COMPOSITION_ERRORS:
            return False
        checker = self.checker()
        checker.section((), resolved_where_possible(config, without=("hydra", "stage")))
        if not checker.problems:
            checker.section((), {"stage": resolved_where_possible(config.stage)})
        problems = [*check_hydra_node(config, self.shipped), *checker.problems]
        raise_for([problem for problem in problems if problem.fault is not Fault.VALUE])
        return True

    def _forced(self, override: Override) -> str:
        line = str(override.input_line)
        is_choice = override.key_or_group in self.groups or "/" in override.key_or_group
        return line if is_choice or override.is_delete() else f"++{line.lstrip('+')}"


class _Remembering(ConfigRepository):
    """Reads each file once; Hydra would read all of them anew for every job of a sweep."""

    def __init__(self, path: Any) -> None:
        super().__init__(path)
        self._results: dict[str, ConfigResult | None] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Remembering":
        return self

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return a copy of a file's content: composing merges into it."""
        if config_path not in self._results:
            self._results[config_path] = super().load_config(config_path)
        return copy.deepcopy(self._results[config_path])

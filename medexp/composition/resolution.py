"""Plain containers from a composed configuration, whole or as far as it resolves."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from medexp.errors import ConfigurationError
from medexp.suggestions import did_you_mean

_MAX_DEPTH = 64


class Unresolved(str):
    """The text of an interpolation that cannot be resolved here, for instance in a part that the stage does not use."""

    __slots__ = ()


def resolved(node: DictConfig, key: str) -> dict[str, Any]:
    """Return a mapping with every interpolation resolved.

    Raises:
        ConfigurationError: One cannot be resolved, or a value that must be given (`???`) is not.
    """
    try:
        container = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(_explained(error, node, key)) from error
    except RecursionError as error:
        raise ConfigurationError(f"{key}: the interpolations refer to each other in a circle") from error
    assert isinstance(container, dict)
    return cast(dict[str, Any], container)


def resolved_where_possible(config: DictConfig, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the configuration as plain containers; what does not resolve is `Unresolved`."""
    return {str(key): _value(config, str(key), depth=0) for key in config if key not in without}


def _value(parent: Any, key: Any, *, depth: int) -> Any:
    """Return one entry of an OmegaConf container, plain."""
    if depth > _MAX_DEPTH:
        raise ConfigurationError(f"{parent._get_full_key(key)}: the interpolations refer to each other in a circle")
    if OmegaConf.is_missing(parent, key):
        return "???"
    try:
        value = parent[key]
    except (OmegaConfBaseException, RecursionError):
        return Unresolved(parent._get_node(key)._value())
    if not isinstance(value, DictConfig | ListConfig):
        return value
    try:
        return OmegaConf.to_container(value, resolve=True)
    except (OmegaConfBaseException, RecursionError):  # piece by piece, then
        if isinstance(value, DictConfig):
            return {str(name): _value(value, name, depth=depth + 1) for name in value}
        return [_value(value, index, depth=depth + 1) for index in range(len(value))]


def _explained(error: OmegaConfBaseException, node: DictConfig, key: str) -> str:
    where, reason = str(error.full_key or key), str(error.msg or error).splitlines()[0]
    missing = re.search(r"Missing mandatory value: ([\w.]+)", reason)
    if missing:
        wanted = where if isinstance(error, MissingMandatoryValue) else missing[1]
        return f"{wanted}: expected a value, got none; give it as {wanted}=<value>"
    unknown = re.search(r"Interpolation key '([\w.]+)' not found", reason)
    if unknown:
        full_keys = list(_full_keys(OmegaConf.to_container(node._get_root(), resolve=False)))
        return f"{where}: refers to ${{{unknown[1]}}}, which does not exist; {did_you_mean(unknown[1], full_keys)}"
    return f"{where}: {reason}"


def _full_keys(content: object, prefix: str = "") -> Iterator[str]:
    if isinstance(content, Mapping):
        for name, inner in content.items():
            yield f"{prefix}{name}"
            yield from _full_keys(inner, f"{prefix}{name}.")

"""Builds the parts that a checked, resolved, plain configuration names.

Hydra's own `instantiate` is not used: it reads strings as interpolations a second time, so that what is built could
differ from what was checked, and it turns an error inside a constructor into one line.
"""

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from types import FunctionType
from typing import Any

from medexp.composition.targets import Position, check_target, is_allowed
from medexp.errors import ConfigurationError, TargetNotAllowedError

_FLAGS = ("_target_", "_partial_", "_recursive_", "_convert_")


def instantiate(node: Mapping[str, Any], *, key: str = "stage.call") -> Any:
    """Return what the node's `_target_` makes of its arguments, nested ones first.

    Containers reach constructors as plain dicts and lists. `_partial_: true` gives a `functools.partial`;
    `_recursive_: false` hands nested nodes over unbuilt.

    Args:
        node: A node of `resolved_stage`'s result.
        key: Its full key, for messages.

    Raises:
        TargetNotAllowedError: A target, or the object that it turns out to be, is not on the allow-list.
        ConfigurationError: The node has no `_target_`.
    """
    if "_target_" not in node:
        raise ConfigurationError(f"{key}: expected _target_ among the keys, got {sorted(map(str, node))}")
    return _built(node, key)


def _built(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return _call(value, key)
        return {name: _built(inner, f"{key}.{name}") for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_built(inner, f"{key}[{index}]") for index, inner in enumerate(value)]
    return value


def _call(node: Mapping[str, Any], key: str) -> Any:
    written, is_partial = node["_target_"], node.get("_partial_", False)
    made = _located(written, key=f"{key}._target_", is_partial=is_partial)
    given = {name: inner for name, inner in node.items() if name not in _FLAGS}
    if node.get("_recursive_", True):
        given = {name: _built(inner, f"{key}.{name}") for name, inner in given.items()}
    if is_partial:
        return partial(made, **given)
    try:
        return made(**given)
    except Exception as error:
        error.add_note(f"while building {key} ({written})")
        raise


def _located(written: object, *, key: str, is_partial: bool) -> Any:
    """Return the object, imported from where the source says that it is defined."""
    target = check_target(written, key=key)
    if target.called_later and not is_partial:
        raise TargetNotAllowedError(f"{key}: {written!r}: configuration only names functions; add _partial_: true")
    found = getattr(import_module(target.definition.module.name), target.definition.node.name)
    if not isinstance(found, type | FunctionType):
        raise TargetNotAllowedError(f"{key}: expected a class or function, got {type(found).__name__} {written!r}")
    real = f"{found.__module__}.{found.__qualname__}"
    if not is_allowed(real, Position.CONFIGURATION) or "<" in real:
        raise TargetNotAllowedError(f"{key}: {written!r} turned out to be {real}, which is not allowed")
    return found

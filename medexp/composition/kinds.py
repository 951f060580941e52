"""In words: how a value disagrees with an annotation, or with what the shipped files say at the same key."""

import ast
from collections.abc import Mapping
from typing import Any

from medexp.composition.annotations import choices, is_instance
from medexp.composition.resolution import Unresolved
from medexp.composition.shipped import KeyPath, Shipped
from medexp.composition.signatures import Parameter, signature_of
from medexp.composition.sources import UnresolvedNameError, resolve
from medexp.suggestions import did_you_mean


def disagreement_with_annotation(value: Any, parameter: Parameter) -> str | None:
    """Return `expected ..., got ...` if the value cannot be what the parameter's annotation says."""
    if isinstance(value, Unresolved) or is_instance(value, parameter.annotation, parameter.scope) is not False:
        return None
    if value is None and isinstance(parameter.default, ast.Constant) and parameter.default.value is None:
        return None  # `argument: int = None`, as older code writes it
    assert parameter.annotation is not None
    words = choices(parameter.annotation)
    hint = f"; {did_you_mean(value, words)}" if words and isinstance(value, str) else ""
    return f"expected {ast.unparse(parameter.annotation)}, got {described(value)}{hint}"


def disagreement_with_shipped(value: Any, path: KeyPath, shipped: Shipped) -> str | None:
    """Return `expected ..., got ...` if no shipped file has a value of this kind there, and no reader takes it.

    A reader is an argument that refers to the key as a whole; its annotation widens what a lone example shows
    (`hardware.devices: 1` may be a list, because Lightning's Trainer says so) and narrows what `null` leaves open.
    """
    examples = shipped.values.get(path)
    if not examples or isinstance(value, Unresolved) or (isinstance(value, Mapping) and "_target_" in value):
        return None
    if any(isinstance(example, str) and "${" in example for example in examples):
        return None
    says_nothing = all(example is None for example in examples)
    if not says_nothing and any(_is_alike(value, example) for example in examples):
        return None
    if says_nothing and value is None:
        return None
    readers = [item for item in map(_reader, sorted(shipped.readers.get(path, ()))) if item is not None]
    typed = [item for item in readers if item.annotation is not None]
    if any(is_instance(value, item.annotation, item.scope) is not False for item in typed):
        return None
    if says_nothing and not typed:
        return None
    annotations = {ast.unparse(item.annotation) for item in typed if item.annotation is not None}
    example = next((item for item in examples if item is not None), None)
    expected = " or ".join(sorted(annotations)) if example is None else _expectation(example)
    return f"expected {expected}, got {described(value)}"


def described(value: Any) -> str:
    """Return a value and its kind, for a message."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(map(str, value)) or 'nothing'}"
    kinds = {bool: "true or false", int: "an integer", float: "a number", str: "text", list: "a list"}
    return f"{value!r} ({kinds.get(type(value), type(value).__name__)})"


def _expectation(example: Any) -> str:
    if isinstance(example, Mapping):
        return f"a mapping with {', '.join(map(str, example)) or 'names of your choice'}"
    return f"something like {described(example)}"


def _is_alike(value: Any, example: Any) -> bool:
    if isinstance(example, bool) or isinstance(value, bool):
        return isinstance(example, bool | str) and isinstance(value, bool)
    if isinstance(example, list):
        return isinstance(value, list) and _are_alike(value, example)
    if isinstance(example, Mapping) or isinstance(value, Mapping | list) or value is None or example is None:
        return type(value) is type(example)
    if isinstance(example, str):
        return True  # Hydra reads an unquoted 1234 as a number
    return isinstance(value, int) or (isinstance(value, float) and isinstance(example, float))


def _are_alike(values: list[Any], examples: list[Any]) -> bool:
    if not examples or any(isinstance(example, str | None) for example in examples):
        return True
    return all(isinstance(value, Unresolved) or any(_is_alike(value, item) for item in examples) for value in values)


def _reader(reader: tuple[str, str]) -> Parameter | None:
    target, argument = reader
    try:
        return signature_of(resolve(target)).parameters.get(argument)
    except UnresolvedNameError:
        return None

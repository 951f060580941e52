"""In words: how a value disagrees with an annotation, or with what the shipped files say at the same key."""

import ast
from collections.abc import Mapping
from typing import Any

from medexp.composition.annotations import alternatives, choices, element_annotation, is_instance
from medexp.composition.limits import limits_of
from medexp.composition.resolution import Unresolved
from medexp.composition.shipped import KeyPath, Shipped
from medexp.composition.signatures import Parameter, signature_of
from medexp.composition.sources import Module, UnresolvedNameError, resolve
from medexp.suggestions import nearest

_IN_WORDS = {"int": "an integer", "float": "a number", "str": "text", "bool": "true or false"}


def disagreement_with_annotation(value: Any, parameter: Parameter) -> str | None:
    """Return `expected ..., got ...` if the value cannot be what the parameter's annotation says."""
    if isinstance(value, Unresolved) or is_instance(value, parameter.annotation, parameter.scope) is not False:
        return None
    if value is None and isinstance(parameter.default, ast.Constant) and parameter.default.value is None:
        return None  # `argument: int = None`, as older code writes it
    assert parameter.annotation is not None
    element = element_annotation(parameter.annotation)
    if isinstance(value, list | tuple) and element is not None:
        wrong = [item for item in value if is_instance(item, element, parameter.scope) is False]
        if wrong:
            one = Parameter(parameter.name, element, None, parameter.scope)
            return f"{disagreement_with_annotation(wrong[0], one)} in the list"
    if isinstance(value, str) and element is not None:
        return f"expected a list, {ast.unparse(parameter.annotation)}, got {described(value)}; write [{value}]"
    near = nearest(value, choices(parameter.annotation, parameter.scope)) if isinstance(value, str) else []
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"expected {in_words(parameter.annotation, parameter.scope)}, got {described(value)}{hint}"


def in_words(annotation: ast.expr, scope: Module | None) -> str:
    """Return an annotation as a message has it: choices and ranges spelled out, everything else as in the source."""
    listed = list(alternatives(annotation, scope))
    ranges = [item for item in listed if isinstance(item, ast.Subscript) and limits_of(item)]
    if not ranges and not choices(annotation, scope):
        return ast.unparse(annotation)
    texts = list(dict.fromkeys(map(_in_words, listed)))
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def _in_words(item: ast.expr) -> str:
    if isinstance(item, ast.Constant):
        return "null" if item.value is None else str(item.value)
    if isinstance(item, ast.Subscript) and (limits := limits_of(item)):
        kind = ast.unparse(item.slice.elts[0]) if isinstance(item.slice, ast.Tuple) else ""
        return f"{_IN_WORDS.get(kind, kind)} {' and '.join(limits)}"
    return _IN_WORDS.get(ast.unparse(item), ast.unparse(item))


def disagreement_with_shipped(value: Any, path: KeyPath, shipped: Shipped) -> str | None:
    """Return `expected ..., got ...` if a reader does not take the value, or, unread, it is unlike the shipped ones.

    A reader is an argument that refers to the key as a whole; its annotation widens what a lone example shows
    (`hardware.devices: 1` may be a list, because Lightning's Trainer says so) and narrows what `null` or a word
    leaves open (`prepare.link` is one of three).
    """
    examples = shipped.values.get(path)
    if not examples or isinstance(value, Unresolved) or (isinstance(value, Mapping) and "_target_" in value):
        return None
    readers = [item for item in map(_reader, sorted(shipped.readers.get(path, ()))) if item is not None]
    refusals = [text for item in readers if (text := disagreement_with_annotation(value, item)) is not None]
    if refusals:
        return min(refusals, key=len)  # the narrowest reader says what all of them take
    if any(isinstance(example, str) and "${" in example for example in examples):
        return None
    says_nothing = all(example is None for example in examples)
    is_typed = any(item.annotation is not None for item in readers)
    if says_nothing or is_typed or any(_is_alike(value, example) for example in examples):
        return None
    example = next(item for item in examples if item is not None)
    return f"expected {_expectation(example)}, got {described(value)}"


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

"""Whether a plain value fits an annotation that was only read, never evaluated.

The answer is three-valued: what is not understood (a type of another library, an array's shape) is `None` and
never refused. YAML's kinds stand for Python's: a list for any sequence, a mapping for any mapping, an integer for a
float, text for a path.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from medexp.composition.limits import limits_of, within
from medexp.composition.sources import Alias, Module, load

_LISTS = frozenset({"list", "List", "Sequence", "Iterable", "Collection", "tuple", "Tuple", "set", "Set", "frozenset"})
MAPPINGS = frozenset({"dict", "Dict", "Mapping", "MutableMapping", "OrderedDict", "defaultdict"})
_SCALARS: Mapping[str, Callable[[Any], bool]] = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    # Hydra reads an unquoted identity such as 1234 as a number.
    "str": lambda value: isinstance(value, str | int | float) and not isinstance(value, bool),
    "Path": lambda value: isinstance(value, str),
    "PathLike": lambda value: isinstance(value, str),
    "None": lambda value: value is None,
}
_MAX_HOPS = 8


def is_instance(value: object, annotation: ast.expr | None, scope: Module | None, *, hops: int = 0) -> bool | None:
    """Return whether the value fits; None if the annotation does not say.

    Args:
        value: What YAML or the command line gave; a node with `_target_` builds anything.
        annotation: The annotation's source.
        scope: The module whose aliases it may use.
        hops: How many aliases were followed so far.
    """
    if annotation is None or hops > _MAX_HOPS or (isinstance(value, Mapping) and "_target_" in value):
        return None
    if isinstance(annotation, ast.Constant):
        return _fits_constant(value, annotation.value, scope, hops=hops)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _any(is_instance(value, side, scope, hops=hops) for side in (annotation.left, annotation.right))
    if isinstance(annotation, ast.Subscript):
        return _fits_generic(value, annotation, scope, hops=hops)
    if isinstance(annotation, ast.Name | ast.Attribute):
        return _fits_name(value, annotation, scope, hops=hops)
    return None


def is_mapping(annotation: ast.expr | None, scope: Module | None) -> bool:
    """Return whether the annotation takes a mapping with names of the user's choice."""
    return is_instance({}, annotation, scope) is True


def value_annotation(annotation: ast.expr | None) -> ast.expr | None:
    """Return the annotation of a mapping's values, where it says one."""
    if isinstance(annotation, ast.BinOp):
        return value_annotation(annotation.left) or value_annotation(annotation.right)
    if not isinstance(annotation, ast.Subscript):
        return None
    name = _last(annotation.value)
    if name == "Optional":
        return value_annotation(annotation.slice)
    inner = _arguments(annotation)
    return inner[1] if name in MAPPINGS and len(inner) == 2 else None


def alternatives(annotation: ast.expr, scope: Module | None, *, hops: int = 0) -> Iterator[ast.expr]:
    """Yield what an annotation allows, one by one: the sides of a union, aliases followed, a `Literal` as constants."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        inner: list[ast.expr] = [annotation.left, annotation.right]
    elif isinstance(annotation, ast.Subscript) and _last(annotation.value) in ("Union", "Literal"):
        inner = _arguments(annotation)
    elif isinstance(annotation, ast.Subscript) and _last(annotation.value) == "Optional":
        inner = [annotation.slice, ast.Constant(None)]
    elif (meant := _meant(annotation, scope)) is not None and hops < _MAX_HOPS:
        yield from alternatives(*meant, hops=hops + 1)
        return
    else:
        yield annotation
        return
    is_literal = isinstance(annotation, ast.Subscript) and _last(annotation.value) == "Literal"
    for item in inner:
        if is_literal:
            yield item
        else:
            yield from alternatives(item, scope, hops=hops)


def element_annotation(annotation: ast.expr | None) -> ast.expr | None:
    """Return the annotation of a list's elements, where it says one for all of them."""
    if isinstance(annotation, ast.BinOp):
        return element_annotation(annotation.left) or element_annotation(annotation.right)
    if not isinstance(annotation, ast.Subscript):
        return None
    name, inner = _last(annotation.value), _arguments(annotation)
    if name == "Optional":
        return element_annotation(inner[0])
    is_fixed = name in ("tuple", "Tuple") and len(inner) > 1 and ast.unparse(inner[1]) != "..."
    return inner[0] if name in _LISTS and not is_fixed else None


def choices(annotation: ast.expr | None, scope: Module | None = None) -> list[str]:
    """Return the words that a `Literal` offers."""
    listed = [] if annotation is None else list(alternatives(annotation, scope))
    return [str(item.value) for item in listed if isinstance(item, ast.Constant) and item.value is not None]


def _meant(annotation: ast.expr, scope: Module | None) -> tuple[ast.expr, Module | None] | None:
    """Return what an alias or an annotation in quotes stands for."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        written = _parsed(annotation.value)
        return None if written is None else (written, scope)
    return _alias(annotation, scope) if isinstance(annotation, ast.Name) else None


def _parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None


def _fits_constant(value: object, constant: object, scope: Module | None, *, hops: int) -> bool | None:
    if constant is None:
        return value is None
    if not isinstance(constant, str):
        return None
    written = _parsed(constant)
    return None if written is None else is_instance(value, written, scope, hops=hops + 1)


def _fits_name(value: object, annotation: ast.Name | ast.Attribute, scope: Module | None, *, hops: int) -> bool | None:
    name = _last(annotation)
    if name in _SCALARS:
        return _SCALARS[name](value)
    if name in _LISTS:
        return isinstance(value, list | tuple)
    if name in MAPPINGS:
        return isinstance(value, Mapping)
    if name in ("Any", "object"):
        return True
    if name == "Callable":
        return False if isinstance(value, bool | int | float | str | list | tuple | None) else None
    alias = _alias(annotation, scope)
    return None if alias is None else is_instance(value, alias[0], alias[1], hops=hops + 1)


def _fits_generic(value: object, annotation: ast.Subscript, scope: Module | None, *, hops: int) -> bool | None:
    name, inner = _last(annotation.value), _arguments(annotation)
    if name == "Optional":
        return value is None or is_instance(value, inner[0], scope, hops=hops)
    if name == "Union":
        return _any(is_instance(value, item, scope, hops=hops) for item in inner)
    if name in ("Annotated", "Final"):
        return _all([is_instance(value, inner[0], scope, hops=hops), within(value, limits_of(annotation))])
    if name == "Literal":
        return any(isinstance(item, ast.Constant) and item.value == value for item in inner)
    if name in _LISTS:
        return _fits_list(value, inner, scope, is_tuple=name in ("tuple", "Tuple"), hops=hops)
    if name in MAPPINGS:
        if not isinstance(value, Mapping) or len(inner) != 2:
            return isinstance(value, Mapping)
        return _all(is_instance(item, inner[1], scope, hops=hops) for item in value.values())
    return _fits_name(value, ast.Name(name), scope, hops=hops) if name == "Callable" else None


def _fits_list(value: object, inner: list[ast.expr], scope: Module | None, *, is_tuple: bool, hops: int) -> bool | None:
    if not isinstance(value, list | tuple):
        return False
    is_fixed = is_tuple and not (isinstance(inner[-1], ast.Constant) and inner[-1].value is Ellipsis)
    if not is_fixed:
        return _all(is_instance(item, inner[0], scope, hops=hops) for item in value)
    if len(inner) != len(value):
        return False
    return _all(is_instance(item, kind, scope, hops=hops) for item, kind in zip(value, inner, strict=True))


def _alias(annotation: ast.Name | ast.Attribute, scope: Module | None) -> tuple[ast.expr, Module] | None:
    """Return what a type alias stands for, imported through however many modules."""
    if scope is None or not isinstance(annotation, ast.Name):
        return None
    origin, bound = scope, scope.bindings.get(annotation.id)
    for _ in range(_MAX_HOPS):
        if not isinstance(bound, Alias) or bound.name is None or (found := load(bound.module)) is None:
            break
        origin, bound = found, found.bindings.get(bound.name)
    return (bound, origin) if isinstance(bound, ast.expr) else None


def _arguments(annotation: ast.Subscript) -> list[ast.expr]:
    return list(annotation.slice.elts) if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]


def _last(expression: ast.expr) -> str:
    return ast.unparse(expression).rpartition(".")[2]


def _any(verdicts: Iterable[bool | None]) -> bool | None:
    listed = list(verdicts)
    return True if True in listed else (None if None in listed else False)


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    listed = list(verdicts)
    return False if False in listed else (None if None in listed else True)

"""The arguments that a class or function takes, read from source."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from medexp.composition.sources import Definition, Module, UnresolvedNameError, resolve_in

_NO_ARGUMENTS = frozenset({"object", "ABC", "Generic", "Protocol"})
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False)
class Parameter:
    """One argument that can be given by name; `scope` is the module whose names the annotation uses."""

    name: str
    annotation: ast.expr | None
    default: ast.expr | None
    scope: Module

    @property
    def is_required(self) -> bool:
        """Return whether there is no default."""
        return self.default is None


@dataclass(frozen=True, eq=False)
class Signature:
    """Arguments by name; an open signature takes others too (`**kwargs`, or a base without source)."""

    parameters: Mapping[str, Parameter]
    is_open: bool = False


@lru_cache(maxsize=1024)
def signature_of(definition: Definition) -> Signature:
    """Return what calling the class or function takes."""
    if not isinstance(definition.node, ast.ClassDef):
        return _of_function(definition.node, definition.module, skip_first=False)
    return _of_class(definition)


def _of_class(definition: Definition) -> Signature:
    node = definition.node
    assert isinstance(node, ast.ClassDef)
    for name in ("__init__", "__new__"):
        method = _method(node, name)
        if method is not None:
            return _of_function(method, definition.module, skip_first=True)
    bases = list(_bases(definition))
    inherited = [None if base is None else signature_of(base) for base in bases]
    if _is_record(node):
        return _of_record(node, definition.module, [base for base in inherited if base is not None])
    for base in inherited:
        if base is None:
            return Signature({}, is_open=True)
        if base.parameters or base.is_open:
            return base
    return Signature({})


def _method(node: ast.ClassDef, name: str) -> _Function | None:
    found = [item for item in node.body if isinstance(item, _Function) and item.name == name]
    return found[-1] if found else None


def _of_function(node: _Function, module: Module, *, skip_first: bool) -> Signature:
    arguments = node.args
    by_position = [*arguments.posonlyargs, *arguments.args]
    missing = len(by_position) - len(arguments.defaults)
    defaults: list[ast.expr | None] = [None] * missing + list(arguments.defaults)
    pairs = list(zip(by_position, defaults, strict=True))[len(arguments.posonlyargs) :]
    if skip_first and not arguments.posonlyargs:
        pairs = pairs[1:]
    pairs += list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    parameters = {item.arg: Parameter(item.arg, item.annotation, default, module) for item, default in pairs}
    return Signature(parameters, is_open=arguments.kwarg is not None)


def _bases(definition: Definition) -> Iterator[Definition | None]:
    assert isinstance(definition.node, ast.ClassDef)
    for base in definition.node.bases:
        expression = base.value if isinstance(base, ast.Subscript) else base
        name = ast.unparse(expression)
        if name.rpartition(".")[2] in _NO_ARGUMENTS:
            continue
        try:
            yield resolve_in(definition.module, name)
        except UnresolvedNameError:
            yield None


def _is_record(node: ast.ClassDef) -> bool:
    named = [item.func if isinstance(item, ast.Call) else item for item in node.decorator_list]
    if any(ast.unparse(item).rpartition(".")[2] == "dataclass" for item in named):
        return True
    return any(ast.unparse(base).rpartition(".")[2] == "NamedTuple" for base in node.bases)


def _of_record(node: ast.ClassDef, module: Module, bases: list[Signature]) -> Signature:
    parameters = {name: parameter for base in reversed(bases) for name, parameter in base.parameters.items()}
    for item in node.body:
        if not (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)):
            continue
        text = ast.unparse(item.annotation)
        if "ClassVar" in text or "KW_ONLY" in text:
            continue
        is_argument, default = _field(item.value)
        if is_argument:
            parameters[item.target.id] = Parameter(item.target.id, item.annotation, default, module)
    return Signature(parameters)


def _field(value: ast.expr | None) -> tuple[bool, ast.expr | None]:
    if not (isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] == "field"):
        return True, value
    given = {keyword.arg: keyword.value for keyword in value.keywords}
    init = given.get("init")
    is_argument = not (isinstance(init, ast.Constant) and init.value is False)
    return is_argument, given.get("default", given.get("default_factory"))

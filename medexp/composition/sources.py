"""What a dotted name refers to, read from source code: nothing is imported, so nothing can run.

Names are followed through `from x import y`, plain aliases (`Unet = UNet`), packages and star imports. Whatever is
made at run time (a lambda, an instance, a module's `__getattr__`, an extension module) does not resolve.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path

_MAX_HOPS = 32

DefinitionNode = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class UnresolvedNameError(LookupError):
    """A dotted name leads to no class or function in source; `options` are the names at the place it stopped."""

    def __init__(self, reason: str, *, missing: str = "", options: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.missing = missing
        self.options = options


@dataclass(frozen=True)
class Alias:
    """`import module` (no name) or `from module import name`."""

    module: str
    name: str | None


Binding = Alias | ast.expr | DefinitionNode


@dataclass(frozen=True)
class Content:
    """The top-level names of a module's source; `exported` is its `__all__`."""

    bindings: Mapping[str, Binding]
    stars: tuple[str, ...] = ()
    exported: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Module:
    """One module, parsed when first asked; `path` is None for a namespace package."""

    name: str
    path: Path | None
    folders: tuple[Path, ...]

    @cached_property
    def content(self) -> Content:
        """Return its names; none if there is no source, or none that parses."""
        if self.path is None:
            return Content({})
        try:
            tree = ast.parse(self.path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            return Content({})
        return _content(tree, self.name if self.folders else self.name.rpartition(".")[0])

    @property
    def bindings(self) -> Mapping[str, Binding]:
        """Return the classes, functions, imports and values by name."""
        return self.content.bindings

    def public_names(self) -> tuple[str, ...]:
        """Return what a reader may name: classes, functions and re-exports, then submodules."""
        own = [name for name, bound in self.bindings.items() if not isinstance(bound, ast.expr)]
        inner = [entry.stem for folder in self.folders for entry in folder.iterdir() if _is_module(entry)]
        return tuple(name for name in (*own, *inner) if not name.startswith("_"))


@dataclass(frozen=True, eq=False)
class Definition:
    """A class or function at the top level of a module."""

    module: Module
    node: DefinitionNode

    @property
    def path(self) -> str:
        """Return `module.name` of the place where it is defined."""
        return f"{self.module.name}.{self.node.name}"

    @property
    def is_class(self) -> bool:
        """Return whether it is a class."""
        return isinstance(self.node, ast.ClassDef)


def resolve(dotted: str) -> Definition:
    """Return the class or function that `dotted` names.

    Raises:
        UnresolvedNameError: It names a module, a member of a class, or nothing that source code shows.
    """
    head, *rest = dotted.split(".")
    found: Module | Definition | None = load(head)
    if found is None:
        raise UnresolvedNameError(f"no module {head!r} is installed", missing=head)
    return _descend(found, rest, dotted)


def resolve_in(module: Module, dotted: str) -> Definition:
    """Return what `dotted` means inside a module, for instance the base of a class."""
    return _descend(module, dotted.split("."), dotted)


def load(name: str) -> Module | None:
    """Return a module by its full name, or None if there is no source for it."""
    head, *rest = name.split(".")
    module = _top_level(head)
    for part in rest:
        module = None if module is None else _submodule(module, part)
    return module


def _descend(found: Module | Definition, parts: list[str], dotted: str) -> Definition:
    for index, part in enumerate(parts):
        if isinstance(found, Definition):
            raise UnresolvedNameError(f"{found.path} is not a module, and members of a class are no targets")
        # On the way, a folder or file wins over a name in the package: what is built is imported by this path too.
        on_disk = _submodule(found, part) if index < len(parts) - 1 else None
        inner = on_disk or _lookup(found, part, hops=0)
        if inner is None:
            reason = f"{found.name} defines no class or function {part!r} in its source"
            raise UnresolvedNameError(reason, missing=part, options=found.public_names())
        found = inner
    if isinstance(found, Module):
        raise UnresolvedNameError(f"{dotted} is a module, not a class or function", options=found.public_names())
    return found


def _lookup(module: Module, name: str, *, hops: int) -> Module | Definition | None:
    if hops > _MAX_HOPS:
        return None
    bound = module.bindings.get(name)
    if isinstance(bound, Alias):
        return _follow(bound, hops=hops)
    if isinstance(bound, ast.Name | ast.Attribute):
        return _evaluate(module, bound, hops=hops + 1)
    if isinstance(bound, DefinitionNode):
        return Definition(module, bound)
    if bound is not None:
        return None
    return _submodule(module, name) or _through_stars(module, name, hops=hops)


def _follow(alias: Alias, *, hops: int) -> Module | Definition | None:
    origin = load(alias.module)
    if origin is None or alias.name is None:
        return origin
    if origin.bindings.get(alias.name) == alias:  # a package that imports its own submodule
        return _submodule(origin, alias.name)
    return _lookup(origin, alias.name, hops=hops + 1)


def _evaluate(module: Module, expression: ast.Name | ast.Attribute, *, hops: int) -> Module | Definition | None:
    if isinstance(expression, ast.Name):
        return _lookup(module, expression.id, hops=hops)
    if not isinstance(expression.value, ast.Name | ast.Attribute):
        return None
    owner = _evaluate(module, expression.value, hops=hops + 1)
    return _lookup(owner, expression.attr, hops=hops + 1) if isinstance(owner, Module) else None


def _through_stars(module: Module, name: str, *, hops: int) -> Module | Definition | None:
    for star in reversed(module.content.stars):
        origin = load(star)
        if origin is None:
            continue
        exported = origin.content.exported
        public = name in exported if exported is not None else not name.startswith("_")
        found = _lookup(origin, name, hops=hops + 1) if public else None
        if found is not None:
            return found
    return None


def _top_level(name: str) -> Module | None:
    try:
        spec = find_spec(name)  # a top-level name: nothing is imported to find it
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    folders = tuple(Path(folder) for folder in spec.submodule_search_locations or ())
    origin = Path(spec.origin) if spec.has_location and spec.origin else None
    return _read(name, origin, folders)


def _submodule(module: Module, name: str) -> Module | None:
    full = f"{module.name}.{name}"
    for folder in module.folders:
        inner = folder / name
        if (inner / "__init__.py").is_file():
            return _read(full, inner / "__init__.py", (inner,))
        if inner.with_name(f"{name}.py").is_file():
            return _read(full, inner.with_name(f"{name}.py"), ())
    namespace = tuple(folder / name for folder in module.folders if (folder / name).is_dir())
    return Module(full, None, namespace) if namespace else None


def _is_module(entry: Path) -> bool:
    return entry.suffix == ".py" or (entry.is_dir() and (entry / "__init__.py").is_file())


def _read(name: str, path: Path | None, folders: tuple[Path, ...]) -> Module | None:
    if path is None:
        return Module(name, None, folders) if folders else None
    if path.suffix != ".py":
        return None
    return _module(name, path, folders, path.stat().st_mtime_ns)


@lru_cache(maxsize=1024)
def _module(name: str, path: Path, folders: tuple[Path, ...], modified_ns: int) -> Module:
    del modified_ns  # only part of the cache's key: an edited file is read again
    return Module(name, path, folders)


def _content(tree: ast.Module, package: str) -> Content:
    bindings: dict[str, Binding] = {}
    stars: list[str] = []
    for statement in _statements(tree.body):
        _bind(statement, package, bindings, stars)
    return Content(bindings, tuple(stars), _exported(bindings.get("__all__")))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield top-level statements, alternatives (`else`, `except`) before the branch that is usually taken."""
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _statements(statement.orelse)
            yield from _statements(statement.body)
        elif isinstance(statement, ast.Try):
            for handler in statement.handlers:
                yield from _statements(handler.body)
            yield from _statements([*statement.body, *statement.orelse, *statement.finalbody])
        elif isinstance(statement, ast.With):
            yield from _statements(statement.body)
        else:
            yield statement


def _bind(statement: ast.stmt, package: str, bindings: dict[str, Binding], stars: list[str]) -> None:
    if isinstance(statement, DefinitionNode):
        bindings[statement.name] = statement
    elif isinstance(statement, ast.Import):
        for alias in statement.names:
            bound = alias.asname or alias.name.partition(".")[0]
            bindings[bound] = Alias(alias.name if alias.asname else bound, None)
    elif isinstance(statement, ast.ImportFrom):
        origin = _absolute(statement, package)
        for alias in statement.names:
            if alias.name == "*":
                stars.append(origin)
            else:
                bindings[alias.asname or alias.name] = Alias(origin, alias.name)
    elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        bindings.update({target.id: statement.value for target in targets if isinstance(target, ast.Name)})
    elif isinstance(statement, ast.Delete):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                bindings.pop(target.id, None)


def _absolute(statement: ast.ImportFrom, package: str) -> str:
    if not statement.level:
        return statement.module or ""
    base = package.split(".")[: len(package.split(".")) - statement.level + 1]
    return ".".join([*base, *([statement.module] if statement.module else [])])


def _exported(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, ast.List | ast.Tuple):
        return None
    return tuple(item.value for item in value.elts if isinstance(item, ast.Constant) and isinstance(item.value, str))

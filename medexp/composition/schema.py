"""Whether every key of a composed configuration is one that something reads, and its value of the right kind.

A node with `_target_` may hold the arguments of that class or function, as its source says them. A mapping that is
itself an argument has names of the user's choice. Every other node may hold what the shipped files define there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from medexp.composition.annotations import is_instance, is_mapping, value_annotation
from medexp.composition.kinds import disagreement_with_annotation, disagreement_with_shipped
from medexp.composition.resolution import Unresolved
from medexp.composition.shipped import KeyPath, Shipped
from medexp.composition.signatures import Parameter, Signature
from medexp.composition.targets import Position, Target, check_target
from medexp.errors import ConfigurationError, TargetNotAllowedError, UnknownOptionError
from medexp.suggestions import did_you_mean, is_slip, nearest

_HYDRA_KEYS = frozenset({"_target_", "_partial_", "_recursive_", "_convert_"})


class Fault(Enum):
    """What is wrong, in the order in which it is reported."""

    TARGET = TargetNotAllowedError
    KEY = UnknownOptionError
    VALUE = ConfigurationError


@dataclass(frozen=True)
class Problem:
    """One finding; `text` begins with the full key."""

    fault: Fault
    text: str


@dataclass
class Checker:
    """Walks plain containers and collects problems."""

    shipped: Shipped
    position: Position = Position.CONFIGURATION
    extra_keys: Iterable[str] = ()
    problems: list[Problem] = field(default_factory=list)

    def check_section(self, config: Mapping[str, Any]) -> None:
        """Check a whole configuration, or some of its top-level keys, and raise if there is a problem."""
        self.section((), config)
        raise_for(self.problems)

    def section(self, path: KeyPath, value: Mapping[str, Any]) -> None:
        """Check a node whose keys are those that the shipped files define there."""
        known = self.shipped.keys.get(path, set())
        if "_target_" in known:  # it was deleted, or set to nothing
            self._no_target(path)
            return
        holds_targets = self.shipped.holds_targets(path)
        for name, inner in value.items():
            inner_path = (*path, str(name))
            is_part = isinstance(inner, Mapping) and "_target_" in inner
            if name not in known and not (holds_targets and is_part):
                self._unknown(inner_path, known, "no such key")
                self._targets_only(inner_path, inner)
            elif holds_targets and isinstance(inner, Mapping) and not is_part:
                self._no_target(inner_path)
            elif isinstance(inner, Mapping) and not is_part and inner_path in self.shipped.keys:
                self._reserved(inner_path, inner)
                self.section(inner_path, inner)
            else:
                self._leaf_of_section(inner_path, inner, may_be_null=holds_targets)

    def target(self, path: KeyPath, value: Mapping[str, Any]) -> None:
        """Check a node with `_target_`: the target, its arguments, and all that is nested in them."""
        key = dotted((*path, "_target_"))
        try:
            if isinstance(value["_target_"], Unresolved):
                raise TargetNotAllowedError(f"{key}: {value['_target_']!s} does not resolve to a name")
            found = check_target(value["_target_"], key=key, position=self.position)
        except TargetNotAllowedError as error:
            self._report(Fault.TARGET, str(error))
            self._targets_only(path, {name: inner for name, inner in value.items() if name != "_target_"})
            return
        self._flags(path, value, found)
        self._arguments(path, value, found)

    def _arguments(self, path: KeyPath, value: Mapping[str, Any], found: Target) -> None:
        signature = found.signature
        for name, inner in value.items():
            inner_path = (*path, str(name))
            if name in _HYDRA_KEYS:
                continue
            if name in found.commands and inner is not None:
                self._report(
                    Fault.TARGET, f"{dotted(inner_path)}: runs or fetches what a configuration must not choose; refused"
                )
            elif name in signature.parameters:
                self._argument(inner_path, inner, signature.parameters[name])
            elif signature.is_open and not str(name).startswith("_") and not is_slip(str(name), signature.parameters):
                self.free(inner_path, inner, None)
            else:
                names = [item for item in signature.parameters if not item.startswith("_")]
                self._unknown(inner_path, names, f"{found.definition.path} takes no such argument")
                self._targets_only(inner_path, inner)
        if value.get("_partial_") is not True:
            self._completeness(path, value, signature)

    def _completeness(self, path: KeyPath, value: Mapping[str, Any], signature: Signature) -> None:
        missing = [name for name, item in signature.parameters.items() if item.is_required and name not in value]
        if missing:
            self._report(Fault.VALUE, f"{dotted(path)}: expected {', '.join(missing)} too; got {sorted(value)}")

    def _flags(self, path: KeyPath, value: Mapping[str, Any], found: Target) -> None:
        partial = value.get("_partial_", False)
        if not isinstance(partial, bool):
            self._report(Fault.VALUE, f"{dotted(path)}._partial_: expected true or false, got {partial!r}")
        elif found.called_later and not partial:
            reason = "a function acts when it is called; configuration only names it: add _partial_: true"
            self._report(Fault.TARGET, f"{dotted(path)}._target_: {found.written!r}: {reason}")

    def _argument(self, path: KeyPath, value: Any, parameter: Parameter) -> None:
        if isinstance(value, Mapping) and "_target_" not in value:
            if is_mapping(parameter.annotation, parameter.scope):
                self.free(path, value, parameter)
                return
            if "_target_" in self.shipped.keys.get(path, ()):
                self._no_target(path)
        wrong = disagreement_with_annotation(value, parameter)
        if wrong is None and is_instance(value, parameter.annotation, parameter.scope) is None and value is not None:
            wrong = disagreement_with_shipped(value, path, self.shipped)
        if wrong is not None:
            self._report(Fault.VALUE, f"{dotted(path)}: {wrong}")
        self.free(path, value, None)

    def free(self, path: KeyPath, value: Any, parameter: Parameter | None = None) -> None:
        """Check what may have names of the user's choice; parts among them must all be parts."""
        if isinstance(value, Mapping) and "_target_" in value:
            self.target(path, value)
        elif isinstance(value, Mapping):
            self._reserved(path, value)
            parts = [str(name) for name, inner in value.items() if isinstance(inner, Mapping) and "_target_" in inner]
            annotation = value_annotation(parameter.annotation) if parameter is not None else None
            for name, inner in value.items():
                if parts and isinstance(inner, Mapping) and "_target_" not in inner:
                    self._unknown((*path, str(name)), parts, "no such part")
                elif parameter is not None and is_instance(inner, annotation, parameter.scope) is False:
                    inner_parameter = Parameter(str(name), annotation, None, parameter.scope)
                    text = disagreement_with_annotation(inner, inner_parameter)
                    self._report(Fault.VALUE, f"{dotted((*path, str(name)))}: {text}")
                self.free((*path, str(name)), inner)
        elif _is_list(value):
            for index, item in enumerate(value):
                self.free((*path, f"[{index}]"), item, None)
        elif isinstance(value, Unresolved) and self.position is not Position.CONFIGURATION:
            self._report(Fault.TARGET, f"{dotted(path)}: {value!s} does not resolve before Hydra builds this")

    def _leaf_of_section(self, path: KeyPath, value: Any, *, may_be_null: bool) -> None:
        if not (value is None and may_be_null):
            wrong = disagreement_with_shipped(value, path, self.shipped)
            if wrong is not None:
                self._report(Fault.VALUE, f"{dotted(path)}: {wrong}")
        self.free(path, value, None)

    def _reserved(self, path: KeyPath, value: Mapping[str, Any]) -> None:
        for name in value:
            if str(name).startswith("_") and str(name).endswith("_"):
                self._unknown((*path, str(name)), _HYDRA_KEYS, "not a word of Hydra's")

    def _targets_only(self, path: KeyPath, value: Any) -> None:
        """Check nothing but targets, below something that was refused already."""
        if isinstance(value, Mapping):
            if "_target_" in value:
                self.target(path, value)
                return
            for name, inner in value.items():
                self._targets_only((*path, str(name)), inner)
        elif _is_list(value):
            for index, item in enumerate(value):
                self._targets_only((*path, f"[{index}]"), item)

    def _no_target(self, path: KeyPath) -> None:
        self._report(Fault.KEY, f"{dotted((*path, '_target_'))}: expected the name of what to build, got none")

    def _unknown(self, path: KeyPath, siblings: Iterable[str], reason: str) -> None:
        self._report(Fault.KEY, f"{dotted(path)}: {reason}; {self._hint(path, list(siblings))}")

    def _hint(self, path: KeyPath, siblings: Sequence[str]) -> str:
        groups = [name for name in self.extra_keys if name.count("/") == path[-1].count("/")]  # no group within one
        beside = [*siblings, *(groups if len(path) == 1 else ())]
        others = sorted(set(self.shipped.full_keys()) - {dotted(path)}, reverse=True)
        elsewhere = {full.rpartition(".")[2]: full for full in others}
        if path[-1] in elsewhere and path[-1] not in beside:
            return f"did you mean {elsewhere[path[-1]]}?"
        close = [dotted((*path[:-1], name)) for name in nearest(path[-1], beside)]
        close = close or [elsewhere[name] for name in nearest(path[-1], elsewhere, count=2)]
        return f"did you mean {' or '.join(close)}?" if close else did_you_mean(path[-1], beside)

    def _report(self, fault: Fault, text: str) -> None:
        if fault is Fault.VALUE and self.position is not Position.CONFIGURATION:
            return  # Hydra's own schemas type its node, and turn everything into text
        problem = Problem(fault, text)
        if problem not in self.problems:
            self.problems.append(problem)


def dotted(path: KeyPath) -> str:
    """Return a path as it is written on the command line; list positions stand in brackets."""
    return ".".join(path).replace(".[", "[")


def raise_for(problems: Sequence[Problem]) -> None:
    """Raise one error that lists every problem, of the kind of the gravest.

    Raises:
        TargetNotAllowedError: One of them is a target.
        UnknownOptionError: One of them is a key.
        ConfigurationError: All of them are values.
    """
    if not problems:
        return
    first = next(fault for fault in Fault if any(problem.fault is fault for problem in problems))
    ordered = sorted(problems, key=lambda problem: list(Fault).index(problem.fault))
    raise first.value("\n".join(problem.text for problem in ordered))


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)

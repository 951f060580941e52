"""Checks of Hydra's own node: what Hydra builds before, around and instead of a run.

`hydra.callbacks`, the launcher, the sweeper and both logging configurations are acted upon before the task function
sees anything, so a check inside it would be too late.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

from medexp.composition.resolution import Unresolved, resolved_where_possible
from medexp.composition.schema import Checker, Fault, Problem, dotted
from medexp.composition.shipped import KeyPath, Shipped
from medexp.composition.targets import Position, check_target
from medexp.errors import TargetNotAllowedError
from medexp.suggestions import did_you_mean

_PLUGINS = {
    "callbacks": Position.CALLBACK,
    "launcher": Position.LAUNCHER,
    "sweeper": Position.SWEEPER,
}
_LOGGING = ("job_logging", "hydra_logging")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_FACTORY_KEYS = frozenset({"class", "()", "factory", "queue", "listener"})
# Environment variables that a job may be given; PYTHONPATH, LD_PRELOAD and our own switches would run or admit code.
_HARMLESS_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "GLOO_",
    "MKL_",
    "NCCL_",
    "NUMEXPR_",
    "OMP_",
    "OPENBLAS_",
    "PYTORCH_CUDA_ALLOC_CONF",
)


def check_hydra_node(config: DictConfig, shipped: Shipped) -> list[Problem]:
    """Return what is wrong with the `hydra` node of a composed configuration."""
    plain = resolved_where_possible(config.hydra)
    problems: list[Problem] = []
    for name, content in plain.items():
        path = ("hydra", name)
        if name in _LOGGING:
            problems += _check_logging(path, content)
            continue
        checker = Checker(shipped, position=_PLUGINS.get(name, Position.CONFIGURATION))
        checker.free(path, content)
        problems += checker.problems
    problems += _check_keys(("hydra",), plain, HydraConf)
    problems += _check_callbacks(plain.get("callbacks"))
    problems += _check_environment(plain["job"].get("env_set") or {})
    return problems


def has_interpolated_target(config: DictConfig) -> bool:
    """Return whether anything that names code depends on the value of another key."""
    return any("${" in name for name in _named(OmegaConf.to_container(config, resolve=False)))


def _named(node: object) -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, inner in node.items():
            if name == "_target_" or name in _FACTORY_KEYS:
                yield str(inner)
            yield from _named(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _named(inner)


def _check_keys(path: KeyPath, content: Mapping[str, Any], record: type) -> list[Problem]:
    """Compare with Hydra's own records; `+hydra.typo=1` passes Hydra itself."""
    kinds = {item.name: item.type for item in fields(record)}
    if record is HydraConf:  # groups that have no field
        kinds |= {name: object for default in HydraConf().defaults for name in default if name not in kinds}
    problems = []
    for name, inner in content.items():
        kind = kinds.get(name)
        if kind is None:
            hint = did_you_mean(dotted((*path, name)), (dotted((*path, known)) for known in kinds))
            problems.append(Problem(Fault.KEY, f"{dotted((*path, name))}: no such key; {hint}"))
        elif isinstance(inner, Mapping) and isinstance(kind, type) and is_dataclass(kind):
            problems += _check_keys((*path, name), inner, kind)
    return problems


def _check_callbacks(callbacks: object) -> list[Problem]:
    if not isinstance(callbacks, Mapping):
        return []
    bare = [name for name, node in callbacks.items() if not (isinstance(node, Mapping) and "_target_" in node)]
    text = "expected a node with _target_, got none"
    return [Problem(Fault.VALUE, f"hydra.callbacks.{name}: {text}") for name in bare]


def _check_environment(variables: Mapping[str, Any]) -> list[Problem]:
    refused = [name for name in variables if not str(name).startswith(_HARMLESS_VARIABLES)]
    listed = ", ".join(f"{name}*" if name.endswith("_") else name for name in _HARMLESS_VARIABLES)
    reason = f"a configuration may set only {listed}; export it instead"
    return [Problem(Fault.TARGET, f"hydra.job.env_set.{name}: {reason}") for name in refused]


def _check_logging(path: KeyPath, content: Any) -> list[Problem]:
    """Check what Python's `logging.config.dictConfig` would import, call or evaluate."""
    problems = []
    for where, value in _leaves(path, content):
        key, name = dotted(where), where[-1]
        try:
            if isinstance(value, Unresolved):
                raise TargetNotAllowedError(f"{key}: {value!s} does not resolve before the run")
            if name in _FACTORY_KEYS:
                check_target(value, key=key, position=Position.LOGGING)
            elif name == "_target_" or (name == "." and value):
                raise TargetNotAllowedError(f"{key}: not part of a logging configuration; refused")
            elif isinstance(value, str) and value.startswith(("ext://", "cfg://")) and value not in _STREAMS:
                raise TargetNotAllowedError(f"{key}: expected one of {', '.join(_STREAMS)}, got {value!r}")
        except TargetNotAllowedError as error:
            problems.append(Problem(Fault.TARGET, str(error)))
    return problems


def _leaves(path: KeyPath, value: Any) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, Mapping) and path[-1] not in _FACTORY_KEYS:
        for name, inner in value.items():
            yield from _leaves((*path, str(name)), inner)
    elif isinstance(value, Sequence) and not isinstance(value, str) and path[-1] not in _FACTORY_KEYS:
        for index, item in enumerate(value):
            yield from _leaves((*path, f"[{index}]"), item)
    else:
        yield path, value

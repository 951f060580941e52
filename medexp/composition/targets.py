"""What a `_target_` may be: everything that is not listed here is refused.

A target must be listed by the name that is written and by the place where it is defined, so that a name which one
module imported from another (`medexp.networks.unet.torch.load`) leads nowhere. Own packages are admitted with the
environment variable `MEDEXP_ALLOW_TARGETS`, never by configuration.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from medexp.composition.signatures import Signature, signature_of
from medexp.composition.sources import Definition, UnresolvedNameError, resolve
from medexp.errors import TargetNotAllowedError
from medexp.suggestions import nearest

ALLOW_VARIABLE = "MEDEXP_ALLOW_TARGETS"


class Position(Enum):
    """Where a target stands: what a log may build, a dataset may not."""

    CONFIGURATION = "the configuration"
    CALLBACK = "hydra.callbacks"
    LAUNCHER = "hydra.launcher"
    SWEEPER = "hydra.sweeper"
    LOGGING = "hydra's logging"


def _anything(definition: Definition) -> bool:
    return True


def _classes(definition: Definition) -> bool:
    return definition.is_class


def _stage(definition: Definition) -> bool:
    return definition.module.name == f"medexp.stages.{definition.node.name}"


def _prepares(definition: Definition) -> bool:
    name = definition.node.name
    return name.endswith("Layout") if definition.is_class else name.startswith(("find_cases", "write_mock"))


@dataclass(frozen=True)
class Rule:
    """A dotted name (everything below it, if it ends with a dot) and which of the definitions there are meant.

    `called_later` asks for `_partial_: true` on functions: composing a configuration builds parts, it never acts.
    """

    prefix: str
    admits: Callable[[Definition], bool] = _classes
    called_later: bool = False

    def covers(self, dotted: str) -> bool:
        """Return whether the name lies in this rule's reach."""
        return dotted.startswith(self.prefix) if self.prefix.endswith(".") else dotted == self.prefix


_MEDEXP = ("callbacks", "datasets", "diffusion", "inference", "losses", "metrics", "models", "networks")
_RULES: Mapping[Position, tuple[Rule, ...]] = {
    Position.CONFIGURATION: (
        Rule("torch.optim."),
        Rule("torch.nn."),
        Rule("lightning.Trainer"),
        Rule("lightning.pytorch.trainer.trainer.Trainer"),
        Rule("lightning.pytorch.callbacks."),
        Rule("monai.networks.nets."),
        Rule("monai.losses."),
        Rule("segmentation_models_pytorch."),
        *(Rule(f"medexp.{name}.", _anything, called_later=True) for name in (*_MEDEXP, "sampling", "transforms")),
        Rule("medexp.preparation.", _prepares, called_later=True),
        Rule("medexp.preparation.dose_grid."),
        Rule("medexp.stages.", _stage, called_later=True),
    ),
    Position.CALLBACK: (Rule("hydra.experimental.callbacks.LogJobReturnCallback"),),
    Position.LAUNCHER: (
        Rule("hydra._internal.core_plugins.basic_launcher.BasicLauncher"),
        Rule("hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"),
        Rule("hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"),
        Rule("hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"),
        Rule("hydra_plugins.medexp_launcher."),
    ),
    Position.SWEEPER: (
        Rule("hydra._internal.core_plugins.basic_sweeper.BasicSweeper"),
        Rule("hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"),
        Rule("hydra_plugins.medexp_sweeper."),
        Rule("optuna.samplers."),
    ),
    # No handler that opens a file or a connection: a configuration must not choose what is overwritten.
    Position.LOGGING: (
        Rule("logging.StreamHandler"),
        Rule("logging.NullHandler"),
        Rule("logging.Formatter"),
        Rule("rich.logging.RichHandler"),
    ),
}
# Below an allowed name, and yet it runs code that it fetches from a repository.
_EXCEPTIONS = ("monai.losses.perceptual.",)
# Arguments through which an allowed class runs a command, finds a function by name or fetches an address.
_COMMANDS: Mapping[str, frozenset[str]] = {
    "hydra_plugins.hydra_submitit_launcher.": frozenset({"additional_parameters", "python", "setup", "srun_args"}),
    "hydra_plugins.hydra_optuna_sweeper.": frozenset({"custom_search_space"}),
    "monai.networks.nets.hovernet.": frozenset({"pretrained_url"}),
}


@dataclass(frozen=True, eq=False)
class Target:
    """An allowed target: its definition, and whether it must stay `_partial_`."""

    written: str
    definition: Definition
    called_later: bool
    is_admitted: bool

    @property
    def signature(self) -> Signature:
        """Return the arguments that it takes."""
        return signature_of(self.definition)

    @property
    def commands(self) -> frozenset[str]:
        """Return the arguments that no configuration may set."""
        if self.is_admitted:
            return frozenset()
        path = self.definition.path
        return frozenset().union(*(names for prefix, names in _COMMANDS.items() if path.startswith(prefix)))


def admitted_prefixes() -> tuple[str, ...]:
    """Return what the environment variable admits, each ending with a dot."""
    listed = (entry.strip().rstrip(".") for entry in os.environ.get(ALLOW_VARIABLE, "").split(","))
    return tuple(f"{entry}." for entry in listed if entry)


def is_allowed(dotted: str, position: Position = Position.CONFIGURATION) -> bool:
    """Return whether a name, written or real, lies within the allow-list."""
    listed = any(rule.covers(dotted) for rule in _RULES[position]) and not dotted.startswith(_EXCEPTIONS)
    return listed or _is_admitted(dotted)


def check_target(written: object, *, key: str, position: Position = Position.CONFIGURATION) -> Target:
    """Return the target that a configuration names, resolved from source.

    Raises:
        TargetNotAllowedError: It is not on the allow-list, as written or as defined, or it cannot be resolved.
    """
    if not isinstance(written, str) or not all(part.isidentifier() for part in written.split(".")):
        raise TargetNotAllowedError(f"{key}: expected the dotted name of a class or function, got {written!r}")
    if _is_admitted(written):
        return _resolved(written, key=key, position=position, rules=())
    rules = tuple(rule for rule in _RULES[position] if rule.covers(written))
    exact = any(rule.prefix == written for rule in rules)
    if not rules or (not exact and any(part.startswith("_") for part in written.split("."))):
        raise TargetNotAllowedError(_refusal(written, key=key, position=position))
    return _resolved(written, key=key, position=position, rules=rules)


def _resolved(written: str, *, key: str, position: Position, rules: tuple[Rule, ...]) -> Target:
    try:
        definition = resolve(written)
    except UnresolvedNameError as error:
        close = nearest(error.missing or written.rpartition(".")[2], error.options)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise TargetNotAllowedError(f"{key}: {written!r} does not resolve: {error}{hint}") from error
    if not rules:
        if not _is_admitted(definition.path):
            raise TargetNotAllowedError(_refusal(written, key=key, position=position, found=definition.path))
        return Target(written, definition, called_later=False, is_admitted=True)
    # Where it is defined may be covered by another rule of the same package: lightning.Trainer is re-exported.
    package = written.partition(".")[0]
    homes = [rule for rule in _RULES[position] if rule.covers(definition.path) and rule.prefix.startswith(package)]
    home = next((rule for rule in homes if rule.admits(definition)), None)
    if home is None or definition.path.startswith(_EXCEPTIONS):
        raise TargetNotAllowedError(_refusal(written, key=key, position=position, found=definition.path))
    return Target(written, definition, called_later=home.called_later and not definition.is_class, is_admitted=False)


def _is_admitted(dotted: str) -> bool:
    return f"{dotted}.".startswith(admitted_prefixes())


def _refusal(written: str, *, key: str, position: Position, found: str | None = None) -> str:
    prefixes = (rule.prefix.rstrip(".") for rule in _RULES[position])
    listed = ", ".join(dict.fromkeys("medexp" if name.startswith("medexp.") else name for name in prefixes))
    is_elsewhere = f" (it is {found})" if found not in (None, written) else ""
    return (
        f"{key}: {written!r}{is_elsewhere} is not allowed in {position.value}; expected a part from {listed}. "
        f"A package of your own is admitted by the environment, not by configuration: {ALLOW_VARIABLE}=mypackage"
    )

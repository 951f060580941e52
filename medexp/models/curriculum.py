"""What a training stage trains, how long and at which rate: phases, schedules, freezing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from medexp.errors import ConfigurationError
from medexp.types import Count, Index

Schedule = Callable[..., float]
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One entry of a model's curriculum.

    Attributes:
        max_epochs: Epochs; read by the trainer.
        accumulate_grad_batches: Batches whose mean gradient makes one optimizer step; read by the trainer.
        freeze: Parts that do not train: a module or parameter by its dotted name, or a pattern with `*`.
        optimizer: Takes the parameters that train.
        schedule: One of the functions below: the learning rate's factor after a number of steps.
        warmup_steps: Optimizer steps over which the rate rises linearly to its full value, before the schedule.
    """

    max_epochs: Count
    accumulate_grad_batches: Count
    freeze: Sequence[str]
    optimizer: Callable[..., Optimizer]
    schedule: Schedule
    warmup_steps: Index

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            ConfigurationError: A count is out of its range.
        """
        for name, least in (("max_epochs", 1), ("accumulate_grad_batches", 1), ("warmup_steps", 0)):
            value = getattr(self, name)
            if value < least:
                raise ConfigurationError(f"model.curriculum.*.{name}: expected at least {least}, got {value}")

    def build_scheduler(self, optimizer: Optimizer, *, total_steps: int) -> LambdaLR:
        """Return the warm-up and the schedule over `total_steps` optimizer steps."""
        warmup = self.warmup_steps
        remaining = max(total_steps - warmup, 1)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            return self.schedule(min(step - warmup, remaining), total_steps=remaining)

        return LambdaLR(optimizer, factor)


def constant(step: int, *, total_steps: int) -> float:
    """Keep the rate."""
    return 1.0


def polynomial(step: int, *, total_steps: int, power: float) -> float:
    """Fall to zero as a power of the steps that remain; 1 is a straight line."""
    return (1 - step / total_steps) ** power


def cosine(step: int, *, total_steps: int, final_share: float) -> float:
    """Fall along half a cosine to `final_share` of the rate."""
    return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * step / total_steps))


def freeze(network: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Stop the matching parameters from training and return their names; all others train.

    Raises:
        ConfigurationError: A pattern matches no parameter (the message names the nearest parts), or nothing is left
            to train.
    """
    names = [name for name, _ in network.named_parameters()]
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in names):
            raise ConfigurationError(
                f"model.curriculum.*.freeze: expected parts of the network, got '{pattern}', which matches no "
                f"parameter; the nearest are {_nearest(pattern, names)}"
            )
    frozen = tuple(name for name in names if any(_matches(name, pattern) for pattern in patterns))
    if len(frozen) == len(names):
        raise ConfigurationError(
            f"model.curriculum.*.freeze: expected parameters left to train, got {list(patterns)}, which match all "
            f"{len(names)}: leave some out"
        )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return frozen


def find_frozen_modules(network: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Return the modules that must stay in evaluation mode: matched by name, or without a parameter that trains."""
    return [
        module
        for name, module in network.named_modules()
        if any(_matches(name, pattern) for pattern in patterns) or _is_frozen(module)
    ]


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _matches(name: str, pattern: str) -> bool:
    """Say whether a dotted name is the pattern or lies below it."""
    parts = name.split(".")
    heads = (".".join(parts[: end + 1]) for end in range(len(parts)))
    if _WILDCARDS & set(pattern):
        return any(fnmatchcase(head, pattern) for head in heads)
    return pattern in heads


def _nearest(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the parts whose names are the most alike; if none is, the network's first level."""
    parts = {".".join(name.split(".")[: end + 1]) for name in names for end in range(name.count(".") + 1)}
    by_case = {part.lower(): part for part in sorted(parts)}
    close = get_close_matches(pattern.lower(), sorted(by_case), n=3, cutoff=0.5)
    return [by_case[part] for part in close] or sorted({name.split(".")[0] for name in names})

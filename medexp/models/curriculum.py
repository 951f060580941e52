"""What a training stage trains, how long and at which rate: phases, schedules, freezing."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from medexp.errors import ConfigurationError
from medexp.types import Amount, Count, Index, PartialShare, Share

Schedule = Callable[..., float]
PlateauState = dict[str, float | int]
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One entry of a model's curriculum.

    Attributes:
        max_epochs: Epochs; read by the trainer.
        accumulate_grad_batches: Batches whose mean gradient makes one optimizer step; read by the trainer.
        freeze: Parts that do not train: a module or parameter by its dotted name, or a pattern with `*`.
        optimizer: Takes the parameters that train.
        schedule: One of the functions below, or a `Plateau`: the learning rate's factor after a number of steps.
        warmup_steps: Optimizer steps over which the rate rises linearly to its full value, before the schedule.
        loss: Of this phase; None: the model's.
    """

    max_epochs: Count
    accumulate_grad_batches: Count
    freeze: Sequence[str]
    optimizer: Callable[..., Optimizer]
    schedule: Schedule
    warmup_steps: Index
    loss: Callable[..., nn.Module] | None = None

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


class Plateau:
    """A learning rate that falls when validation no longer improves.

    The rate's factor is multiplied by `factor` when `monitor` has not improved by more than `min_delta` for more than
    `patience` validations in a row, down to `least_share` of the full rate. It falls with the second optimizer step
    after the validation. What was counted stands in every checkpoint: those of torch and Lightning hold the state from
    before the validation of their epoch, and a resumed run would go on from there.

    Source:
        `torch.optim.lr_scheduler.ReduceLROnPlateau` with an absolute threshold and no cooldown; agrees with it
        (tests/models/test_curriculum.py).
    """

    def __init__(
        self,
        *,
        monitor: str,
        mode: Literal["min", "max"],
        factor: PartialShare,
        patience: Index,
        min_delta: Amount,
        least_share: Share,
    ) -> None:
        """Take the rule.

        Args:
            monitor: A validation score.
            mode: Whether less or more of it is better.
            factor: What the rate is multiplied by.
            patience: Validations without an improvement that are waited for.
            min_delta: What counts as an improvement.
            least_share: Of the full rate; the rate does not fall below it.
        """
        self.monitor, self.mode, self.factor = monitor, mode, factor
        self.patience, self.min_delta, self.least_share = patience, min_delta, least_share
        self._best, self._waited, self._share = math.nan, 0, 1.0

    def __call__(self, step: int, *, total_steps: int) -> float:
        """Return the present share of the rate; steps do not change it."""
        return self._share

    def look_at(self, scores: Mapping[str, float]) -> None:
        """Compare the scores of a validation with the best so far.

        Raises:
            ConfigurationError: The monitored score is not among them.
        """
        if self.monitor not in scores:
            message = f"model.curriculum.*.schedule.monitor: expected one of {sorted(scores)}, got '{self.monitor}'"
            raise ConfigurationError(f"{message}; choose one of them")
        value = scores[self.monitor]
        if self._is_better(value):
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited > self.patience:
            self._share, self._waited = max(self._share * self.factor, self.least_share), 0

    def _is_better(self, value: float) -> bool:
        if math.isnan(value) or math.isnan(self._best):
            return not math.isnan(value)
        gain = value - self._best if self.mode == "max" else self._best - value
        return gain > self.min_delta

    def state_dict(self) -> PlateauState:
        """Return plain numbers."""
        return {"best": self._best, "waited": self._waited, "share": self._share}

    def load_state_dict(self, state: Mapping[str, float | int]) -> None:
        """Take up what was counted."""
        self._best, self._waited, self._share = float(state["best"]), int(state["waited"]), float(state["share"])


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

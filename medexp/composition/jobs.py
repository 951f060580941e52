"""The jobs that a sweep line means, and which of them must be composed to know that all are sound."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override

from medexp.composition.overrides import key_of
from medexp.errors import ConfigurationError

# What values of another key are checked against: which folds there are.
_DECIDE_OTHERS = frozenset({"dataset.num_folds", "dataset.splits_file"})


@dataclass(frozen=True)
class Choices:
    """One key with its values, each as a complete override (`stage='1'`); one value if the key is not swept."""

    overrides: tuple[str, ...]
    is_group: bool
    is_swept: bool

    @property
    def is_bare(self) -> bool:
        """Return whether every value is a number or word: it cannot change what else there is to check."""
        return (
            not self.is_group
            and key_of(self.overrides[0]) not in _DECIDE_OTHERS
            and not any(mark in text for text in self.overrides for mark in ("${", "{", "["))
        )


@dataclass(frozen=True)
class Sweep:
    """A sweep line, key by key."""

    choices: tuple[Choices, ...]

    @property
    def is_several(self) -> bool:
        """Return whether any key has several values."""
        return any(item.is_swept for item in self.choices)

    def jobs(self) -> Iterator[tuple[str, ...]]:
        """Yield every job's overrides, the last key fastest."""
        return product(*(item.overrides for item in self.choices))

    def structural_jobs(self) -> Iterator[tuple[str, ...]]:
        """Yield the jobs that differ in more than a bare value."""
        return product(*(item.overrides[:1] if item.is_bare else item.overrides for item in self.choices))

    def bare_values(self) -> Iterator[str]:
        """Yield the values that no structural job has, one override each."""
        return (override for item in self.choices if item.is_bare for override in item.overrides[1:])


def read_sweep(overrides: Sequence[Override], groups: Iterable[str]) -> Sweep:
    """Return the sweep that parsed overrides mean."""
    known = set(groups)
    return Sweep(
        tuple(
            Choices(_values(item), is_group=item.key_or_group in known, is_swept=item.is_sweep_override())
            for item in overrides
        )
    )


def sweeper_lines(params: Mapping[str, Any] | None, overrides: Sequence[str]) -> list[str]:
    """Return the overrides that a configuration sweeps over by itself, where the command line does not say other."""
    given = {key_of(override) for override in overrides}
    return [f"{key}={value}" for key, value in (params or {}).items() if key_of(f"{key}=") not in given]


def _values(override: Override) -> tuple[str, ...]:
    line = str(override.input_line)
    if not override.is_sweep_override():
        return (line,)
    head = override.get_key_element()
    if override.is_interval_sweep():
        interval = override.value()
        assert isinstance(interval, IntervalSweep)
        return (f"{head}={interval.start}", f"{head}={interval.end}")
    values = tuple(f"{head}={value}" for value in override.sweep_string_iterator())
    if not values:
        raise ConfigurationError(f"{line}: expected at least one value, and none fits")
    return values

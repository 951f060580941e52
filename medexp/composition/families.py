"""Configurations that differ in bare values only: composed and checked once, then varied in place.

A sweep over folds and seeds asks for hundreds of them, each with its upstream; composing one takes a tenth of a second.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from medexp.composition.overrides import key_of

# A key without a prefix, and a number or word: nothing that Hydra would read as more than a value.
_BARE = re.compile(r"(?!hydra\.)[A-Za-z_][\w.]*=[\w.+-]+")

Shape = tuple[str, ...]


def shape_of(overrides: Sequence[str], groups: Collection[str]) -> Shape:
    """Return what a line shares with its family: the keys of its bare values, and everything else whole."""
    return tuple(key_of(text) if _is_bare(text, groups) else text for text in overrides)


def _is_bare(text: str, groups: Collection[str]) -> bool:
    return _BARE.fullmatch(text) is not None and key_of(text) not in groups


class Family:
    """One composed configuration, whose bare values can be exchanged.

    Args:
        config: Composed from `overrides`; it belongs to the family from now on.
        overrides: The line, normalized.
        value_of: Reads the value of an override as Hydra does.
    """

    def __init__(self, config: DictConfig, overrides: Sequence[str], value_of: Callable[[str], Any]) -> None:
        self.choices = dict(config.hydra.runtime.choices)
        with open_dict(config):
            del config["hydra"]  # it says what was given first
        self._config, self._given, self._value_of = config, tuple(overrides), value_of
        self._is_lent = False
        self._checked = set(overrides)

    def unchecked(self, overrides: Sequence[str]) -> list[str]:
        """Return the keys of the values that are asked for here for the first time."""
        new = [text for text in overrides if text not in self._checked]
        self._checked.update(new)
        return [key_of(text) for text in new]

    @contextmanager
    def varied(self, overrides: Sequence[str]) -> Iterator[DictConfig | None]:
        """Lend the configuration of another line of the family; None while it is lent already."""
        if self._is_lent:
            yield None
            return
        self._is_lent = True
        try:
            for new, old in zip(overrides, self._given, strict=True):
                if new != old:
                    OmegaConf.update(self._config, key_of(new), self._value_of(new))
            self._given = tuple(overrides)
            yield self._config
        finally:
            self._is_lent = False

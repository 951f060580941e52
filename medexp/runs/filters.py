"""`key=value` filters over what is known of runs: in the listing on the terminal, and in what stage=compare chooses."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from medexp.errors import ConfigurationError, UnknownOptionError
from medexp.suggestions import did_you_mean

Facts = Mapping[str, Any]

_PATTERNS = "*?["


@dataclass(frozen=True)
class Filters:
    """What runs are wanted: every key must hold, by any of its values.

    A key that is given twice, or with commas, has several values; `*` and `?` stand for any letters.
    """

    wanted: Mapping[str, tuple[str, ...]]

    @classmethod
    def parse(cls, texts: Iterable[str], *, where: str) -> "Filters":
        """Read filters such as `["model=unet3d", "fold=0,1"]`; `where` names them in messages.

        Raises:
            ConfigurationError: One of them is no `key=value`.
        """
        wanted: dict[str, tuple[str, ...]] = {}
        for text in texts:
            key, sign, values = text.partition("=")
            if not (sign and key.strip() and values.strip()):
                raise ConfigurationError(f"{where}: expected filters like model=unet3d, got {text!r}")
            given = tuple(value.strip().strip("'\"") for value in values.split(","))
            wanted[key.strip()] = (*wanted.get(key.strip(), ()), *given)
        return cls(wanted)

    def matching(
        self, described: Sequence[Facts], *, where: str, known: Mapping[str, Sequence[str]] | None = None
    ) -> list[int]:
        """Return the places of the facts that match all filters.

        Args:
            described: What is known of each run.
            where: Names the filters in messages.
            known: Values that may be asked for although no run has them, by key.

        Raises:
            UnknownOptionError: No run has such a key, or none has such a value; the nearest that exists is named.
        """
        for key, values in self.wanted.items():
            self._require_known(key, values, described, where, (known or {}).get(key, ()))
        return [place for place, facts in enumerate(described) if self._holds(facts)]

    @staticmethod
    def _require_known(
        key: str, values: Sequence[str], described: Sequence[Facts], where: str, known: Sequence[str]
    ) -> None:
        if not described:
            return
        keys = {name for facts in described for name in facts}
        if key not in keys:
            raise UnknownOptionError(f"{where}: no run has a key {key}; {did_you_mean(key, keys)}")
        present = {text for facts in described for text in _texts(facts.get(key))} | set(known)
        for value in values:
            if not any(_equal(value, text) for text in present):
                raise UnknownOptionError(f"{where}: no run has {key}={value}; {did_you_mean(value, present)}")

    def _holds(self, facts: Facts) -> bool:
        return all(
            any(_equal(value, text) for value in values for text in _texts(facts.get(key)))
            for key, values in self.wanted.items()
        )


def _texts(value: Any) -> list[str]:
    """Return a value as it is written on a command line; of several (tags) each."""
    if isinstance(value, list | tuple | set | frozenset):
        return [text for one in value for text in _texts(one)]
    if value is None:
        return ["null"]
    return [str(value).lower() if isinstance(value, bool) else str(value)]


def _equal(wanted: str, found: str) -> bool:
    if wanted == found or (any(sign in wanted for sign in _PATTERNS) and fnmatchcase(found, wanted)):
        return True
    try:
        return float(wanted) == float(found)
    except ValueError:
        return False

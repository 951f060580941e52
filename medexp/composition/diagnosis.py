"""Hydra's errors in medexp's words: which override, which key, and the nearest one that exists."""

import re
from collections.abc import Iterable, Mapping, Sequence

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from yaml import YAMLError

from medexp.composition.groups import Option
from medexp.composition.shipped import Shipped
from medexp.errors import ConfigurationError, UnknownOptionError
from medexp.suggestions import did_you_mean, nearest

_NOT_THERE = re.compile(r"Could not (?:override|delete)[^']*'(?P<key>[^']+)'")
_IS_THERE = re.compile(r"An item is already at '(?P<key>[^']+)'")
# Options that other packages bring, and the extra that installs them.
_EXTRAS = {
    ("hydra/sweeper", "optuna"): "hpo",
    ("hydra/launcher", "submitit_local"): "slurm",
    ("hydra/launcher", "submitit_slurm"): "slurm",
}
_GIVEN_TWICE = re.compile(r"Multiple values for|appears more than once in the final defaults list")


def explained(
    error: Exception,
    *,
    groups: Mapping[str, Sequence[Option]],
    shipped: Shipped,
    overrides: Sequence[Override] = (),
    is_addable: bool = False,
) -> ConfigurationError:
    """Return the error to raise instead of one of Hydra's, OmegaConf's or the YAML reader's.

    Args:
        error: What was raised.
        groups: The groups and their options.
        shipped: The keys that there are.
        overrides: The command line.
        is_addable: Whether the command line would be sound if every key had a `+`.
    """
    text = _chain(error)
    if isinstance(error, MissingConfigException):
        return _missing_option(error, groups)
    if isinstance(error, OverrideParseException):
        first = str(error).splitlines()[0]
        return ConfigurationError(f"{error.override!r}: expected key=value, got something unreadable: {first}")
    if isinstance(error, YAMLError):
        return ConfigurationError(f"a configuration file is no valid YAML: {error}")
    choice = next((item for item in overrides if item.key_or_group in groups and item.value() is None), None)
    if choice is not None and "Config group override" in text:
        names = ", ".join(option.name for option in groups[choice.key_or_group])
        return ConfigurationError(f"{choice.input_line}: expected one of {names}, got null")
    absent = _NOT_THERE.search(text)
    if absent and is_addable:
        return _addable_key(absent["key"], shipped)
    if absent:
        return _absent_key(absent["key"], groups, shipped)
    present = _IS_THERE.search(text)
    if present:
        return ConfigurationError(f"+{present['key']}: the key exists already; write {present['key']}=... without +")
    if _GIVEN_TWICE.search(text):
        return _chosen_twice(text, groups, overrides)
    return ConfigurationError(" ".join(line.strip() for line in text.splitlines()[:4] if line.strip()))


def _chosen_twice(
    text: str, groups: Mapping[str, Sequence[Option]], overrides: Sequence[Override]
) -> ConfigurationError:
    added = next((item.key_or_group for item in overrides if item.is_add() and item.key_or_group in groups), None)
    if added is not None:
        return ConfigurationError(f"+{added}: the group is chosen already; write {added}=<option> without +")
    lines = text.splitlines()
    return ConfigurationError(f"{lines[0].strip()}; in a defaults list write '- override /<group>: <option>'")


def unknown_key(key: str, groups: Iterable[str], shipped: Shipped) -> UnknownOptionError:
    """Return the error for a key or group that does not exist, with the nearest full key."""
    full = [*groups, *shipped.full_keys()]
    close = nearest(key, _as_deep(key, full)) or nearest(key, full)
    if not close:
        by_last = {name.rpartition(".")[2]: name for name in sorted(full, reverse=True)}
        close = [by_last[last] for last in nearest(key.rpartition(".")[2], by_last)]
    hint = f"did you mean {' or '.join(close)}?" if close else did_you_mean(key, shipped.keys.get((), ()))
    return UnknownOptionError(f"{key}: no such key; {hint}")


def _absent_key(key: str, groups: Mapping[str, Sequence[Option]], shipped: Shipped) -> ConfigurationError:
    name = key.partition("@")[0].lstrip("/")
    if name in groups:
        return ConfigurationError(f"{key}: nothing chooses this group here; add it with +{key}=<option>")
    return unknown_key(name, groups, shipped)


def _addable_key(key: str, shipped: Shipped) -> ConfigurationError:
    """Return the error for a key that a mapping with free names may have, but does not."""
    *parent, last = key.split(".")
    near = [".".join([*parent, name]) for name in nearest(last, shipped.keys.get(tuple(parent), ()))]
    hint = f"did you mean {' or '.join(near)}? To add it all the same, write" if near else "add it with"
    return UnknownOptionError(f"{key}: exists, but no file sets it here; {hint} +{key}=...")


def _missing_option(error: MissingConfigException, groups: Mapping[str, Sequence[Option]]) -> UnknownOptionError:
    group, _, name = str(error.missing_cfg_file or "").rpartition("/")
    if (extra := _EXTRAS.get((group, name))) is not None:
        return UnknownOptionError(f"{group}={name}: expected its package, found none: pip install 'medexp[{extra}]'")
    if group in groups or error.options:
        options = [option.name for option in groups.get(group, ())] or list(error.options or ())
        return UnknownOptionError(f"{group}={name}: no such option; {did_you_mean(name, options)}")
    wanted = group or name
    return UnknownOptionError(f"{wanted}: no such group; {did_you_mean(wanted, _as_deep(wanted, groups) or groups)}")


def _as_deep(name: str, names: Iterable[str]) -> list[str]:
    """Return the names that lie as deep as this one: a misspelt `dataset` does not mean `dataset/grid`."""

    def depth(one: str) -> tuple[int, int]:
        return one.count("."), one.count("/")

    return [one for one in names if depth(one) == depth(name)]


def _chain(error: BaseException) -> str:
    """Return the messages of an error and its causes; Hydra puts the reason into the cause."""
    texts: list[str] = []
    link: BaseException | None = error
    while link is not None:
        if str(link) and str(link) not in texts:
            texts.append(str(link))
        link = link.__cause__
    return "\n".join(texts) or type(error).__name__


KNOWN_ERRORS = (HydraException, YAMLError)

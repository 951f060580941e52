"""The flags of the command line: Hydra's, without those that would load code or another configuration."""

from collections.abc import Sequence

from medexp.errors import ConfigurationError, UnknownOptionError
from medexp.suggestions import did_you_mean, nearest

_REFUSED = {
    "--experimental-rerun": "it unpickles a file, which can run any code; repeat the run's recorded command instead",
    "--config-name": "there is one configuration; choose experiment=<name>, or add a folder with --config-dir",
    "--config-path": "there is one configuration; choose experiment=<name>, or add a folder with --config-dir",
}
_SHORT = {
    "-h": "--help",
    "-c": "--cfg",
    "-p": "--package",
    "-r": "--run",
    "-m": "--multirun",
    "-sc": "--shell-completion",
    "-cp": "--config-path",
    "-cn": "--config-name",
    "-cd": "--config-dir",
    "-i": "--info",
}
_LONG = ("--hydra-help", "--version", "--resolve", "--experimental-rerun", *_SHORT.values())
_CHOICES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
_OPTIONAL_VALUE = frozenset({"--info"})


def refuse_flags(argv: Sequence[str]) -> None:
    """Refuse flags that do not exist, values that a flag does not take, and what would load code.

    Abbreviations count as well, as Hydra reads them.

    Raises:
        UnknownOptionError: There is no such flag or value; the message has the nearest.
        ConfigurationError: The flag would load code or another configuration.
    """
    for position, argument in enumerate(argv):
        if not argument.startswith("-") or argument == "-":
            continue
        flag, equals, value = argument.partition("=")
        meant = _meant(flag)
        for name in meant:
            if name in _REFUSED:
                raise ConfigurationError(f"{flag}: refused: {_REFUSED[name]}")
        if len(meant) != 1:
            raise UnknownOptionError(_explained(flag, meant))
        if meant[0] in _CHOICES:
            _require_choice(meant[0], value if equals else _next(argv, position))


def _meant(flag: str) -> list[str]:
    if flag in _SHORT:
        return [_SHORT[flag]]
    if flag in _LONG:
        return [flag]
    return [name for name in _LONG if len(flag) > 2 and flag.startswith("--") and name.startswith(flag)]


def _explained(flag: str, meant: Sequence[str]) -> str:
    if meant:
        return f"{flag}: expected one flag, got the beginning of {' and '.join(meant)}; write it out"
    known = [*_LONG, *_SHORT]
    near = nearest(flag, known)
    return f"{flag}: no such flag; " + (f"did you mean {' or '.join(near)}?" if near else "--help lists them")


def _require_choice(flag: str, value: str | None) -> None:
    if value is None and flag in _OPTIONAL_VALUE:
        return
    if value not in _CHOICES[flag]:
        options = _CHOICES[flag]
        got = "nothing" if value is None else repr(value)
        hint = did_you_mean(value or "", options)
        raise UnknownOptionError(f"{flag}: expected one of {', '.join(options)}, got {got}; {hint}")


def _next(argv: Sequence[str], position: int) -> str | None:
    """Return the word after a flag, if it can be its value: neither a flag nor an override."""
    following = argv[position + 1] if position + 1 < len(argv) else None
    return None if following is None or following.startswith("-") or "=" in following else following

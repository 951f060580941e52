"""What a user may write on the command line, made so that Hydra 1.3 understands it.

A choice from a group that looks like a number is quoted (`stage=2` becomes `stage='2'`), because Hydra refuses a
number there; so is an override inside a list (`upstream.overrides=[dataset=nnunet]`). The same key twice, secrets in
clear text and search paths are refused.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from medexp.composition.groups import options_by_group
from medexp.composition.locations import conf_dir
from medexp.errors import ConfigurationError

_OVERRIDE = re.compile(r"^(?P<prefix>~|\+\+|\+)?(?P<key>[^=@]+)(?P<package>@[^=]*)?(?P<value>=.*)?$", re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<quoted>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*") | (?P<mark>[,()\[\]]) | (?P<text>[^,()\[\]'"]+)""",
    re.VERBOSE,
)
_RANGE = re.compile(r"^range\(([^()]*)\)$")
_LIKE_A_NUMBER = re.compile(
    r"^[+-]?(?:(?:\d[\d_]*)?\.?\d[\d_]*\.?(?:e[+-]?\d[\d_]*)?|inf|nan)$|^(?:true|false)$", re.IGNORECASE
)
_LIKE_AN_OVERRIDE = re.compile(r"^[~+]{0,2}[\w./@]+=[^\s]+$")
_SECRET_WORD = r"(?:token|password|passwd|secret|api_?key)"
_SECRET_KEY = re.compile(_SECRET_WORD, re.IGNORECASE)
_SECRET_ENTRY = re.compile(rf"\w*{_SECRET_WORD}\w*\s*:\s*(?P<value>[^,}}]*)", re.IGNORECASE)
_CREDENTIALS = re.compile(r"://[^/@\s$]*:[^/@\s$]+@")


def normalize(overrides: Iterable[str], *, config_dirs: Sequence[Path | str] = ()) -> list[str]:
    """Return the overrides as Hydra needs them; a second pass changes nothing.

    Args:
        overrides: `key=value`, `+key=value`, `++key=value`, `~key`, `group@package=option`.
        config_dirs: Folders given with `--config-dir`; their groups count too.

    Raises:
        ConfigurationError: A key stands twice, a secret stands in clear text, or code would be searched.
    """
    listed = [str(override) for override in overrides]
    for override in listed:
        _refuse_secret(override)
        _refuse_search_path(override)
    _refuse_twice(listed)
    groups = options_by_group([conf_dir(), *map(Path, config_dirs)])
    return [_quoted(override, groups) for override in listed]


def key_of(override: str) -> str:
    """Return the key of an override without its prefix and package."""
    match = _OVERRIDE.match(override.strip())
    return match["key"].strip() if match else override


def _quoted(override: str, groups: Iterable[str]) -> str:
    match = _OVERRIDE.match(override)
    if match is None or match["value"] is None:
        return override
    key, value = match["key"].strip(), match["value"][1:]
    head = override[: len(override) - len(match["value"])]
    if (key in groups or "/" in key) and not value.lstrip().startswith("{"):
        return f"{head}={_with_quotes(_listed_range(value), _LIKE_A_NUMBER)}"
    if value.lstrip().startswith("[") and "(" not in value:
        return f"{head}={_with_quotes(value, _LIKE_AN_OVERRIDE)}"
    return override


def _with_quotes(value: str, pattern: re.Pattern[str]) -> str:
    """Quote the bare words that match."""
    parts: list[str] = []
    position = 0
    for token in _TOKEN.finditer(value):
        if token.start() != position:
            return value  # an unbalanced quote: Hydra explains it better
        position = token.end()
        text = token.group()
        bare = text.strip()
        is_meant = token["text"] is not None and pattern.match(bare)
        parts.append(text.replace(bare, f"'{bare}'") if is_meant else text)
    return "".join(parts) if position == len(value) else value


def _listed_range(value: str) -> str:
    """Return `1,2` for `range(1,3)`: Hydra would sweep over numbers, and a choice is text."""
    match = _RANGE.match(value.strip())
    if match is None:
        return value
    try:
        numbers = range(*(int(item) for item in match[1].split(",")))
    except (TypeError, ValueError):
        return value
    return ",".join(str(number) for number in numbers)


def _refuse_twice(overrides: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for override in overrides:
        key = key_of(override)
        if key in seen:
            raise ConfigurationError(f"{key}: given twice, as {seen[key]!r} and as {override!r}; keep one")
        seen[key] = override


def _refuse_secret(override: str) -> None:
    match = _OVERRIDE.match(override.strip())
    if match is None or match["value"] is None:
        return
    key, value = match["key"], match["value"][1:]
    named = [(entry[0], entry["value"]) for entry in _SECRET_ENTRY.finditer(value)]
    if _SECRET_KEY.search(key):
        named.append((key, value))
    if any(_is_in_clear_text(*pair) for pair in named) or _CREDENTIALS.search(value):
        raise ConfigurationError(
            f"{key}: looks like a secret in clear text, which records and process lists would keep; put it into an "
            f"environment variable and give {key}='${{oc.env:NAME}}'"
        )


def _is_in_clear_text(key: str, value: str) -> bool:
    bare = value.strip().strip("'\"").strip()
    is_count = bare.isdigit() and _SECRET_KEY.search(key.lower().replace("token", "")) is None  # num_tokens=4
    return bool(bare) and "${" not in bare and bare.lower() not in ("null", "true", "false") and not is_count


def _refuse_search_path(override: str) -> None:
    if key_of(override) == "hydra.searchpath":
        raise ConfigurationError(f"{override}: a search path can import code; give your folder with --config-dir")

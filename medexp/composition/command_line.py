"""A command line, checked before Hydra sees it."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medexp.composition.flags import refuse_flags

_DEMO = "experiment=demo"


@dataclass(frozen=True)
class CommandLine:
    """What Hydra is to be called with, or the help that answers the command."""

    argv: list[str]
    help_text: str | None = None


def read_command_line(argv: Sequence[str]) -> CommandLine:
    """Return the command line for Hydra after everything that configuration can get wrong was checked.

    Without any override it is `experiment=demo`. Nothing heavy is imported.

    Raises:
        ConfigurationError: An option, key, value or target is refused; the message names it.
    """
    if any(flag in {"--help", "-h"} for flag in argv):
        from medexp.composition.help import help_text

        return CommandLine([], help_text())
    refuse_flags(argv)
    flags, overrides, config_dirs = _split(argv)
    if "--shell-completion" in flags or "-sc" in flags:  # its words are unfinished by nature
        from medexp.composition.completion import completion_script, prepare_completion

        prepare_completion()
        return CommandLine(list(argv), completion_script(argv))
    if any(flag.startswith("--hydra-help") for flag in flags):
        return CommandLine(list(argv))
    from medexp.composition.composer import checked

    composed = checked(overrides or [_DEMO], config_dirs=config_dirs, multirun=_is_multirun(flags))
    return CommandLine([*flags, *composed.overrides])


def _split(argv: Sequence[str]) -> tuple[list[str], list[str], list[Path]]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for names in (("--config-dir", "-cd"), ("--cfg", "-c"), ("--package", "-p")):
        parser.add_argument(*names)
    parser.add_argument("--info", "-i", nargs="?", const="all")
    known, rest = parser.parse_known_args(list(argv))
    flags = [text for text in rest if text.startswith("--") or (text.startswith("-") and "=" not in text)]
    overrides = [text for text in rest if text not in flags]
    for name in ("config_dir", "cfg", "package", "info"):
        if (value := getattr(known, name)) is not None:
            flags += [f"--{name.replace('_', '-')}", value]
    return flags, overrides, [Path(known.config_dir)] if known.config_dir else []


def _is_multirun(flags: Sequence[str]) -> bool:
    return "-m" in flags or "--multirun" in flags

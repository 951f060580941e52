"""Shell completion of `python -m medexp.run`, which Hydra's own knows only for scripts."""

import os
import re
from collections.abc import Sequence

from medexp.composition.overrides import normalize
from medexp.errors import ConfigurationError

_COMMAND = re.compile(r"^.*?-m\s+medexp\.run(?=\s|$)\s*")
_BASH = """\
_medexp_complete() {
    case "$COMP_LINE" in *"-m medexp.run "*) ;; *) return ;; esac
    local answers
    answers=$(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" "${COMP_WORDS[0]}" -m medexp.run -sc query=bash)
    COMPREPLY=($(compgen -o nospace -o default -W "$answers" -- "${COMP_WORDS[COMP_CWORD]}"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _medexp_complete python python3
"""


def completion_script(argv: Sequence[str]) -> str | None:
    """Return the function that bash is to load, if it is asked for (`-sc install=bash`)."""
    return _BASH if "install=bash" in argv else None


def prepare_completion() -> None:
    """Rewrite the line that the shell hands over (`COMP_LINE`) into one that Hydra's completion reads."""
    line = os.environ.get("COMP_LINE")
    if line is not None:
        os.environ["COMP_LINE"] = readable_line(line)


def readable_line(line: str) -> str:
    """Return `medexp <overrides>`: flags dropped, and every word but the unfinished one as Hydra needs it."""
    *whole, unfinished = _COMMAND.sub("", line).split(" ")
    words = [word for word in whole if word and "=" in word and not word.startswith("-")]
    try:
        words = normalize(words)
    except ConfigurationError:
        words = []  # it will be said when the line is run
    return " ".join(["medexp", *words, unfinished])

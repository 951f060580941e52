"""The nearest names to a misspelt one."""

from collections.abc import Iterable
from difflib import get_close_matches

_MAX_LISTED = 12
_SLIP = 0.85  # from this likeness on two names are one word, written wrong: a letter or two of ten


def is_slip(name: str, options: Iterable[str]) -> bool:
    """Return whether `name` is none of the options, but one of them with a slip of the pen."""
    known = [option.casefold() for option in options]
    return name.casefold() not in known and bool(get_close_matches(name.casefold(), known, n=1, cutoff=_SLIP))


def nearest(name: str, options: Iterable[str], *, count: int = 3) -> list[str]:
    """Return the options that look most like `name`, best first; empty if none does."""
    by_folded: dict[str, str] = {}
    for option in options:
        by_folded.setdefault(option.casefold(), option)
    return [by_folded[match] for match in get_close_matches(name.casefold(), by_folded, n=count, cutoff=0.6)]


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return the end of a message: the nearest options, else those there are."""
    known = sorted(set(options))
    close = nearest(name, known)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if not known:
        return "there is nothing to choose from"
    more = f" and {len(known) - _MAX_LISTED} more" if len(known) > _MAX_LISTED else ""
    return f"there are {', '.join(known[:_MAX_LISTED])}{more}"

"""Do the names in the configuration agree with the prepared cohort? By name, never by position alone."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from medexp.errors import ManifestError, UnknownOptionError

BACKGROUND = "background"


def agreed_channels(
    configured: Sequence[str] | None, stored: Sequence[str], *, where: str, key: str = "channels"
) -> tuple[str, ...]:
    """Return the channel names in the order in which a network gets them: the configuration's, else the store's.

    Args:
        configured: The configuration's; None: the store's.
        stored: The store's.
        where: The prepared cohort's place, for messages.
        key: What the names are called in the configuration.

    Raises:
        ManifestError: The two do not name the same channels.
    """
    if configured is None:
        return tuple(stored)
    if len(configured) != len(stored) or set(configured) != set(stored):
        raise ManifestError(
            f"dataset.{key}: expected the {key} of the prepared cohort {list(stored)} in any order, "
            f"got {list(configured)}; correct the key or run stage=prepare ({where})"
        )
    return tuple(configured)


def agreed_labels(configured: Mapping[str, int] | None, stored: Mapping[str, int], *, where: str) -> dict[str, int]:
    """Return the foreground labels by rising value.

    Raises:
        ManifestError: The configuration gives names or values that the prepared cohort does not have.
    """
    if configured is not None and dict(configured) != dict(stored):
        raise ManifestError(
            f"dataset.labels: expected the labels of the prepared cohort {dict(stored)}, got {dict(configured)}; "
            f"correct the key or run stage=prepare ({where})"
        )
    return dict(sorted(stored.items(), key=lambda item: item[1]))


def require_known_labels(names: Iterable[str], labels: Iterable[str], *, key: str, kind: str = "labels") -> None:
    """Refuse names that are no labels, or whatever `kind` calls them.

    Raises:
        UnknownOptionError: Names the key and the nearest label.
    """
    known = list(labels)
    for name in names:
        if name not in known:
            close = [label for label in known if label.casefold() == name.casefold()]
            close = close or get_close_matches(name, known, n=1) or get_close_matches(name.upper(), known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}"
            raise UnknownOptionError(f"{key}: expected names of {kind}, got '{name}'; {hint}")

"""The door for configuration: what is chosen is composed, checked and built here, and nowhere below.

`from medexp.composition import compose` works in notebooks and tests. Names are loaded when first used, so that
`--help` need not import Hydra.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medexp.composition.build import instantiate
    from medexp.composition.composer import Composed, checked, compose, resolved_stage
    from medexp.composition.flags import refuse_flags
    from medexp.composition.help import help_text, print_help
    from medexp.composition.locations import conf_dir
    from medexp.composition.overrides import normalize

_HOMES = {
    "Composed": "composer",
    "checked": "composer",
    "compose": "composer",
    "conf_dir": "locations",
    "help_text": "help",
    "instantiate": "build",
    "normalize": "overrides",
    "print_help": "help",
    "refuse_flags": "flags",
    "resolved_stage": "composer",
}

__all__ = [
    "Composed",
    "checked",
    "compose",
    "conf_dir",
    "help_text",
    "instantiate",
    "normalize",
    "print_help",
    "refuse_flags",
    "resolved_stage",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Where the configuration lies and where output goes, in a checkout and in an installed wheel."""

import os
from pathlib import Path

OUTPUT_VARIABLE = "MEDEXP_OUTPUT_DIR"
_PACKAGE = Path(__file__).resolve().parents[1]


def conf_dir() -> Path:
    """Return the folder with `config.yaml`: inside the package (wheel) or beside it (checkout)."""
    inside = _PACKAGE / "conf"
    return inside if (inside / "config.yaml").is_file() else _PACKAGE.parent / "conf"


def default_output_dir() -> Path:
    """Return the checkout's `multirun/`, or `./multirun` when medexp was installed from a wheel."""
    in_checkout = conf_dir().parent != _PACKAGE
    return (_PACKAGE.parent if in_checkout else Path.cwd()) / "multirun"


def set_default_output_dir() -> None:
    """Give the environment variable that `conf/config.yaml` reads its default value."""
    os.environ.setdefault(OUTPUT_VARIABLE, str(default_output_dir()))

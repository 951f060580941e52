"""Where output goes unless `output_dir` says otherwise, in a checkout and in an installed wheel."""

import os
from pathlib import Path

import yaml

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


def present_output_dir() -> Path:
    """Return where runs lie that were started without `output_dir=`: conf/local.yaml, the environment, the default."""
    local = conf_dir() / "local.yaml"
    own = yaml.safe_load(local.read_text(encoding="utf-8")) if local.is_file() else None
    chosen = own.get("output_dir") if isinstance(own, dict) else None
    if isinstance(chosen, str) and "${" not in chosen:
        return Path(chosen)
    return Path(os.environ.get(OUTPUT_VARIABLE) or default_output_dir())

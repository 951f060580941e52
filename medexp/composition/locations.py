"""Where the configuration lies and where output goes, in a checkout and in an installed wheel."""

import os

from medexp.runs.places import OUTPUT_VARIABLE, conf_dir, default_output_dir

__all__ = ["OUTPUT_VARIABLE", "conf_dir", "default_output_dir", "set_default_output_dir"]


def set_default_output_dir() -> None:
    """Give the environment variable that `conf/config.yaml` reads its default value."""
    os.environ.setdefault(OUTPUT_VARIABLE, str(default_output_dir()))

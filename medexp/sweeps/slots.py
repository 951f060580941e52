"""Which GPUs a job may see: a slot that it has for itself while it runs."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from medexp.errors import ConfigurationError

VARIABLE = "CUDA_VISIBLE_DEVICES"
_DEVICE = re.compile(r"nvidia\d+")


def slots_of(gpus: str | Sequence[int | str] | None, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return what `CUDA_VISIBLE_DEVICES` is in each slot; empty if jobs see whatever the sweep sees.

    Args:
        gpus: None; `auto`: a slot for each device that this process may use; or a list with a device, or several
            as text (`"0,1"`), for each slot. The same device twice is two jobs on it.
        environment: Where a restriction to some devices is read.

    Raises:
        ConfigurationError: `auto` finds no device, or the value is none of these.
    """
    if gpus is None:
        return []
    if isinstance(gpus, str):
        if gpus != "auto":
            raise ConfigurationError(f"sweep.gpus: expected null, auto or a list such as [0,1], got {gpus!r}")
        found = _visible(environment)
        if not found:
            raise ConfigurationError("sweep.gpus=auto: expected a CUDA device, found none; leave sweep.gpus out")
        return found
    if not gpus:
        raise ConfigurationError(
            "sweep.gpus: expected at least one device in the list, got none; null is no restriction"
        )
    return [str(gpu) for gpu in gpus]


def _visible(environment: Mapping[str, str]) -> list[str]:
    if VARIABLE in environment:
        return [name.strip() for name in environment[VARIABLE].split(",") if name.strip() not in ("", "-1")]
    devices = [path.name for path in Path("/dev").glob("nvidia*") if _DEVICE.fullmatch(path.name)]
    return [str(number) for number in range(len(devices))]

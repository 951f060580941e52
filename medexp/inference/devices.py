"""Where and how precisely a network runs outside of a trainer, in the trainer's own words."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from medexp.errors import ConfigurationError

Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]
Precision = Literal[32, "32", "32-true", "bf16-mixed", "16-mixed"]

_PRECISIONS = {"32": None, "32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def choose_device(accelerator: str) -> torch.device:
    """Return the device of `hardware.accelerator`; auto takes CUDA, then Apple's GPU, then the processor.

    Raises:
        ConfigurationError: There is no such accelerator, or this machine has none.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    present = [name for name, is_there in there.items() if is_there]
    wanted = {"gpu": "cuda"}.get(accelerator, accelerator)
    if wanted == "auto":
        wanted = present[0]
    if wanted not in present:
        raise ConfigurationError(
            f"hardware.accelerator: expected auto or one of {present}, which this machine has, "
            f"got '{accelerator}': choose one of them"
        )
    return torch.device(wanted)


def autocast_for(precision: str | int, device: torch.device) -> AbstractContextManager[torch.autocast | None]:
    """Return the context in which a network runs with `hardware.precision`.

    Raises:
        ConfigurationError: The precision is not one of those that prediction knows.
    """
    if str(precision) not in _PRECISIONS:
        raise ConfigurationError(
            f"hardware.precision: expected one of {sorted(_PRECISIONS)} for prediction, got '{precision}': choose one"
        )
    dtype = _PRECISIONS[str(precision)]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)

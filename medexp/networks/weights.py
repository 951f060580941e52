"""Find a file of weights and read it without running anything that it holds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # the error only; nothing is unpickled here
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from torch import Tensor

from medexp.errors import CheckpointMismatchError, ConfigurationError
from medexp.runs.files import sha256_of

# Where MONAI bundles keep their weights, in a local folder and on the hub.
BUNDLE_WEIGHTS = ("models/model.safetensors", "models/model.pt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_TIMEOUT_S = 4.0
_CONTAINERS = ("state_dict", "network_weights", "model_state_dict", "model", "network", "weights")
_REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+)")


@dataclass(frozen=True, eq=False)
class Weights:
    """The tensors of a file by name, and what the file says about them.

    `contract` is what a checkpoint of medexp records of the data that it was trained on; None elsewhere.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    contract: Mapping[str, Any] | None = None


def locate_weights(source: str) -> Path:
    """Return the file that `source` stands for: a file, a MONAI bundle folder, or an id on the Hugging Face hub.

    The configuration inside a bundle is never read, let alone run.

    Raises:
        ConfigurationError: There is no such file, the folder is no bundle, or the hub cannot be reached.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path.resolve()
    if path.is_dir():
        for name in BUNDLE_WEIGHTS:
            if (path / name).is_file():
                return (path / name).resolve()
        raise ConfigurationError(
            f"model.weights={source}: expected a bundle folder with {' or '.join(BUNDLE_WEIGHTS)}, got "
            f"{sorted(child.name for child in path.iterdir())[:8]}: give the file itself"
        )
    if _HUB_ID.fullmatch(source):
        return _fetch_bundle(source)
    raise ConfigurationError(
        f"model.weights={source}: expected a file, a bundle folder, a hub id (owner/name) or a run's identity, "
        f"got none of them; model.weights=null starts from random values"
    )


def _fetch_bundle(hub_id: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError as error:
        raise ConfigurationError(
            f"model.weights={hub_id}: expected the package huggingface_hub to fetch it, found none: install it, "
            f"or give a local file or bundle folder"
        ) from error
    unreachable = not _hub_answers()
    reasons = [f"no answer within {_HUB_TIMEOUT_S:g} s"] if unreachable else []
    for name in BUNDLE_WEIGHTS:
        try:
            return Path(hf_hub_download(hub_id, name, local_files_only=unreachable))  # the cache may have it
        except (EntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
            unreachable = unreachable or isinstance(error, LocalEntryNotFoundError)  # it has tried for long
            reasons.append(f"{type(error).__name__}: {(str(error) or 'no reason given').splitlines()[0]}")
    raise ConfigurationError(
        f"model.weights={hub_id}: expected {' or '.join(BUNDLE_WEIGHTS)} on the Hugging Face hub, got "
        f"'{reasons[0]}': give a local file or bundle folder (model.weights=<path>), or start from random values "
        f"(model.weights=null)"
    )


def _hub_answers() -> bool:
    """Ask once, shortly: the hub's own library tries again for minutes."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=_HUB_TIMEOUT_S):
            return True
    except HTTPError:  # it answers
        return True
    except OSError:
        return False


def read_weights(path: Path, *, sha256: str | None = None) -> Weights:
    """Return the tensors of a .pt, .pth, .ckpt or .safetensors file.

    Args:
        path: The file.
        sha256: What its bytes must hash to; compared before anything is deserialized. None: not compared.

    Raises:
        CheckpointMismatchError: The hash differs, or the file is damaged or holds anything but plain data.
    """
    found = sha256_of(path)
    if sha256 is not None and found != sha256.lower():
        raise CheckpointMismatchError(
            f"{path}: expected sha256 {sha256}, got {found}: the file is damaged or another one; fetch or make it again"
        )
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_archive(path)
    return Weights(path=path, sha256=found, tensors=_find_tensors(content, path), contract=_find_contract(content))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointMismatchError(f"{path}: expected safetensors, got '{error}': fetch or make it again") from error


def _read_archive(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        refused = _REFUSED_GLOBAL.search(str(error))
        reason = f"a reference to {refused.group(1)}" if refused else "something else"
        raise CheckpointMismatchError(
            f"{path}: expected tensors and plain values only, got {reason}; nothing of it was run. "
            f"Save its state dict alone, best as .safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise CheckpointMismatchError(
            f"{path}: expected a file written by torch.save, got '{reason}': it is damaged or incomplete; "
            f"fetch or make it again"
        ) from error


def _find_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content[name] for name in _CONTAINERS if name in content]
    for candidate in candidates:
        if (
            isinstance(candidate, Mapping)
            and candidate
            and all(isinstance(value, Tensor) for value in candidate.values())
        ):
            return {str(name): value for name, value in candidate.items()}
    keys = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
    raise CheckpointMismatchError(f"{path}: expected a state dict, alone or under one of {_CONTAINERS}, got {keys}")


def _find_contract(content: Any) -> Mapping[str, Any] | None:
    hyperparameters = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    contract = hyperparameters.get("contract") if isinstance(hyperparameters, Mapping) else None
    return contract if isinstance(contract, Mapping) else None

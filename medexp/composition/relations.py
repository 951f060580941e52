"""What the values of several keys must be among themselves, and which folders must be there; no type can say it."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medexp.errors import ConfigurationError
from medexp.suggestions import did_you_mean, nearest

# What may stand for files, and the words that are no folder.
_FOLDERS: dict[str, tuple[str, ...]] = {
    "predict.source": ("validation", "test", "out_of_fold"),
    "evaluate.predictions": (),
    "evaluate.references": (),
}


# Keys that need a package of an extra when they are true.
_PACKAGES = {"tracking.tensorboard": ("tensorboard", "tensorboard")}


def require_relations(config: DictConfig) -> None:
    """Refuse folds and stages that dataset and model do not have, and folders and packages that are not there.

    A folder below `output_dir` may be missing: an earlier stage of the same sweep may make it.

    Raises:
        ConfigurationError: Names the key and what would fit.
    """
    require_folds_exist(config)
    _require_structures(config)
    _require_predicted_stage(config)
    _require_packages(config)
    _require_no_fetching(config)
    for key, words in _FOLDERS.items():
        _require_folder(config, key, words)


def require_folds_exist(config: DictConfig, **changed: Any) -> None:
    """Refuse a fold that the dataset does not have.

    Args:
        config: A composed configuration.
        changed: `fold`, if another one than the configuration's is asked about.

    Raises:
        ConfigurationError: Names the key and the folds that there are.
    """
    count, source = num_folds(config)
    for key, fold in _folds({"fold": _selected(config, "fold"), **changed}, _selected(config, "predict.folds")):
        if count is not None and not 0 <= fold < count:
            message = f"{key}: expected 0 to {count - 1}, because {source} says {count} folds, got {fold}"
            raise ConfigurationError(f"{message}; choose another, or change {source}")


def _folds(single: dict[str, Any], listed: Any) -> Iterator[tuple[str, int]]:
    several = [("predict.folds", fold) for fold in listed] if isinstance(listed, list) else []
    for key, fold in [*single.items(), *several]:
        if isinstance(fold, int):
            yield key, fold


def num_folds(config: DictConfig) -> tuple[int | None, str]:
    """Return the number of folds and the key that says it; a split file that cannot be read is prepare's to name."""
    file = _selected(config, "dataset.splits_file")
    if file is None:
        count = _selected(config, "dataset.num_folds")
        return (count if isinstance(count, int) else None), "dataset.num_folds"
    try:
        folds = json.loads(Path(str(file)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        folds = None
    return (len(folds) if isinstance(folds, list) else None), "dataset.splits_file"


def _require_structures(config: DictConfig) -> None:
    """Refuse names that are none of the dataset's structures, before its files are read."""
    structures = _selected(config, "dataset.structures")
    if not isinstance(structures, list):
        return
    for key in ("dataset.required", "dataset.targets", "dataset.aliases"):
        for name in map(str, _selected(config, key) or ()):
            if name not in structures:
                hint = did_you_mean(name, map(str, structures))
                raise ConfigurationError(f"{key}: expected names of dataset.structures, got {name}; {hint}")


def _require_predicted_stage(config: DictConfig) -> None:
    stage, curriculum = _selected(config, "predict.stage"), _selected(config, "model.curriculum")
    if stage is None or not isinstance(curriculum, dict) or f"stage_{stage}" in curriculum:
        return
    names = ", ".join(str(name).removeprefix("stage_") for name in curriculum)
    raise ConfigurationError(
        f"predict.stage: expected null or a stage of the model's curriculum ({names}), got {stage}"
    )


def _require_no_fetching(config: DictConfig) -> None:
    """Refuse weights that a network's own library would fetch, past every check of what they are."""
    wanted = _selected(config, "model.network.encoder_weights")
    if wanted is not None:
        message = (
            f"model.network.encoder_weights: expected null, got {wanted!r}: the library would fetch them unchecked"
        )
        raise ConfigurationError(f"{message}; name a file or hub id by model.weights, with model.weights_sha256")


def _require_packages(config: DictConfig) -> None:
    """Refuse a choice whose package is not installed, before a run is half done."""
    for key, (package, extra) in _PACKAGES.items():
        if _selected(config, key) is True and find_spec(package) is None:
            message = f"{key}=true: expected the package {package}, found none; pip install 'medexp[{extra}]'"
            raise ConfigurationError(f"{message}, or leave the key out")


def _require_folder(config: DictConfig, key: str, words: tuple[str, ...]) -> None:
    value = _selected(config, key)
    if value is None or value in words or Path(str(value)).is_dir() or _may_come(config, str(value)):
        return
    expected = ", ".join([*words, "an existing folder"] if words else ["null", "an existing folder"])
    near = nearest(str(value), words)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; check the path"
    raise ConfigurationError(f"{key}: expected one of {expected}, got {str(value)!r}{hint}")


def _may_come(config: DictConfig, folder: str) -> bool:
    places = [_selected(config, key) for key in ("output_dir", "mock.root")]
    return any(Path(folder).absolute().is_relative_to(Path(str(place)).absolute()) for place in places if place)


def _selected(config: DictConfig, key: str) -> Any:
    """Return a key's plain value; None if it is not there or does not resolve, which other checks report."""
    try:
        value = OmegaConf.select(config, key)
        return OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
    except Exception:  # noqa: BLE001 - an interpolation of the user's may fail in any way
        return None

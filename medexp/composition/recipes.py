"""From a composed configuration to the recipe that the ledger addresses."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from medexp.composition.composer import resolved_stage, variant
from medexp.composition.overrides import key_of
from medexp.composition.relations import num_folds
from medexp.errors import ConfigurationError
from medexp.runs.choice import Choice
from medexp.runs.lineage import Recipe, weights_of

# In the order in which they can run; training stages stand between as "1", "2", ...
BEFORE_TRAINING = ("mock", "prepare")
AFTER_TRAINING = ("predict", "evaluate", "report", "compare", "view")

# How and where a run is executed does not decide its result; precision and compilation do.
_NOT_SCIENCE = ("accelerator", "devices", "strategy", "num_workers", "threads", "cooling_pause_s")
_PLACES = ("output_dir", "data_dir")
# Keys that say something about one run only.
_OWN = frozenset({"run", "resume"})
_TAG = re.compile(r"[\w.-]+")
_NOT_PATHS = frozenset({"validation", "test", "out_of_fold"})


def stage_rank(stage: str) -> tuple[int, int]:
    """Return a key that sorts stages in the order in which they can run; those of other packages come last."""
    if stage in BEFORE_TRAINING:
        return 0, BEFORE_TRAINING.index(stage)
    if stage in AFTER_TRAINING:
        return 2, AFTER_TRAINING.index(stage)
    return (1, int(stage)) if stage.isdigit() else (3, 0)


def recipe_of(
    config: DictConfig, overrides: Sequence[str], choices: Mapping[str, str | None], *, config_dirs: Sequence[Path] = ()
) -> Recipe:
    """Return the recipe of a composed configuration.

    `overrides` are what it was composed from and `choices` the options that Hydra took; the upstream is
    the same line with another stage.
    """
    stage = str(choices["stage"])
    received = _received(config)
    node = resolved_stage(config)
    specs = {name: {"stage": spec} if isinstance(spec, str) else dict(spec) for name, spec in node["upstream"].items()}
    upstream = {
        name: _upstream_recipes(name, spec, config, overrides, config_dirs)
        for name, spec in specs.items()
        if "recorded" not in spec
    }
    tags = _tags(stage, config, choices, received, upstream)
    return Recipe(
        stage=stage,
        dataset=str(config.dataset.name),
        label=_label(tags),
        tags=tags,
        received=received,
        config=_recorded(config),
        overrides=tuple(overrides),
        inputs=tuple(tuple(_paths([group])) for group in node["inputs"]),
        upstream={name: recipes for name, recipes in upstream.items() if recipes},
        places=_places(node.get("places") or {}),
        chosen={name: _choice_of(spec) for name, spec in specs.items() if "recorded" in spec},
        user_tags=_user_tags(config),
        reopens=any(node["call"].get(key) == value for key, value in (node.get("reopens") or {}).items()),
    )


@lru_cache(maxsize=4096)
def composed_recipe(overrides: tuple[str, ...], config_dirs: tuple[Path, ...]) -> Recipe:
    """Return the recipe of a line of overrides, composed and checked once per process.

    Raises:
        ConfigurationError: The line does not compose.
    """
    with variant(overrides, config_dirs=config_dirs) as (config, normal, choices):
        return recipe_of(config, normal, choices, config_dirs=config_dirs)


def _upstream_recipes(
    name: str, wanted: Mapping[str, Any], config: DictConfig, overrides: Sequence[str], config_dirs: Sequence[Path]
) -> tuple[Recipe, ...]:
    if wanted.get("unless") is not None:
        return ()
    stage = str(wanted["stage"]) if wanted.get("stage") is not None else last_stage(config)
    folds: Sequence[int | None] = wanted.get("folds") or _all_folds(wanted.get("all_folds"), config) or [None]
    # Only the weights that training starts from may come from another composition.
    replaced = [*config.upstream.overrides, "upstream.overrides=[]"] if name == "initial" else []
    return tuple(
        composed_recipe(tuple(_rewritten(overrides, [*replaced, *_choice(stage, fold)])), tuple(config_dirs))
        for fold in folds
    )


def _all_folds(spec: Mapping[str, Any] | None, config: DictConfig) -> list[int]:
    """Return every fold's number where a stage needs all of them, else nothing."""
    if spec is None or spec["if"] != spec["is"]:
        return []
    number, _ = num_folds(config)
    return list(range(number or 0))


def _choice_of(spec: Mapping[str, Any]) -> Choice:
    """Return which recorded runs a stage looks for: `{recorded: <stage>, where: [filters], key: <their key>}`."""
    return Choice(str(spec["recorded"]), tuple(str(text) for text in spec["where"]), str(spec["key"]))


def _user_tags(config: DictConfig) -> tuple[str, ...]:
    tags = tuple(str(tag) for tag in config.tags)
    bad = [tag for tag in tags if not _TAG.fullmatch(tag)]
    if bad:
        raise ConfigurationError(f"tags: expected words of letters, digits, '.', '_' and '-', got {bad}; rename them")
    return tags


def _choice(stage: str, fold: int | None) -> list[str]:
    return [f"stage='{stage}'" if stage.isdigit() else f"stage={stage}", *([] if fold is None else [f"fold={fold}"])]


def _rewritten(overrides: Iterable[str], replacing: Sequence[str]) -> list[str]:
    """Return the line with some keys replaced in their place; what is particular to this run does not pass upstream."""
    new = {key_of(text): text for text in replacing}
    kept = [text for text in overrides if key_of(text) not in _OWN]
    line = [new.pop(key_of(text), text) for text in kept]
    return [*line, *new.values()]


def last_stage(config: DictConfig) -> str:
    """Return the last training stage of the model's curriculum."""
    return str(list(config.model.curriculum)[-1]).removeprefix("stage_")


def _received(config: DictConfig) -> dict[str, Any]:
    with _masked(config):
        node = resolved_stage(config)
    call = dict(node["call"])
    for argument, kept in node["identity_of"].items():
        call[argument] = {key: call[argument][key] for key in kept if key in call[argument]}
    for argument, condition in (node.get("counts_only_if") or {}).items():
        if any(call.get(name) != value for name, value in condition.items()):
            del call[argument]
    if isinstance(call.get("model"), dict) and call["model"].get("weights") is not None:
        _, digest = weights_of(str(call["model"]["weights"]), Path(config.output_dir).absolute())
        call["model"] = {**call["model"], "weights": digest}
    return _up_to_this_stage(call, node["curriculum"])


@contextmanager
def _masked(config: DictConfig) -> Iterator[None]:
    """Hide what does not count, for a moment: copying a configuration costs more than resolving it."""
    before: Any = OmegaConf.to_container(config, resolve=False)
    with read_write(config), open_dict(config):
        config.hardware.update(dict.fromkeys(_NOT_SCIENCE, "-"))
        config.update(dict.fromkeys(_PLACES, "-"))
        try:
            yield
        finally:
            config.hardware.update({key: before["hardware"][key] for key in _NOT_SCIENCE})
            config.update({key: before[key] for key in _PLACES})


def _up_to_this_stage(call: dict[str, Any], curriculum: str | None) -> dict[str, Any]:
    """Drop the curriculum's later entries, so that a rate of stage 2 leaves stage 1 what it is."""
    model = call.get("model")
    if curriculum is None or not isinstance(model, dict):
        return {**call, **({"model": {k: v for k, v in model.items() if k != "curriculum"}} if model else {})}
    names = list(model["curriculum"])
    if curriculum not in names:
        stage = curriculum.removeprefix("stage_")
        message = f"stage={stage}: expected a stage of the model's curriculum, which has {names}"
        raise ConfigurationError(message)
    kept = {name: model["curriculum"][name] for name in names[: names.index(curriculum) + 1]}
    return {**call, "model": {**model, "curriculum": kept}}


def _places(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run must have written beside its results to stand for this one; folders from everywhere alike."""
    folders = {key: value["folder"] for key, value in wanted.items() if isinstance(value, Mapping)}
    absolute = {key: None if folder is None else str(Path(folder).absolute()) for key, folder in folders.items()}
    return {**wanted, **absolute}


def _tags(
    stage: str,
    config: DictConfig,
    choices: Mapping[str, str | None],
    received: Mapping[str, Any],
    upstream: Mapping[str, Sequence[Recipe]],
) -> dict[str, Any]:
    """Return which run this is; model, fold and seed only where training took part, and of an ensemble no fold."""
    tags: dict[str, Any] = {"stage": stage, "dataset": str(config.dataset.name)}
    trained = [recipe.tags for recipes in upstream.values() for recipe in recipes if _is_trained(recipe)]
    if "model" not in received and not trained:
        return tags
    tags["model"] = str(choices["model"])
    for name in ("fold", "seed"):
        values = {received[name]} if name in received else {one[name] for one in trained if name in one}
        if len(values) == 1:
            tags[name] = int(values.pop())
    return tags


def _label(tags: Mapping[str, Any]) -> str:
    """Return the readable part of the folder's name, for example `2-monai_ft-fold0-seed0`."""
    numbers = [f"{name}{tags[name]}" for name in ("fold", "seed") if name in tags]
    return "-".join([tags["stage"], *([tags["model"]] if "model" in tags else []), *numbers])


def _is_trained(recipe: Recipe) -> bool:
    return "model" in recipe.tags


def _recorded(config: DictConfig) -> dict[str, Any]:
    """Return the configuration as composed, interpolations unresolved: secrets stay in the environment."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict), "the root of a configuration is a mapping"
    return {str(key): value for key, value in plain.items() if key != "hydra"}


def _paths(inputs: Iterable[Any]) -> Iterable[str]:
    for entry in inputs:
        if isinstance(entry, list | tuple):
            yield from _paths(entry)
        elif isinstance(entry, Mapping):  # a file beside a folder, which counts as well
            yield from (str(Path(folder).absolute().parent / entry["file"]) for folder in _paths([entry["beside"]]))
        elif entry is not None and entry not in _NOT_PATHS:
            yield str(entry)

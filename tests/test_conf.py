"""Every file in conf/ composes with every stage that it supports, and every `_target_` takes its arguments."""

import inspect
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from typing import Any

import pytest
from omegaconf import OmegaConf
from yamllint import linter
from yamllint.config import YamlLintConfig

from medexp.composition import compose, conf_dir, resolved_stage
from medexp.composition.groups import options_by_group
from medexp.composition.resolution import Unresolved, resolved_where_possible
from medexp.composition.shipped import read_shipped
from medexp.composition.sources import resolve
from medexp.errors import UnknownOptionError

_GROUPS = {group: [option.name for option in options] for group, options in options_by_group([conf_dir()]).items()}
_CHOICES = [f"{group}={option}" for group, options in _GROUPS.items() for option in options if group != "stage"]
_NEEDS = {"dataset/grid": ["dataset=vmat"]}  # groups that only some datasets have
_STAGES = _GROUPS["stage"]
_FILES = sorted(conf_dir().rglob("*.yaml"))
_YAMLLINT = """
extends: default
rules:
  document-start: disable
  line-length: {max: 200}
  comments: {min-spaces-from-content: 2}
  truthy: {check-keys: false}
"""


def test_files_groups_and_stages_were_found():
    assert len(_FILES) > 25
    assert set(_GROUPS) >= {"dataset", "dataset/augmentation", "experiment", "hardware", "model", "stage", "trainer"}
    assert {"mock", "prepare", "1", "2", "predict", "evaluate", "report", "compare"} <= set(_STAGES)
    reached = sum(len(options) for options in _GROUPS.values()) + 1  # and config.yaml
    assert reached == len([path for path in _FILES if path.name != "local.yaml"])


@lru_cache(maxsize=1)
def _stages_of_a_curriculum() -> dict[str, str]:
    """Return the stage files that train, by the name of the curriculum's entry."""
    found = {stage: OmegaConf.load(conf_dir() / "stage" / f"{stage}.yaml").curriculum for stage in _STAGES}
    return {stage: entry for stage, entry in found.items() if entry is not None}


def _words(choice: str) -> list[str]:
    return [*_NEEDS.get(choice.split("=")[0], []), choice]


@pytest.mark.parametrize("choice", _CHOICES)
def test_every_choice_composes_with_every_stage(choice):
    words = _words(choice)
    curriculum = compose([*words, "stage=prepare"]).model.curriculum
    for stage in _STAGES:
        entry = _stages_of_a_curriculum().get(stage)
        if entry is not None and entry not in curriculum:
            with pytest.raises(UnknownOptionError, match=f"has no stage {stage}"):
                compose([*words, f"stage={stage}"])
        else:
            assert resolved_stage(compose([*words, f"stage={stage}"]))["call"]["_target_"].startswith("medexp.stages.")


def test_every_stage_of_a_curriculum_has_a_file():
    for model in _GROUPS["model"]:
        curriculum = compose([f"model={model}", "stage=prepare"]).model.curriculum
        assert curriculum
        assert set(curriculum) <= set(_stages_of_a_curriculum().values())


def _targets(node: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        for name, inner in node.items():
            yield from _targets(inner, f"{key}.{name}")
    elif isinstance(node, list):
        for index, inner in enumerate(node):
            yield from _targets(inner, f"{key}[{index}]")


@pytest.mark.parametrize("choice", [*_CHOICES, *(f"stage={stage}" for stage in _STAGES)])
def test_every_target_binds_its_arguments(choice):
    config = resolved_where_possible(compose(_words(choice)), without=("hydra",))
    found = list(_targets(config, "config"))
    assert found
    for key, node in found:
        definition = resolve(node["_target_"])
        signature = inspect.signature(getattr(import_module(definition.module.name), definition.node.name))
        arguments = {name: value for name, value in node.items() if not name.startswith("_")}
        bind = signature.bind_partial if node.get("_partial_") else signature.bind
        try:
            bind(**arguments)
        except TypeError as error:
            pytest.fail(f"{choice}: {key}: {node['_target_']}: {error}")


def test_every_key_of_config_yaml_is_read_by_a_stage_or_by_name():
    """A key that no file refers to must be one that the code asks for by name."""
    asked_for = {"name", "resume", "run", "tags", "upstream", "tracking", "sweep", "output_dir", "data_dir"}
    referred = {path[0] for path in _references(conf_dir().rglob("*.yaml"))}
    own = {path[0] for path in read_shipped(conf_dir()).values if len(path) == 1}
    groups = {group.partition("/")[0] for group in _GROUPS} | {"callbacks"}
    assert own - asked_for - referred - groups == set()


def _references(files: Any) -> Iterator[tuple[str, ...]]:
    import re

    for path in files:
        for match in re.finditer(r"\$\{([A-Za-z_][\w.]*)", path.read_text()):
            yield tuple(match[1].split("."))


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.relative_to(conf_dir()).as_posix())
def test_every_file_is_tidy(path):
    problems = list(linter.run(path.read_text(), YamlLintConfig(_YAMLLINT)))
    assert [f"{problem.line}: {problem.desc}" for problem in problems] == []


def test_trainer_values_resolve_only_where_they_are_used():
    config = resolved_where_possible(compose(["stage=prepare"]))
    assert isinstance(config["trainer"]["max_epochs"], Unresolved)
    assert resolved_where_possible(compose(["stage=1"]))["trainer"]["max_epochs"] > 0

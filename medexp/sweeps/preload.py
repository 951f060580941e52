"""Which modules the fork server imports before the first job, so that no job pays for them."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from medexp.composition.composer import resolved_stage

# Every stage needs these; a job that does not is none the slower for it.
_ALWAYS = ("medexp.sweeps.job", "medexp.stages.context")


def modules_of(config: DictConfig) -> set[str]:
    """Return the modules that a job's targets live in."""
    return {*_ALWAYS, *(target.rpartition(".")[0] for target in _targets(resolved_stage(config)))}


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _targets(child)

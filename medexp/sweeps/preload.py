"""Which modules the fork server imports before the first job, so that no job pays for them."""

import multiprocessing
from collections.abc import Iterator, Sequence
from typing import Any

from medexp.runs.lineage import Recipe

# Every stage needs these; a job that does not is none the slower for it.
_ALWAYS = (
    "medexp.sweeps.fork_server",
    "medexp.sweeps.job",
    "medexp.sweeps.worker",
    "medexp.stages.context",
)
_TRACKING = ("medexp.sweeps.tracked", "medexp.tracking.sweep_parent", "mlflow.tracking")


def announce(recipes: Sequence[Recipe], *, is_tracked: bool) -> None:
    """Tell the fork server what to import when it starts; without effect on one that runs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted(modules_of(recipes, is_tracked=is_tracked)))


def modules_of(recipes: Sequence[Recipe], *, is_tracked: bool) -> set[str]:
    """Return the modules that the jobs' targets live in, and MLflow if they are tracked."""
    if not recipes:
        return {*_TRACKING} if is_tracked else set()
    targets = {target.rpartition(".")[0] for recipe in recipes for target in _needed(recipe)}
    return {*_ALWAYS, *targets, *(_TRACKING if is_tracked else ())}


def _needed(recipe: Recipe) -> Iterator[str]:
    yield from _targets(recipe.received)
    if "datamodule" in recipe.received:  # of which the identity may hold only a part
        yield str(recipe.config["dataset"]["_target_"])


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _targets(child)

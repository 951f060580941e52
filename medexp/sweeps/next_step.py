"""What can be run after a sweep."""

import re
from collections.abc import Sequence

from medexp.composition.overrides import key_of
from medexp.composition.recipes import AFTER_TRAINING, BEFORE_TRAINING
from medexp.runs.lineage import command_line
from medexp.sweeps.plan import SweepJob

_STAGE = re.compile(r"(?<= )stage=\S+")
# What a comparison must be told, too: where the runs lie and whose they are.
_PLACES = frozenset({"output_dir", "data_dir", "dataset", "experiment", "name", "tracking.enabled", "tracking.uri"})


def next_step(jobs: Sequence[SweepJob], command: str) -> str | None:
    """Return the advice and the line to give next; None if nothing suggests itself.

    Args:
        jobs: The sweep's jobs, over.
        command: The sweep's own line.
    """
    if any(job.state != "finished" for job in jobs):
        return f"once what the logs name is mended (finished jobs are not redone):\n  {command}"
    stages = {job.stage for job in jobs}
    if "evaluate" in stages and sum(job.stage == "evaluate" for job in jobs) > 1:
        kept = [text for text in jobs[-1].overrides if key_of(text) in _PLACES]
        return f"compare the scores:\n  {command_line([*kept, 'stage=compare'])}"
    is_trained = any(stage not in {*BEFORE_TRAINING, *AFTER_TRAINING} for stage in stages)
    if is_trained and not stages & set(AFTER_TRAINING) and _STAGE.search(command):
        return f"predict and score:\n  {_STAGE.sub('stage=predict,evaluate', command)}"
    return None

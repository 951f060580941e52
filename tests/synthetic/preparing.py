"""What stages mock and prepare are called with, without Hydra."""

from pathlib import Path

from medexp.preparation.cohort import CohortSettings
from medexp.preparation.mock_brats import write_mock
from medexp.runs.ledger import Run
from medexp.stages.context import Context
from medexp.tracking import Tracker
from tests.synthetic.brats import settings_for


class Dataset:
    """The two methods of a datamodule that preparation uses."""

    def __init__(self, root: Path, **changes) -> None:
        self.root, self.changes = root, changes

    def write_mock_cohort(self, root, *, num_patients, shape, seed):
        return write_mock(root, num_patients=num_patients, shape=shape, seed=seed)

    def cohort(self) -> CohortSettings:
        return settings_for(self.root, **self.changes)


def make_context(folder: Path) -> Context:
    """Return the context of a run in `folder` that MLflow does not see."""
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, {"identity": "0" * 64})
    tracker = Tracker(
        run, output_dir=folder.parent, uri=None, experiment="test", enabled=False, strict=False, flush_every_s=1.0
    )
    return Context(run=run, tracker=tracker)

"""What a report says of the runs behind it."""

import pytest

from medexp.io.tables import write_table
from medexp.runs.ledger import Run
from medexp.stages.report_lineage import trainings

HISTORY = [
    {"epoch": 0, "val/dice/mean": 0.9, "val/dice/ET": 0.1, "val/loss": 0.8},
    {"epoch": 1, "val/dice/mean": 0.7, "val/dice/ET": 0.6, "val/loss": 0.5},
    {"epoch": 2, "val/dice/mean": 0.8, "val/dice/ET": 0.2, "val/loss": 0.6},
]


@pytest.mark.parametrize(
    ("best", "note"),
    [
        (None, "best mean Dice 0.9000 after epoch 1 of 3"),
        ({"monitor": "val/dice/mean", "mode": "max"}, "best mean Dice 0.9000 after epoch 1 of 3"),
        ({"monitor": "val/dice/ET", "mode": "max"}, "best val/dice/ET 0.6000 after epoch 2 of 3"),
        ({"monitor": "val/loss", "mode": "min"}, "best val/loss 0.5000 after epoch 2 of 3"),
    ],
)
def test_the_best_epoch_is_that_of_the_configured_monitor(tmp_path, best, note):
    received = {} if best is None else {"callbacks": {"best": best}}
    record = {"identity": "0" * 64, "created": "2026", "stage": "1", "label": "1-net", "received": received}
    write_table(tmp_path / "history.csv", HISTORY)
    [found] = trainings([Run(tmp_path, record)], colors={"ET": "#123456"})
    assert found["note"] == note

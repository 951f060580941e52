from unittest.mock import Mock

import pytest
from lightning.pytorch import LightningModule, Trainer

from medexp.callbacks.criteria import Criteria
from medexp.errors import CriteriaError


def trainer(value):
    return Mock(Trainer, callback_metrics={"val/dice/mean": value}, sanity_checking=False, current_epoch=5)


def run(*values, mode="max", limit=0.2):
    criteria = Criteria(monitor="val/dice/mean", mode=mode, limit=limit)
    for value in values:
        criteria.on_validation_end(trainer(value), LightningModule())
    criteria.on_train_end(trainer(values[-1]), LightningModule())
    return criteria


def test_the_best_value_counts_and_not_the_last():
    run(0.1, 0.3, 0.05)
    run(0.9, 0.1, 0.9, mode="min")


@pytest.mark.parametrize("values", [(0.0, 0.0), (0.1, 0.2), (float("nan"), float("nan"))])
def test_what_does_not_get_beyond_the_limit_fails(values):
    with pytest.raises(CriteriaError, match=r"val/dice/mean: expected a best value above 0.2, got"):
        run(*values)


def test_the_best_value_survives_a_resume():
    first = run(0.5)
    second = Criteria(monitor="val/dice/mean", mode="max", limit=0.2)
    second.load_state_dict(first.state_dict())
    second.on_validation_end(trainer(0.1), LightningModule())
    second.on_train_end(trainer(0.1), LightningModule())

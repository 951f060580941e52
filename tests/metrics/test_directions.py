"""Which way is better: known, said, or an error."""

import pytest

from medexp.errors import ConfigurationError
from medexp.metrics.directions import is_higher_better
from medexp.metrics.segmentation import score_case
from tests.synthetic.evaluations import LABELS, tumor


@pytest.mark.parametrize("column", ["mean_dice", "dice/WT", "nsd_0.5mm/ET", "lesionwise_nsd_1mm/ET", "sensitivity/WT"])
def test_shares_are_better_when_higher(column):
    assert is_higher_better(column)


@pytest.mark.parametrize("column", ["hd95_mm/WT", "lesionwise_hd95_mm/ET", "lesions_missed/ET", "lesions_spurious/ET"])
def test_distances_and_mistakes_are_better_when_lower(column):
    assert not is_higher_better(column)


def test_an_unknown_direction_is_asked_for_by_key():
    with pytest.raises(ConfigurationError, match=r"compare.higher_is_better=\[prediction_volume_mm3\]"):
        is_higher_better("prediction_volume_mm3/WT")


def test_what_is_said_counts():
    assert is_higher_better("prediction_volume_mm3/WT", higher=["prediction_volume_mm3"])
    assert not is_higher_better("dice/WT", lower=["dice/WT"])


def test_saying_both_is_refused():
    with pytest.raises(ConfigurationError, match="take it out of one"):
        is_higher_better("dice/WT", lower=["dice/WT"], higher=["dice"])


def test_every_score_of_a_table_but_volumes_has_a_direction():
    scores = score_case(tumor(), tumor(6), (1.0, 1.0, 1.0), LABELS, {}, [1.0]).row()
    unknown = ("volume_mm3", "_positive", "_negative")
    columns = [column for column in scores if not column.partition("/")[0].endswith(unknown)]
    assert len(columns) >= 6
    assert all(isinstance(is_higher_better(column), bool) for column in columns)

"""What is asked of a case is checked before any file is read."""

import numpy as np
import pytest

from medexp.errors import UnknownOptionError
from medexp.io.pairing import Pair
from medexp.stages.outcomes import Refused
from medexp.stages.scoring import ScoredPair, score_pair, scoring_of
from tests.synthetic.evaluations import LABELS, REGIONS, SHAPE, tumor, write_map

OPTIONS = {"lesions": "brats_2024_gli", "variant": "official", "snfh_slip": True}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "BraTS 2024 GLI"),
        ({"snfh_slip": False}, "BraTS 2024 GLI, five dilation steps for SNFH"),
        ({"variant": "toolkit"}, "BraTS toolkit"),
        ({"lesions": None}, None),
    ],
)
def test_the_protocol_is_named(changes, name):
    assert scoring_of(LABELS, REGIONS, [1.0], **{**OPTIONS, **changes}).protocol_name == name


def test_constants_of_2023_are_a_choice():
    labels, regions = {"NCR": 1, "ED": 2, "ET": 3}, {"WT": ["NCR", "ED", "ET"], "TC": ["NCR", "ET"]}
    scoring = scoring_of(labels, regions, [1.0], **{**OPTIONS, "lesions": "brats_2023_gli"})
    assert scoring.protocol.hd95_penalty_mm == 374.0


def test_an_unknown_protocol_lists_those_there_are():
    with pytest.raises(UnknownOptionError, match="brats_2023_met"):
        scoring_of(LABELS, REGIONS, [1.0], **{**OPTIONS, "lesions": "brats_2022"})


def test_a_pair_is_scored_from_its_files(tmp_path):
    path = write_map(tmp_path / "A.nii.gz", tumor())
    found = score_pair(Pair("A", path, path), scoring_of(LABELS, REGIONS, [1.0], **OPTIONS))
    assert isinstance(found, ScoredPair)
    assert found.shape == SHAPE
    assert found.scores.spacing_mm == (1.0, 1.0, 1.5)
    assert found.prediction_sha256 == found.reference_sha256


def test_every_reason_of_a_pair_is_told(tmp_path):
    strange = np.where(tumor() > 0, 9, 0).astype(np.uint8)
    first, second = (write_map(tmp_path / f"{name}.nii.gz", strange) for name in "AB")
    pair = Pair("A", first, second, sha256="0" * 64)
    found = score_pair(pair, scoring_of(LABELS, REGIONS, [1.0], **OPTIONS))
    assert isinstance(found, Refused)
    assert len(found.reasons) == 3
    assert not found.is_grid

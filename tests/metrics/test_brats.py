"""Lesion-wise scores of BraTS: golden values of the official program, its quirks one by one, and the edges."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from medexp.errors import CaseError, GridMismatchError
from medexp.metrics.brats import lesion_wise_scores
from medexp.metrics.lesions import (
    BRATS_2023_GLI,
    BRATS_2023_MEN,
    BRATS_2024_GLI,
    BRATS_2024_GLI_AS_INTENDED,
    PROTOCOLS,
    LesionStatus,
)

GOLDENS = Path(__file__).parent / "goldens" / "brats2024"
OFFICIAL = json.loads((GOLDENS / "official.json").read_text())
UNIT = (1.0, 1.0, 1.0)
NETC, SNFH, ET, RC = 1, 2, 3, 4


def volume(shape=(30, 30, 30)):
    return np.zeros(shape, dtype=np.uint8)


def box(labels, value, corner, size):
    """Return the label map with a box of this value; 27 or more voxels count everywhere."""
    labels = labels.copy()
    labels[tuple(slice(start, start + extent) for start, extent in zip(corner, size, strict=True))] = value
    return labels


ONE = box(volume(), ET, (5, 5, 5), (3, 3, 3))


def test_goldens_were_found():
    assert len(OFFICIAL) == 14
    assert sum(len(records) for records in OFFICIAL.values()) == 84


@pytest.mark.parametrize("pair", sorted(OFFICIAL))
def test_every_record_of_the_official_program_is_met(pair):
    maps = np.load(GOLDENS / f"{pair}.npz")
    scores = lesion_wise_scores(maps["prediction"], maps["reference"], UNIT)
    assert list(scores) == [record["Labels"] for record in OFFICIAL[pair]]
    for record in OFFICIAL[pair]:
        own = scores[record["Labels"]].record()
        assert list(own) == list(record)
        for name in set(record) - {"Labels", "Sensitivity", "Specificity"}:
            assert own[name] == pytest.approx(record[name], abs=1e-6), (record["Labels"], name)


def test_sensitivity_and_specificity_are_theirs_where_one_lesion_stands_on_each_side():
    compared = 0
    for pair, records in OFFICIAL.items():
        maps = np.load(GOLDENS / f"{pair}.npz")
        scores = lesion_wise_scores(maps["prediction"], maps["reference"], UNIT)
        for record in records:
            region = scores[record["Labels"]]
            if len(region.lesions) <= 1 and region.num_false_positive == 0 and "Sensitivity" in record:
                compared += 1
                assert region.specificity == pytest.approx(record["Specificity"], abs=1e-6)
                assert region.sensitivity == pytest.approx(record["Sensitivity"], abs=1e-6)
    assert compared > 20


def test_one_missed_lesion_scores_nothing_and_the_penalty():
    score = lesion_wise_scores(volume(), ONE, UNIT)["ET"]
    assert (score.dice, score.hd95_mm, dict(score.nsd)) == (0.0, 337.0, {0.5: 0.0, 1.0: 0.0})
    assert (score.num_true_positive, score.num_false_positive, score.num_false_negative) == (0, 0, 1)
    assert (score.legacy_dice, score.legacy_hd95_mm) == (0.0, 337.0)


def test_one_perfect_match_and_one_false_positive_score_half():
    prediction = box(ONE, ET, (20, 20, 20), (3, 3, 3))
    score = lesion_wise_scores(prediction, ONE, UNIT)["ET"]
    assert (score.dice, score.hd95_mm) == (0.5, 168.5)
    assert score.nsd[0.5] == pytest.approx(0.5)
    assert [lesion.status for lesion in score.lesions] == [LesionStatus.MATCHED, LesionStatus.SPURIOUS]


def test_a_missed_lesion_up_to_the_threshold_does_not_count():
    reference = box(volume(), ET, (5, 5, 5), (1, 2, 5))  # 10 mm3, the threshold of ET
    score = lesion_wise_scores(volume(), reference, UNIT)["ET"]
    assert (score.dice, score.hd95_mm, score.num_false_negative) == (1.0, 0.0, 0)
    assert [(lesion.status, lesion.is_counted) for lesion in score.lesions] == [(LesionStatus.MISSED, False)]
    assert lesion_wise_scores(volume(), box(reference, ET, (4, 5, 5), (1, 1, 1)), UNIT)["ET"].dice == 0.0


def test_a_false_positive_up_to_the_threshold_is_removed():
    prediction = box(ONE, ET, (20, 20, 20), (1, 2, 5))
    score = lesion_wise_scores(prediction, ONE, UNIT)["ET"]
    assert (score.dice, score.hd95_mm, score.num_false_positive, score.legacy_dice) == (1.0, 0.0, 0, 1.0)


def test_the_threshold_is_mm3_for_the_reference_and_voxels_for_the_prediction():
    small = box(volume(), ET, (5, 5, 5), (2, 2, 2))  # 8 voxels
    spacing = (2.0, 1.0, 1.0)  # 16 mm3
    assert lesion_wise_scores(volume(), small, spacing)["ET"].num_false_negative == 1
    assert lesion_wise_scores(small, volume(), spacing)["ET"].num_false_positive == 0
    assert lesion_wise_scores(small, small, spacing)["ET"].num_false_negative == 1  # its own copy is removed


def test_a_prediction_that_reaches_only_an_uncounted_lesion_is_no_false_positive():
    reference = box(volume(), ET, (5, 5, 5), (2, 2, 2))
    prediction = box(volume(), ET, (5, 5, 5), (3, 3, 3))
    score = lesion_wise_scores(prediction, reference, UNIT)["ET"]
    assert (score.num_true_positive, score.num_false_positive, score.num_false_negative) == (0, 0, 0)
    assert (score.dice, score.hd95_mm) == (1.0, 0.0)


def test_one_prediction_may_serve_two_lesions():
    reference = box(box(volume(), ET, (5, 5, 2), (3, 3, 3)), ET, (5, 5, 20), (3, 3, 3))
    prediction = box(volume(), ET, (5, 5, 2), (3, 3, 21))
    score = lesion_wise_scores(prediction, reference, UNIT)["ET"]
    assert (score.num_true_positive, score.num_false_positive) == (2, 0)
    assert score.dice == pytest.approx(2 * 27 / (27 + 189))


@pytest.mark.parametrize(("gap", "statuses"), [(3, ["matched"]), (4, ["missed", "spurious"])])
def test_a_prediction_belongs_to_a_lesion_within_the_dilation(gap, statuses):
    prediction = box(volume(), ET, (5, 5, 5 + 3 + gap - 1), (3, 3, 3))
    scores = lesion_wise_scores(prediction, ONE, UNIT)
    assert [str(lesion.status) for lesion in scores["ET"].lesions] == statuses


def test_the_misspelled_tissue_is_dilated_three_steps_unless_meant_otherwise():
    parts = box(box(volume(), SNFH, (5, 5, 5), (3, 3, 3)), SNFH, (5, 5, 16), (3, 3, 3))  # 8 voxels apart
    assert len(lesion_wise_scores(parts, parts, UNIT, BRATS_2024_GLI)["SNFH"].lesions) == 2
    assert len(lesion_wise_scores(parts, parts, UNIT, BRATS_2024_GLI_AS_INTENDED)["SNFH"].lesions) == 1
    cavity = np.where(parts == SNFH, RC, 0).astype(np.uint8)
    assert len(lesion_wise_scores(cavity, cavity, UNIT, BRATS_2024_GLI)["RC"].lesions) == 1


def two_lesions(*cavities):
    """Return a long and a short ET lesion in a row, 7 voxels apart, with cavities lying on them from k to k."""
    labels = box(volume((20, 20, 45)), ET, (5, 5, 5), (3, 3, 20))
    labels = box(labels, ET, (5, 5, 32), (3, 3, 3))
    for start, stop in cavities:
        labels = box(labels, RC, (8, 5, start), (2, 3, stop - start))
    return labels


def test_lesions_on_one_lesion_of_a_neighbor_tissue_are_joined():
    apart, joined = two_lesions(), two_lesions((23, 35))
    assert len(lesion_wise_scores(apart, apart, UNIT)["ET"].lesions) == 2
    assert len(lesion_wise_scores(joined, joined, UNIT)["ET"].lesions) == 1


def test_a_lesion_follows_only_the_first_neighbor_that_it_touches():
    # The long lesion touches the first cavity too, follows that, and leaves the short one alone with the second.
    labels = two_lesions((5, 8), (23, 35))
    scores = lesion_wise_scores(labels, labels, UNIT)
    assert len(scores["RC"].lesions) == 1  # the cavities have both touched the long lesion, and follow it
    assert len(scores["ET"].lesions) == 2


def test_the_legacy_hd95_of_2024_takes_numbers_for_masks():
    large = box(volume(), ET, (15, 15, 15), (12, 12, 12))
    reference, prediction = box(large, ET, (2, 2, 2), (4, 4, 4)), box(large, ET, (2, 2, 6), (4, 4, 4))
    new = lesion_wise_scores(prediction, reference, UNIT, BRATS_2024_GLI)["ET"]
    old = lesion_wise_scores(prediction, reference, UNIT, BRATS_2023_GLI)["ET"]
    assert new.legacy_dice == old.legacy_dice
    # The large lesion, number 2, is right; its inside counts as surface too, so the small one counts for less.
    assert new.legacy_hd95_mm < old.legacy_hd95_mm
    one_lesion = lesion_wise_scores(ONE, np.roll(ONE, 1, 0), UNIT)["ET"]
    assert one_lesion.legacy_hd95_mm == one_lesion.hd95_mm == 1.0


def test_two_empty_maps_are_perfect():
    for score in lesion_wise_scores(volume(), volume(), UNIT).values():
        assert (score.dice, score.hd95_mm, dict(score.nsd)) == (1.0, 0.0, {0.5: 1.0, 1.0: 1.0})
        assert (score.legacy_dice, score.legacy_hd95_mm, dict(score.legacy_nsd)) == (1.0, 0.0, {0.5: 1.0, 1.0: 1.0})
        assert (score.sensitivity, score.specificity, score.reference_volume_mm3) == (1.0, 1.0, 0.0)
        assert score.lesions == ()


def test_an_empty_reference_with_a_false_positive_scores_nothing():
    score = lesion_wise_scores(ONE, volume(), UNIT)["WT"]
    assert (score.dice, score.hd95_mm, score.num_false_positive) == (0.0, 337.0, 1)
    assert (score.sensitivity, score.specificity) == (0.0, 1 - 27 / 27000)


def test_one_voxel():
    dot = box(volume(), ET, (0, 0, 29), (1, 1, 1))
    score = lesion_wise_scores(dot, dot, UNIT)["ET"]
    assert (score.dice, score.hd95_mm, len(score.lesions)) == (1.0, 0.0, 1)  # not counted, and its copy removed
    big = (3.0, 3.0, 3.0)
    assert lesion_wise_scores(dot, dot, big)["ET"].num_false_negative == 1  # 27 mm3 count, 1 voxel is removed


@pytest.mark.parametrize("corner", [(0, 0, 0), (27, 27, 27), (0, 13, 27)])
def test_the_border_changes_nothing(corner):
    reference = box(volume(), ET, corner, (3, 3, 3))
    assert lesion_wise_scores(reference, reference, UNIT)["ET"].dice == 1.0
    shifted = np.pad(reference, 8)
    prediction = box(volume(), ET, corner, (3, 3, 2))
    inside = lesion_wise_scores(prediction, reference, UNIT)["ET"]
    outside = lesion_wise_scores(np.pad(prediction, 8), shifted, UNIT)["ET"]
    assert (inside.dice, inside.hd95_mm, inside.nsd) == (outside.dice, outside.hd95_mm, outside.nsd)


def test_a_volume_full_of_one_tissue():
    full = np.full((6, 7, 8), SNFH, dtype=np.uint8)
    score = lesion_wise_scores(full, full, UNIT)["SNFH"]
    assert (score.dice, score.hd95_mm, score.sensitivity, score.specificity) == (1.0, 0.0, 1.0, 0.0)


def test_more_than_255_lesions():
    reference = volume((64, 64, 64))
    corners = [(i, j, k) for i in range(1, 62, 10) for j in range(1, 62, 10) for k in range(1, 62, 10)]
    for corner in corners:
        reference = box(reference, ET, corner, (3, 3, 3))
    prediction = reference.copy()
    prediction[1:4, 1:4, 1:4] = 0
    score = lesion_wise_scores(prediction, reference, UNIT)["ET"]
    assert len(corners) == len(score.lesions) == 343
    assert (score.num_true_positive, score.num_false_negative) == (342, 1)
    assert score.dice == pytest.approx(342 / 343)
    assert score.hd95_mm == pytest.approx(337 / 343)


def test_anisotropic_voxels_change_distances_and_volumes_but_not_dilation():
    prediction = np.roll(ONE, 1, axis=2)
    spacing = (1.0, 1.0, 4.0)
    score = lesion_wise_scores(prediction, ONE, spacing)["ET"]
    assert score.hd95_mm == 4.0
    assert score.reference_volume_mm3 == 27 * 4.0
    assert score.dice == pytest.approx(2 * 18 / 54)
    assert score.nsd[1.0] < 1.0


def test_spacing_is_rounded_as_a_nifti_header_rounds_it():
    score = lesion_wise_scores(np.roll(ONE, 1, 2), ONE, (1.0, 1.0, 0.9))["ET"]
    assert score.hd95_mm == float(np.float32(0.9))


def test_a_mean_over_regions_is_not_made_better_by_removing_a_lesion_from_the_prediction():
    two = box(ONE, ET, (20, 20, 20), (3, 3, 3))
    assert lesion_wise_scores(ONE, two, UNIT)["ET"].dice < lesion_wise_scores(two, two, UNIT)["ET"].dice


def test_lesions_make_a_table():
    prediction = box(ONE, ET, (20, 20, 20), (3, 3, 3))
    rows = [lesion.row() for lesion in lesion_wise_scores(prediction, ONE, UNIT)["TC"].lesions]
    assert [row["lesion"] for row in rows] == [1, 2]
    assert rows[1] == {
        "region": "TC",
        "lesion": 2,
        "status": "spurious",
        "is_counted": True,
        "volume_mm3": 27.0,
        "prediction_volume_mm3": 27.0,
        "dice": 0.0,
        "hd95_mm": 337.0,
        "nsd_0.5mm": 0.0,
        "nsd_1mm": 0.0,
    }


def test_protocols_differ_as_published():
    published = {
        "brats_2024_gli": (337, {"ET": 10, "WT": 20}, {"ET": 3, "RC": 5, "NETC": 5, "SNFH": 3}),
        "brats_2024_gli_as_intended": (337, {"ET": 10}, {"SNFH": 5}),
        "brats_2023_gli": (374, {"ET": 50}, {"ET": 3}),
        "brats_2023_ssa": (374, {"ET": 50}, {"ET": 3}),
        "brats_2023_ped": (374, {"ET": 50}, {"ET": 3}),
        "brats_2023_men": (374, {"ET": 50}, {"ET": 1}),
        "brats_2023_met": (374, {"ET": 2}, {"ET": 1}),
    }
    assert set(PROTOCOLS) == set(published)
    for name, (penalty, thresholds, steps) in published.items():
        protocol = PROTOCOLS[name]
        assert protocol.hd95_penalty_mm == penalty
        assert {region: protocol.volume_threshold[region] for region in thresholds} == thresholds
        assert {region: protocol.dilation_steps[region] for region in steps} == steps


def test_neighbors_are_visited_in_the_order_of_the_program():
    assert BRATS_2024_GLI.neighbors == {
        "NETC": ("ET", "RC"),
        "ET": ("NETC", "RC"),
        "RC": ("ET", "NETC"),
        "SNFH": ("ET", "RC", "NETC"),
    }


def test_2023_keeps_small_predictions_and_parts_apart():
    prediction = box(box(ONE, ET, (20, 20, 20), (1, 1, 1)), ET, (20, 20, 22), (1, 1, 1))
    assert lesion_wise_scores(prediction, ONE, UNIT, BRATS_2023_MEN)["ET"].num_false_positive == 2
    assert list(lesion_wise_scores(prediction, ONE, UNIT, BRATS_2023_MEN)) == ["WT", "TC", "ET"]


@pytest.mark.parametrize("dtype", [np.int16, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_storage_of_the_maps_does_not_matter(dtype, order):
    maps = np.load(GOLDENS / "pair11.npz")
    expected = lesion_wise_scores(maps["prediction"], maps["reference"], UNIT)
    stored = [np.asarray(maps[name], dtype=dtype, order=order) for name in ("prediction", "reference")]
    assert lesion_wise_scores(*stored, UNIT) == expected


def test_inputs_are_not_changed_and_scores_can_be_sent_to_another_process():
    maps = np.load(GOLDENS / "pair13.npz")
    prediction, reference = maps["prediction"].copy(), maps["reference"].copy()
    scores = lesion_wise_scores(prediction, reference, UNIT)
    assert np.array_equal(prediction, maps["prediction"])
    assert np.array_equal(reference, maps["reference"])
    assert pickle.loads(pickle.dumps(scores)) == scores
    assert pickle.loads(pickle.dumps(BRATS_2024_GLI)) == BRATS_2024_GLI
    assert all(math.isfinite(score.hd95_mm) for score in scores.values())


def test_inputs_are_checked():
    with pytest.raises(GridMismatchError, match=r"\(30, 30, 29\).*\(30, 30, 30\)"):
        lesion_wise_scores(volume()[..., :29], volume(), UNIT)
    with pytest.raises(CaseError, match="3 positive voxel sizes"):
        lesion_wise_scores(volume(), volume(), (1.0, 1.0))

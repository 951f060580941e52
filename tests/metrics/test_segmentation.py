import math

import numpy as np
import pytest
from scipy import ndimage

from medexp.errors import CaseError, ConfigurationError, GridMismatchError, UnknownOptionError
from medexp.metrics.overlap import confusion_counts
from medexp.metrics.segmentation import score_case
from medexp.metrics.surface import hausdorff_distance_95, normalized_surface_dice

LABELS = {"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}
REGIONS = {"WT": ["NETC", "SNFH", "ET"], "TC": ["NETC", "ET"]}
SPACING = (1.0, 0.8, 1.5)


def random_maps(seed=0, shape=(24, 26, 22)):
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(2):
        fields = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), 2) for _ in range(3)])
        fields /= fields.std()
        maps.append(np.where(fields.max(axis=0) > 1.3, fields.argmax(axis=0) + 1, 0).astype(np.uint8))
    return maps


def test_every_label_and_region_scores_as_its_masks_in_the_whole_volume():
    prediction, reference = random_maps()
    scores = score_case(prediction, reference, SPACING, LABELS, REGIONS, (0.5, 2.0))
    assert list(scores.labels) == ["NETC", "SNFH", "ET", "RC"]
    assert list(scores.regions) == ["WT", "TC"]
    for name, values in {"NETC": [1], "SNFH": [2], "ET": [3], "WT": [1, 2, 3], "TC": [1, 3]}.items():
        masks = np.isin(prediction, values), np.isin(reference, values)
        own = {**scores.labels, **scores.regions}[name]
        counts = confusion_counts(*masks)
        assert own.counts == counts
        assert (own.dice, own.iou) == (counts.dice, counts.iou)
        assert own.hd95_mm == hausdorff_distance_95(*masks, SPACING)
        for tolerance in (0.5, 2.0):
            assert own.nsd[tolerance] == normalized_surface_dice(*masks, SPACING, tolerance)
        assert own.reference_volume_mm3 == pytest.approx(masks[1].sum() * 1.2)
        assert own.prediction_volume_mm3 == pytest.approx(masks[0].sum() * 1.2)


def test_a_label_in_neither_map_is_undefined_and_keeps_its_row():
    prediction, reference = random_maps()
    row = score_case(prediction, reference, SPACING, LABELS, REGIONS, [1]).row()
    assert math.isnan(row["dice/RC"])
    assert math.isnan(row["iou/RC"])
    assert math.isnan(row["hd95_mm/RC"])
    assert math.isnan(row["nsd_1mm/RC"])
    assert row["reference_volume_mm3/RC"] == 0.0
    assert row["true_negative/RC"] == reference.size


def test_a_label_in_one_map_is_infinitely_far():
    prediction, reference = random_maps()
    scores = score_case(np.zeros_like(reference), reference, SPACING, LABELS, REGIONS, [1.0])
    assert scores.regions["WT"].dice == 0.0
    assert scores.regions["WT"].hd95_mm == math.inf
    assert scores.regions["WT"].nsd[1.0] == 0.0
    assert score_case(prediction, np.zeros_like(reference), SPACING, LABELS, {}, [1.0]).labels["ET"].hd95_mm == math.inf


def test_two_empty_maps_are_undefined():
    empty = np.zeros((4, 5, 6), dtype=np.int16)
    scores = score_case(empty, empty, SPACING, LABELS, REGIONS, [1.0])
    assert all(math.isnan(mask.dice) for mask in (*scores.labels.values(), *scores.regions.values()))
    assert scores.regions["WT"].counts.true_negative == 120


def test_an_image_is_scored_too():
    reference = np.zeros((9, 9), dtype=np.uint8)
    reference[2:6, 2:6] = 1
    scores = score_case(np.roll(reference, 1, 0), reference, (2.0, 2.0), {"spheroid": 1}, {}, [2.0])
    assert scores.labels["spheroid"].dice == 0.75
    assert scores.labels["spheroid"].hd95_mm == 2.0
    assert scores.labels["spheroid"].nsd[2.0] == 1.0


def test_a_region_may_repeat_a_label_under_its_name():
    prediction, reference = random_maps()
    scores = score_case(prediction, reference, SPACING, LABELS, {"ET": ["ET"]}, [1.0])
    assert scores.regions["ET"] == scores.labels["ET"]


@pytest.mark.parametrize("order", ["C", "F"])
def test_storage_does_not_matter_and_maps_are_not_changed(order):
    prediction, reference = random_maps()
    expected = score_case(prediction, reference, SPACING, LABELS, REGIONS, [1.0]).row()
    stored = [np.array(array, dtype=np.float64, order=order) for array in (prediction, reference)]
    row = score_case(*stored, SPACING, LABELS, REGIONS, [1.0]).row()
    assert {key: str(value) for key, value in row.items()} == {key: str(value) for key, value in expected.items()}
    assert np.array_equal(stored[0], prediction)


def test_bad_input_is_refused():
    prediction, reference = random_maps()
    with pytest.raises(GridMismatchError, match=r"\(24, 26, 21\).*\(24, 26, 22\)"):
        score_case(prediction[..., :21], reference, SPACING, LABELS, REGIONS, [1.0])
    with pytest.raises(CaseError, match=r"prediction, got also \[3\]"):
        score_case(prediction, reference, SPACING, {"NETC": 1, "SNFH": 2}, {}, [1.0])
    with pytest.raises(CaseError, match=r"reference, got also \[2.5\]"):
        score_case(prediction, np.where(reference == 2, 2.5, reference), SPACING, LABELS, {}, [1.0])
    with pytest.raises(UnknownOptionError, match=r"region TC: expected names of labels .* got WT"):
        score_case(prediction, reference, SPACING, LABELS, {"WT": ["ET"], "TC": ["WT"]}, [1.0])
    with pytest.raises(ConfigurationError, match="rename the region"):
        score_case(prediction, reference, SPACING, LABELS, {"ET": ["ET", "NETC"]}, [1.0])

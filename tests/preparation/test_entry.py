"""What a store entry holds."""

import numpy as np
import pytest

from medexp.geometry.grids import Grid, to_canonical, to_native
from medexp.preparation.entry import EmptyCaseError, Transform, build_entry, evenly, foreground_voxels, occupied_box
from medexp.preparation.verification import VerifiedCase

LAS = np.diag([-1.0, 1.0, 1.0, 1.0])
LABELS = {"core": 1, "edge": 2}


def case_of(*, label=True, affine=LAS, margin=2):
    random = np.random.default_rng(0)
    shape = (12, 14, 10)
    inside = np.zeros(shape, bool)
    inside[margin:-margin, margin + 1 : -margin, margin : -margin - 1] = True
    images = {name: np.where(inside, random.integers(1, 900, shape), 0).astype(np.int16) for name in ("a", "b")}
    values = np.where(inside, random.integers(0, 3, shape), 0).astype(np.uint8)
    return VerifiedCase(images, values if label else None, Grid.native(shape, affine), ())


def transform(*, schemes=("zscore_nonzero", "zscore_nonzero"), spacing=(1.0, 1.0, 1.0), channels=("a", "b")):
    return Transform(channels, LABELS, schemes, spacing)


def test_the_entry_is_the_turned_box_of_what_is_not_zero():
    case = case_of()
    entry = build_entry(case, transform())
    assert entry.image.shape == (2, 8, 9, 5)
    grid = Grid.from_json(entry.facts["grid"])
    assert grid.box == ((2, 10), (3, 12), (2, 7))
    window = tuple(slice(*side) for side in grid.box)
    assert (entry.label == to_canonical(case.label, case.grid)[window]).all()
    assert ((entry.image[0] != 0) == (to_canonical(case.images["a"], case.grid)[window] != 0)).all()


def test_the_label_comes_back_exactly():
    case = case_of()
    entry = build_entry(case, transform())
    assert (to_native(entry.label, Grid.from_json(entry.facts["grid"])) == case.label).all()


def test_channels_are_in_the_transforms_order():
    case = case_of()
    swapped = build_entry(case, transform(channels=("b", "a")))
    assert (swapped.image[1] == build_entry(case, transform()).image[0]).all()


def test_labels_outside_the_image_widen_the_box_and_warn():
    case = case_of()
    case.label[0, 0, 0] = 1
    entry = build_entry(case, transform())
    assert (to_native(entry.label, Grid.from_json(entry.facts["grid"])) == case.label).all()
    assert entry.facts["warnings"] == ["labelled voxels lie outside the box of the image"]


def test_a_case_of_zeros_is_refused():
    case = VerifiedCase({"a": np.zeros((4, 4, 4), np.int16)}, None, Grid.native((4, 4, 4), LAS), ())
    with pytest.raises(EmptyCaseError):
        build_entry(case, Transform(("a",), LABELS, ("zscore",), (1.0, 1.0, 1.0)))


def test_another_spacing_resamples_image_and_label():
    entry = build_entry(case_of(), transform(spacing=(2.0, 1.0, 0.5)))
    assert entry.image.shape == (2, 4, 9, 10)
    assert entry.label.shape == (4, 9, 10)
    assert entry.facts["spacing_mm"] == pytest.approx([2.0, 1.0, 0.5])


def test_ct_is_stored_as_native_integers():
    case = case_of()
    entry = build_entry(case, transform(schemes=("ct", "ct")))
    assert entry.image.dtype == np.int16
    window = tuple(slice(*side) for side in Grid.from_json(entry.facts["grid"]).box)
    assert (entry.image[0] == to_canonical(case.images["a"], case.grid)[window]).all()


def test_intensities_are_native_values_of_labelled_voxels():
    case = case_of()
    entry = build_entry(case, transform())
    assert sorted(entry.arrays["intensities"][0]) == sorted(case.images["a"][case.label > 0])


def test_a_case_without_a_label_has_no_label_arrays():
    entry = build_entry(case_of(label=False), transform())
    assert entry.label is None
    assert "foreground" not in entry.arrays
    assert entry.arrays["intensities"].shape == (2, 0)
    assert entry.facts["label_voxels"] is None


def test_equal_voxels_have_equal_hashes_and_others_do_not():
    first, second = build_entry(case_of(), transform()), build_entry(case_of(), transform())
    assert first.facts["voxel_sha256"] == second.facts["voxel_sha256"]
    other = case_of()
    other.images["a"][5, 5, 5] += 100
    assert build_entry(other, transform()).facts["voxel_sha256"] != first.facts["voxel_sha256"]


def test_a_constant_channel_has_no_hash():
    case = case_of()
    case.images["b"][:] = 0
    hashes = build_entry(case, transform()).facts["channel_sha256"]
    assert hashes[0] is not None
    assert hashes[1] is None


def test_foreground_lists_every_voxel_of_a_small_label():
    label = np.random.default_rng(0).integers(0, 4, (6, 7, 8)).astype(np.uint8)
    rows = foreground_voxels(label)
    assert len(rows) == np.count_nonzero(label)
    assert (label[tuple(rows[:, 1:].T)] == rows[:, 0]).all()


def test_foreground_is_a_spread_sample_of_a_large_label():
    label = np.ones((40, 40, 40), np.uint8)
    rows = foreground_voxels(label)
    assert len(rows) == 10_000
    assert len(np.unique(rows, axis=0)) == 10_000
    assert np.abs(rows[:, 1:].mean(axis=0) - 19.5).max() < 0.2


def test_an_empty_label_has_no_foreground():
    assert foreground_voxels(np.zeros((3, 3, 3), np.uint8)).shape == (0, 4)


def test_evenly_keeps_few_values_and_thins_many():
    assert list(evenly(np.arange(3), 5)) == [0, 1, 2]
    chosen = evenly(np.arange(100), 5)
    assert [value // 20 for value in chosen] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_box_of_a_mask(order):
    mask = np.zeros((9, 8, 7), bool, order=order)
    mask[2, 3, 4] = mask[5, 3, 1] = True
    assert occupied_box(mask) == ((2, 6), (3, 4), (1, 5))
    assert occupied_box(np.zeros((3, 3, 3), bool)) is None

from collections import Counter

import numpy as np
import pytest

from medexp.sampling.patches import AUGMENTATION, POSITION, generator_of, moved_start, patch_start

SHAPE, SIZE = (30, 20, 25), (8, 8, 8)
# One voxel of label 1 in the middle, many of label 2 in a corner
ROWS = np.array([[1, 15, 10, 12], *([2, 0, 0, k] for k in range(20))], np.int16)
NONE = np.zeros((0, 4), np.int16)


def starts(
    count: int, *, fraction: float, rows: np.ndarray = ROWS, shape: tuple[int, ...] = SHAPE
) -> list[tuple[int, ...]]:
    return [
        patch_start(
            generator_of(POSITION, seed=0, epoch=0, index=index),
            shape=shape,
            patch_size=SIZE,
            foreground_fraction=fraction,
            foreground=lambda: rows,
        )
        for index in range(count)
    ]


def test_a_key_gives_the_same_patch_again() -> None:
    assert starts(20, fraction=0.5) == starts(20, fraction=0.5)


def test_purposes_of_one_key_are_independent() -> None:
    draws = {purpose: generator_of(purpose, seed=1, epoch=2, index=3).random() for purpose in (POSITION, AUGMENTATION)}
    assert draws[POSITION] != draws[AUGMENTATION]


@pytest.mark.parametrize("changed", ["seed", "epoch", "index"])
def test_every_part_of_a_key_counts(changed: str) -> None:
    key = {"seed": 1, "epoch": 1, "index": 1}
    assert generator_of(POSITION, **key).random() != generator_of(POSITION, **{**key, changed: 2}).random()


def test_uniform_patches_lie_inside_and_reach_both_ends() -> None:
    found = np.array(starts(2000, fraction=0.0))
    assert found.min(axis=0).tolist() == [0, 0, 0]
    assert found.max(axis=0).tolist() == [22, 12, 17]


def test_labels_are_drawn_alike_whatever_their_size() -> None:
    centered = [start == (11, 6, 8) for start in starts(1000, fraction=1.0)]
    assert 0.45 < np.mean(centered) < 0.55


def test_foreground_patches_hold_the_drawn_voxel_also_at_the_edge() -> None:
    for start in starts(200, fraction=1.0):
        inside = [all(0 <= voxel - first < 8 for voxel, first in zip(row[1:], start, strict=True)) for row in ROWS]
        assert any(inside)
        assert all(0 <= first <= length - 8 for first, length in zip(start, SHAPE, strict=True))


def test_share_of_foreground_patches_is_the_fraction() -> None:
    calls: Counter[str] = Counter()

    def counted() -> np.ndarray:
        calls["foreground"] += 1
        return ROWS

    for index in range(2000):
        generator = generator_of(POSITION, seed=0, epoch=0, index=index)
        patch_start(generator, shape=SHAPE, patch_size=SIZE, foreground_fraction=0.33, foreground=counted)
    assert 0.30 < calls["foreground"] / 2000 < 0.36


def test_a_case_without_foreground_gives_uniform_patches() -> None:
    assert len(set(starts(200, fraction=1.0, rows=NONE))) > 100


def test_a_volume_smaller_than_the_patch_lies_in_its_middle() -> None:
    assert {start[1] for start in starts(50, fraction=0.5, shape=(30, 5, 25))} == {-2}


def test_two_axes_work_too() -> None:
    generator = generator_of(POSITION, seed=0, epoch=0, index=0)
    rows = np.array([[1, 5, 5]], np.int16)
    found = patch_start(generator, shape=(12, 12), patch_size=(4, 4), foreground_fraction=1.0, foreground=lambda: rows)
    assert found == (3, 3)


@pytest.mark.parametrize(
    ("start", "shift", "expected"),
    [
        ((5, 5, 5), (3, -2, 0), (8, 3, 5)),
        ((5, 5, 5), (90, -90, 12), (22, 0, 17)),
        ((22, 12, 17), (0, 0, 0), (22, 12, 17)),
    ],
    ids=["inside", "to the ends of the volume", "not at all"],
)
def test_a_patch_moves_as_far_as_the_volume_goes(
    start: tuple[int, ...], shift: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert moved_start(start, shift, shape=SHAPE, patch_size=SIZE) == expected


@pytest.mark.parametrize(("shift", "first"), [(0, -2), (1, -1), (9, 0), (-9, -4)])
def test_a_patch_that_is_larger_than_the_volume_moves_without_losing_any_of_it(shift: int, first: int) -> None:
    assert moved_start((-2,), (shift,), shape=(4,), patch_size=(8,)) == (first,)

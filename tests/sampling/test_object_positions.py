from dataclasses import dataclass

import numpy as np
import pytest

from medexp.sampling.patches import POSITION, ObjectPositions, generator_of
from tests.synthetic.wells import disks

SIZE = (32, 32)
MASK = disks((60, 50, 12), (150, 300, 20), (20, 380, 9), shape=(200, 400))


@dataclass
class Case:
    mask: np.ndarray

    @property
    def shape(self):
        return self.mask.shape

    def label(self):
        return self.mask

    def foreground(self):
        rows = np.argwhere(self.mask)
        return np.concatenate([np.ones((len(rows), 1), int), rows], axis=1).astype(np.int32)


def starts(count=300, mask=MASK, **changes):
    positions = ObjectPositions(
        **{"foreground_fraction": 0.7, "jitter": 0.25, "negative_coverage": 0.05, "negative_tries": 50, **changes}
    )
    generators = (generator_of(POSITION, seed=0, epoch=0, index=index) for index in range(count))
    return [positions.start(generator, Case(mask), patch_size=SIZE) for generator in generators]


def coverage(start, mask=MASK):
    return mask[start[0] : start[0] + SIZE[0], start[1] : start[1] + SIZE[1]].mean()


def test_seven_of_ten_patches_lie_on_objects():
    share = np.mean([coverage(start) >= 0.05 for start in starts(1000)])
    assert share == pytest.approx(0.7, abs=0.06)


def test_patches_on_objects_hold_the_pixel_they_were_made_for():
    for start in starts(foreground_fraction=1.0):
        assert coverage(start) > 0.0


def test_without_jitter_the_pixel_is_in_the_middle_and_with_it_elsewhere():
    single = np.zeros((200, 400), np.uint8)
    single[100, 200] = 1
    assert set(starts(20, single, foreground_fraction=1.0, jitter=0.0)) == {(84, 184)}
    moved = np.array(starts(400, single, foreground_fraction=1.0, jitter=0.25)) - (84, 184)
    assert np.abs(moved).max() <= 8
    assert np.abs(moved).max(axis=0).min() >= 7


def test_patches_stay_inside():
    found = np.array(starts(500))
    assert found.min() >= 0
    assert (found <= (168, 368)).all()


def test_negatives_hold_less_than_a_twentieth():
    assert max(coverage(start) for start in starts(foreground_fraction=0.0)) < 0.05


def test_where_no_negative_is_to_be_found_it_is_the_emptiest_of_the_tries():
    crowded = np.ones((200, 400), np.uint8)
    crowded[:, ::2] = 0
    crowded[100:, :] = 1
    found = starts(40, crowded, foreground_fraction=0.0, negative_tries=30)
    assert np.mean([coverage(start, crowded) for start in found]) < 0.52


def test_an_empty_image_gives_patches_anywhere():
    found = np.array(starts(300, np.zeros((200, 400), np.uint8)))
    assert found.std(axis=0).min() > 40


def test_an_image_smaller_than_the_patch_lies_in_its_middle():
    small = disks((10, 10, 5), shape=(20, 400))
    assert {start[0] for start in starts(50, small)} == {-6}


def test_a_position_is_a_function_of_seed_epoch_and_index():
    assert starts() == starts()
    assert len(set(starts())) > 250

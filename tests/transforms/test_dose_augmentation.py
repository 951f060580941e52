from collections import Counter
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from medexp.composition import compose
from medexp.errors import ConfigurationError
from medexp.transforms.dose_augmentation import DoseAugmentation, DoseDraw

RECIPE: dict[str, Any] = {
    "flip_probability": 0.5,
    "translation_probability": 0.5,
    "translation_voxels": 16,
    "rotation_probability": 0.5,
    "rotation_deg": 5.0,
    "noise_probability": 0.3,
    "noise_deviation": 0.02,
}
DRAWS = 4000


def draws(**changes: Any) -> list[DoseDraw]:
    recipe = DoseAugmentation(**{**RECIPE, **changes})
    return [recipe.draw(np.random.default_rng(seed)) for seed in range(DRAWS)]


def configured(name: str) -> DoseAugmentation:
    values = OmegaConf.to_container(compose(["dataset=vmat", f"dataset/augmentation={name}"]).dataset.augmentation)
    assert isinstance(values, dict)
    assert values.pop("_target_") == "medexp.transforms.dose_augmentation.DoseAugmentation"
    return DoseAugmentation(**values)


def test_the_shipped_recipe_is_that_of_the_vmat_system():
    assert configured("doses") == DoseAugmentation(**RECIPE)


def test_the_shipped_recipe_without_changes_draws_none():
    drawn = [configured("no_doses").draw(np.random.default_rng(seed)) for seed in range(20)]
    assert all(replace(one, noise_seed=0) == DoseDraw() for one in drawn)


def test_changes_happen_as_often_as_they_should():
    found = draws()
    happened = {
        "flip": sum(one.is_mirrored for one in found),
        "translation": sum(one.shift_voxels != (0, 0, 0) for one in found),
        "rotation": sum(one.angle_deg is not None for one in found),
        "noise": sum(one.noise is not None for one in found),
    }
    expected = {"flip": 0.5, "translation": 0.5, "rotation": 0.5, "noise": 0.3}
    assert {name: count / DRAWS for name, count in happened.items()} == pytest.approx(expected, abs=0.03)


def test_translations_reach_both_ends_evenly_on_every_axis():
    found = draws(translation_probability=1.0, translation_voxels=2)
    for axis in range(3):
        counts = Counter(one.shift_voxels[axis] for one in found)
        assert sorted(counts) == [-2, -1, 0, 1, 2]
        assert min(counts.values()) > 0.85 * DRAWS / 5


def test_angles_fill_their_range_either_way():
    angles = np.array([one.angle_deg for one in draws(rotation_probability=1.0)])
    assert angles.min() < -4.9
    assert angles.max() > 4.9
    assert np.abs(angles).max() <= 5.0
    assert abs(angles.mean()) < 0.15


def test_a_draw_is_a_function_of_its_generator():
    recipe = DoseAugmentation(**RECIPE)
    assert recipe.draw(np.random.default_rng(7)) == recipe.draw(np.random.default_rng(7))


@pytest.mark.parametrize(
    ("key", "nothing"),
    [
        ("flip_probability", {"is_mirrored": False}),
        ("translation_probability", {"shift_voxels": (0, 0, 0)}),
        ("rotation_probability", {"angle_deg": None}),
        ("noise_probability", {"noise": None}),
    ],
)
def test_switching_one_change_off_leaves_the_others_as_they_were(key, nothing):
    with_it, without = draws(), draws(**{key: 0.0})
    assert without == [replace(one, **nothing) for one in with_it]
    assert without != with_it


def test_neither_recipe_nor_draw_can_name_an_axis_or_change_a_dose():
    """Other flips, quarter turns and changes of the dose are not there to be configured."""
    assert {one.name for one in fields(DoseAugmentation)} == set(RECIPE)
    assert [one.name for one in fields(DoseDraw)] == ["is_mirrored", "shift_voxels", "angle_deg", "noise", "noise_seed"]
    assert DoseDraw(is_mirrored=True).flips == (0,)
    assert DoseDraw().flips == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("flip_probability", -0.1),
        ("rotation_probability", 1.1),
        ("noise_probability", float("nan")),
        ("translation_voxels", -1),
        ("rotation_deg", -5.0),
        ("rotation_deg", 90.0),
        ("noise_deviation", -0.02),
        ("noise_deviation", float("nan")),
    ],
)
def test_an_impossible_recipe_is_refused_by_key(key, value):
    with pytest.raises(ConfigurationError, match=rf"augmentation\.{key}: expected 0"):
        DoseAugmentation(**{**RECIPE, key: value})


def test_a_turn_keeps_lengths_in_millimeters_whatever_the_pixels():
    spacing = np.array([2.0, 3.0, 9.0])
    matrix = DoseDraw(angle_deg=20.0).in_plane(spacing.tolist())
    in_mm = np.diag(spacing[:2]) @ matrix @ np.diag(1.0 / spacing[:2])
    assert in_mm @ in_mm.T == pytest.approx(np.eye(2), abs=1e-12)
    assert in_mm[0, 0] == pytest.approx(np.cos(np.deg2rad(20.0)))


def test_a_mirror_reverses_left_and_right_in_the_plane():
    assert np.array_equal(DoseDraw(is_mirrored=True).in_plane([1.0, 1.0, 1.0]), np.diag([-1.0, 1.0]))

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from medexp.composition import compose
from medexp.errors import ConfigurationError
from medexp.transforms.augmentation import Augmentation
from medexp.transforms.draws import Draw

FOLDER = Path(__file__).parents[2] / "conf" / "dataset" / "augmentation"
RECIPES = [path for path in sorted(FOLDER.glob("*.yaml")) if "DoseAugmentation" not in path.read_text()]
CUBE = (32, 32, 32)


def recipe(name: str) -> Augmentation:
    values = OmegaConf.to_container(compose([f"dataset/augmentation={name}"]).dataset.augmentation)
    assert isinstance(values, dict)
    assert values.pop("_target_") == "medexp.transforms.augmentation.Augmentation"
    return Augmentation(**values)


def draw(augmentation: Augmentation, *key: int, patch_size: tuple[int, ...] = CUBE, num_channels: int = 4) -> Draw:
    return augmentation.draw(np.random.default_rng(key), num_channels=num_channels, patch_size=patch_size)


def draws(augmentation: Augmentation, count: int) -> list[Draw]:
    return [draw(augmentation, index) for index in range(count)]


def test_recipes_were_found() -> None:
    assert {path.stem for path in RECIPES} >= {"none", "light", "nnunet"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_configuration_can_be_drawn(path: Path) -> None:
    assert isinstance(draw(recipe(path.stem), 0), Draw)


def test_none_draws_nothing() -> None:
    drawn = draw(recipe("none"), 0)
    assert drawn.flips == ()
    changes = (
        "matrix",
        "noise",
        "blur",
        "brightness",
        "shift",
        "contrast",
        "low_resolution",
        "inverted_gamma",
        "gamma",
    )
    assert all(getattr(drawn, change) is None for change in changes)


def test_a_key_draws_the_same_again() -> None:
    first, again = draw(recipe("nnunet"), 0, 3, 7), draw(recipe("nnunet"), 0, 3, 7)
    assert repr(first) == repr(again)
    assert repr(first) != repr(draw(recipe("nnunet"), 0, 3, 8))


def test_nnunet_recipe_draws_as_often_as_it_says() -> None:
    drawn = draws(recipe("nnunet"), 4000)
    share = {
        "noise": np.mean([one.noise is not None for one in drawn]),
        "blur": np.mean([one.blur is not None for one in drawn]),
        "brightness": np.mean([one.brightness is not None for one in drawn]),
        "contrast": np.mean([one.contrast is not None for one in drawn]),
        "low_resolution": np.mean([one.low_resolution is not None for one in drawn]),
        "gamma": np.mean([one.gamma is not None for one in drawn]),
        "inverted_gamma": np.mean([one.inverted_gamma is not None for one in drawn]),
        "space": np.mean([one.matrix is not None for one in drawn]),
    }
    expected = {"noise": 0.1, "blur": 0.2, "brightness": 0.15, "contrast": 0.15, "low_resolution": 0.25}
    expected |= {"gamma": 0.3, "inverted_gamma": 0.1, "space": 1 - 0.8 * 0.8}
    assert share == pytest.approx(expected, abs=0.025)  # three deviations of the largest


def test_half_of_the_channels_are_blurred() -> None:
    channels = [sigmas for one in draws(recipe("nnunet"), 2000) if one.blur is not None for sigmas in one.blur]
    assert np.mean([sigmas is not None for sigmas in channels]) == pytest.approx(0.5, abs=0.04)
    assert all(0.5 <= sigma <= 1.0 for sigmas in channels if sigmas is not None for sigma in sigmas)


def test_factors_below_and_above_one_are_equally_likely() -> None:
    exponents = np.array(
        [value for one in draws(recipe("nnunet"), 3000) if one.gamma is not None for value in one.gamma]
    )
    assert exponents.min() >= 0.7
    assert exponents.max() <= 1.5
    assert np.mean(exponents < 1.0) == pytest.approx(0.5, abs=0.03)


def test_each_axis_is_flipped_half_the_time() -> None:
    drawn = draws(recipe("light"), 2000)
    assert [np.mean([axis in one.flips for one in drawn]) for axis in range(3)] == pytest.approx([0.5] * 3, abs=0.04)


def test_channels_draw_their_own_values() -> None:
    drawn = draw(recipe("light"), 0)
    assert drawn.brightness is not None
    assert len(set(drawn.brightness)) == 4


def test_rotation_matrices_turn_by_the_drawn_range_and_keep_lengths() -> None:
    turning = Augmentation(flip_axes=[], rotation_probability=1.0, rotation_deg=[-30.0, 30.0])
    for drawn in draws(turning, 50):
        assert drawn.matrix is not None
        assert drawn.matrix @ drawn.matrix.T == pytest.approx(np.eye(3))
        assert np.linalg.det(drawn.matrix) == pytest.approx(1.0)


def test_scaling_and_flips_join_the_matrix() -> None:
    scaling = Augmentation(flip_axes=[0], scaling_probability=1.0, scaling=[0.5, 0.5])
    found = {tuple(np.diag(one.matrix)) for one in draws(scaling, 30) if one.matrix is not None}
    assert found == {(0.5, 0.5, 0.5), (-0.5, 0.5, 0.5)}
    assert all(one.flips == () for one in draws(scaling, 30))


def test_flat_patches_turn_and_scale_in_their_plane_only() -> None:
    drawn = draw(recipe("nnunet"), 0, patch_size=(8, 64, 64))
    moving = Augmentation(
        flip_axes=[], rotation_probability=1.0, rotation_deg=[20.0, 20.0], scaling_probability=1.0, scaling=[0.7, 0.7]
    )
    drawn = draw(moving, 0, patch_size=(8, 64, 64))
    assert drawn.matrix is not None
    assert drawn.matrix[0] == pytest.approx([1.0, 0.0, 0.0])
    assert np.linalg.det(drawn.matrix) == pytest.approx(0.49)


def test_two_axes_draw_one_angle() -> None:
    drawn = draw(
        Augmentation(flip_axes=[0, 1], rotation_probability=1.0, rotation_deg=[10.0, 10.0]), 0, patch_size=(8, 8)
    )
    assert drawn.matrix is not None
    assert drawn.matrix.shape == (2, 2)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        pytest.param({"noise_probability": 0.1}, "noise_deviation", id="range is missing"),
        pytest.param({"gamma_probability": 1.5, "gamma": [1.0, 2.0]}, "gamma_probability", id="probability above 1"),
        pytest.param({"scaling_probability": 0.1, "scaling": [0.0, 1.0]}, "scaling", id="scale of 0"),
        pytest.param({"rotation_probability": 0.1, "rotation_deg": [30.0, -30.0]}, "rotation_deg", id="bounds swapped"),
        pytest.param(
            {"noise_probability": 0.1, "noise_deviation": [-0.1, 0.1]}, "noise_deviation", id="negative deviation"
        ),
        pytest.param({"shift_probability": 0.1, "shift": [0.1]}, "shift", id="one bound"),
        pytest.param({"flip_axes": [3]}, "flip_axes", id="no such axis"),
        pytest.param({"flip_axes": [1, 1]}, "flip_axes", id="axis twice"),
    ],
)
def test_an_impossible_recipe_is_refused_by_key(values: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"augmentation\.{key}: expected"):
        Augmentation(**{"flip_axes": [], **values})

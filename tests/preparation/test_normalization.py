"""Normalization: each scheme's numbers, and which channel gets which."""

import numpy as np
import pytest

from medexp.errors import ConfigurationError
from medexp.preparation.normalization import normalize, schemes_of, stored_dtype


@pytest.fixture
def image():
    random = np.random.default_rng(0)
    values = random.integers(-50, 1500, (9, 8, 7)).astype(np.int16)
    return np.where(random.random(values.shape) > 0.4, values, 0).astype(np.int16)


def test_zscore_nonzero_normalizes_what_is_not_zero_and_keeps_zero(image):
    result = normalize(image, "zscore_nonzero")
    inside = result[image != 0]
    assert abs(inside.mean(dtype=np.float64)) < 1e-5
    assert inside.std(dtype=np.float64) == pytest.approx(1.0, abs=1e-5)
    assert (result[image == 0] == 0).all()


def test_zscore_nonzero_agrees_with_monai(image):
    from monai.transforms import NormalizeIntensity

    expected = NormalizeIntensity(nonzero=True)(image.astype(np.float32))
    assert np.allclose(normalize(image, "zscore_nonzero"), np.asarray(expected), atol=1e-5)


def test_zscore_uses_every_voxel(image):
    result = normalize(image, "zscore")
    assert np.allclose(result, (image - image.mean()) / image.std(), atol=1e-5)


@pytest.mark.parametrize("scheme", ["zscore_nonzero", "zscore", "rescale"])
@pytest.mark.parametrize("value", [0, 3])
def test_a_constant_channel_becomes_zero(scheme, value):
    assert (normalize(np.full((3, 3, 3), value, np.int16), scheme) == 0).all()


def test_a_large_scale_is_no_harm():
    image = (np.random.default_rng(0).random((8, 8, 8)) * 1e6 + 1e6).astype(np.float32)
    assert np.allclose(
        normalize(image, "zscore"), (image - image.mean(dtype=float)) / image.std(dtype=float), atol=1e-3
    )


def test_native_schemes_keep_the_values(image):
    assert (normalize(image, "none") == image).all()
    assert (normalize(image, "ct") == image).all()


def test_rescaling_fills_the_unit_interval(image):
    result = normalize(image, "rescale")
    assert (result.min(), result.max()) == (0.0, 1.0)
    assert normalize(image, "rgb").max() == pytest.approx(image.max() / 255)


def test_auto_follows_nnunets_table():
    names = ("CT", "T1", "noNorm", "rescale_to_0_1", "RGB_to_0_1")
    assert schemes_of("auto", names) == ("ct", "zscore", "none", "rescale", "rgb")


def test_one_scheme_serves_all_channels():
    assert schemes_of("zscore_nonzero", ("CT", "T1")) == ("zscore_nonzero", "zscore_nonzero")


def test_an_unknown_normalization_names_the_key_and_the_choices():
    with pytest.raises(ConfigurationError, match=r"dataset\.normalization.*zscore_nonzero, zscore, auto, none.*minmax"):
        schemes_of("minmax", ("T1",))


@pytest.mark.parametrize(
    ("schemes", "native", "expected"),
    [
        (("zscore", "zscore_nonzero"), ("i2", "f4"), "f2"),
        (("ct",), ("i2",), "i2"),
        (("ct",), ("u1",), "i2"),
        (("ct",), ("f4",), "f4"),
        (("ct",), ("u2",), "f4"),
        (("ct", "zscore"), ("i2", "i2"), "f4"),
    ],
)
def test_the_stored_type_holds_the_values(schemes, native, expected):
    assert stored_dtype(schemes, [np.dtype(name) for name in native]) == np.dtype(expected)


@pytest.mark.parametrize(("share", "zscore"), [(1.0, "zscore"), (0.75, "zscore"), (0.749, "zscore_nonzero")])
def test_auto_uses_the_mask_where_cropping_leaves_less_than_three_quarters(share, zscore):
    """nnU-Net's rule: `median_relative_size_after_cropping < 3/4`, for the schemes that can use a mask."""
    names = ["T1", "CT", "noNorm", "rescale_to_0_1", "rgb_to_0_1"]
    assert schemes_of("auto", names, cropped_share=share) == (zscore, "ct", "none", "rescale", "rgb")
    assert schemes_of("zscore", names, cropped_share=share) == ("zscore",) * 5

import numpy as np
import pytest
import torch
from scipy import ndimage

from medexp.transforms import intensity


@pytest.fixture
def image() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, 14, 15, 16)).astype(np.float32))


def test_noise_has_the_deviation_and_repeats_by_seed(image: torch.Tensor) -> None:
    first, again, other = image.clone(), image.clone(), image.clone()
    intensity.add_noise(first, deviation=0.5, seed=3)
    intensity.add_noise(again, deviation=0.5, seed=3)
    intensity.add_noise(other, deviation=0.5, seed=4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float((first - image).std()) == pytest.approx(0.5, rel=0.03)
    assert not torch.equal((first - image)[0], (first - image)[1])


@pytest.mark.parametrize("sigmas", [(0.5, 0.5, 0.5), (1.0, 0.7, 0.9)])
def test_blur_agrees_with_scipy(image: torch.Tensor, sigmas: tuple[float, ...]) -> None:
    blurred = image.clone()
    intensity.blur(blurred, [sigmas, None])
    expected = image[0].numpy()
    for axis, sigma in enumerate(sigmas):
        radius = max(1, int(3.0 * sigma))
        expected = ndimage.gaussian_filter1d(expected, sigma, axis=axis, mode="mirror", radius=radius)
    assert blurred[0].numpy() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(blurred[1], image[1])


def test_blur_of_a_thin_volume_keeps_constants() -> None:
    thin = torch.full((1, 2, 1, 9), 3.0)
    intensity.blur(thin, [(1.0, 1.0, 1.0)])
    assert thin.numpy() == pytest.approx(np.full((1, 2, 1, 9), 3.0), abs=1e-5)


def test_scale_and_shift_change_the_named_channels_only(image: torch.Tensor) -> None:
    changed = image.clone()
    intensity.scale(changed, [2.0, None])
    intensity.shift(changed, [None, 0.5])
    assert torch.equal(changed[0], image[0] * 2)
    assert torch.equal(changed[1], image[1] + 0.5)


def test_contrast_keeps_the_mean_and_the_range(image: torch.Tensor) -> None:
    changed = image.clone()
    intensity.change_contrast(changed, [0.75, 1.25])
    assert float(changed[0].mean()) == pytest.approx(float(image[0].mean()), abs=1e-5)
    assert float(changed[0].std()) == pytest.approx(0.75 * float(image[0].std()), rel=1e-4)
    assert float(changed[1].max()) <= float(image[1].max())
    assert float(changed[1].min()) >= float(image[1].min())


def test_lower_resolution_halves_and_comes_back(image: torch.Tensor) -> None:
    changed = image.clone()
    intensity.lower_resolution(changed, [(0.5, 0.5, 0.5), None])
    small = torch.nn.functional.interpolate(image[:1, None], [7, 8, 8], mode="nearest-exact")
    expected = torch.nn.functional.interpolate(small, [14, 15, 16], mode="trilinear", align_corners=False)
    assert torch.equal(changed[0], expected[0, 0])
    assert torch.equal(changed[1], image[1])


def test_full_resolution_changes_nothing(image: torch.Tensor) -> None:
    changed = image.clone()
    intensity.lower_resolution(changed, [(1.0, 1.0, 1.0)] * 2)
    assert changed.numpy() == pytest.approx(image.numpy(), abs=1e-6)


@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_keeps_mean_deviation_and_order(image: torch.Tensor, inverted: bool) -> None:
    changed = image.clone()
    intensity.change_gamma(changed, [0.7, 1.5], inverted=inverted)
    for channel, before in zip(changed, image, strict=True):
        assert float(channel.mean()) == pytest.approx(float(before.mean()), abs=1e-4)
        assert float(channel.std()) == pytest.approx(float(before.std()), rel=1e-3)
        in_order = channel.ravel()[before.ravel().argsort()]
        assert float(in_order.diff().min()) >= -1e-6


def test_gamma_follows_the_formula(image: torch.Tensor) -> None:
    changed = image[:1].clone()
    intensity.change_gamma(changed, [1.4], inverted=False)
    values = image[0].double().numpy()
    powered = ((values - values.min()) / np.ptp(values)) ** 1.4
    expected = (powered - powered.mean()) / powered.std() * values.std() + values.mean()
    assert changed[0].numpy() == pytest.approx(expected, abs=1e-4)


def test_inverted_gamma_is_gamma_of_the_negative(image: torch.Tensor) -> None:
    changed, negative = image.clone(), -image
    intensity.change_gamma(changed, [0.8, 1.3], inverted=True)
    intensity.change_gamma(negative, [0.8, 1.3], inverted=False)
    assert changed.numpy() == pytest.approx(-negative.numpy(), abs=1e-4)


def test_gamma_leaves_a_constant_channel_finite() -> None:
    constant = torch.full((1, 4, 4, 4), 2.0)
    intensity.change_gamma(constant, [0.7], inverted=False)
    assert constant.numpy() == pytest.approx(np.full((1, 4, 4, 4), 2.0), abs=1e-5)


def test_background_is_where_all_channels_are_zero(image: torch.Tensor) -> None:
    image[0, 0] = 0.0
    image[1, :3] = 0.0
    outside = intensity.background(image)
    assert outside[0].all()
    assert not outside[1:].any()

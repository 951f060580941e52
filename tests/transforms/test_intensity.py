import numpy as np
import pytest
import torch
from scipy import ndimage

from medexp.transforms import intensity


@pytest.fixture
def image() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, 14, 15, 16)).astype(np.float32))


@pytest.fixture
def channel(image: torch.Tensor) -> torch.Tensor:
    return image[0]


def noisy(channel: torch.Tensor, seed: int) -> torch.Tensor:
    changed = channel.clone()
    intensity.add_noise(changed, deviation=0.5, generator=torch.Generator().manual_seed(seed))
    return changed


def test_noise_has_the_deviation_and_repeats_by_seed(channel: torch.Tensor) -> None:
    assert torch.equal(noisy(channel, 3), noisy(channel, 3))
    assert not torch.equal(noisy(channel, 3), noisy(channel, 4))
    assert float((noisy(channel, 3) - channel).std()) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("sigmas", [(0.5, 0.5, 0.5), (1.0, 0.7, 0.9)])
def test_blur_agrees_with_scipy(channel: torch.Tensor, sigmas: tuple[float, ...]) -> None:
    expected = channel.numpy().copy()
    intensity.blur(channel, sigmas)
    for axis, sigma in enumerate(sigmas):
        radius = max(1, int(3.0 * sigma))
        expected = ndimage.gaussian_filter1d(expected, sigma, axis=axis, mode="mirror", radius=radius)
    assert channel.numpy() == pytest.approx(expected, abs=1e-5)


def test_blur_of_a_thin_volume_keeps_constants() -> None:
    thin = torch.full((2, 1, 9), 3.0)
    intensity.blur(thin, (1.0, 1.0, 1.0))
    assert thin.numpy() == pytest.approx(np.full((2, 1, 9), 3.0), abs=1e-5)


@pytest.mark.parametrize("factor", [0.75, 1.25])
def test_contrast_scales_distances_from_the_mean_within_the_range(channel: torch.Tensor, factor: float) -> None:
    before = channel.double().clone()
    intensity.change_contrast(channel, factor)
    expected = ((before - before.mean()) * factor + before.mean()).clamp(before.min(), before.max())
    assert channel.numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_lower_resolution_halves_and_comes_back(channel: torch.Tensor) -> None:
    small = torch.nn.functional.interpolate(channel[None, None], [7, 8, 8], mode="nearest-exact")
    expected = torch.nn.functional.interpolate(small, [14, 15, 16], mode="trilinear", align_corners=False)
    intensity.lower_resolution(channel, (0.5, 0.5, 0.5))
    assert torch.equal(channel, expected[0, 0])


def test_full_resolution_changes_nothing(channel: torch.Tensor) -> None:
    before = channel.clone()
    intensity.lower_resolution(channel, (1.0, 1.0, 1.0))
    assert channel.numpy() == pytest.approx(before.numpy(), abs=1e-6)


@pytest.mark.parametrize("exponent", [0.7, 1.5])
@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_keeps_mean_deviation_and_order(channel: torch.Tensor, exponent: float, inverted: bool) -> None:
    before = channel.clone()
    intensity.change_gamma(channel, exponent, inverted=inverted)
    assert float(channel.mean()) == pytest.approx(float(before.mean()), abs=1e-4)
    assert float(channel.std()) == pytest.approx(float(before.std()), rel=1e-3)
    in_order = channel.ravel()[before.ravel().argsort()]
    assert float(in_order.diff().min()) >= -1e-6


def test_gamma_follows_the_formula(channel: torch.Tensor) -> None:
    values = channel.double().numpy().copy()
    intensity.change_gamma(channel, 1.4, inverted=False)
    powered = ((values - values.min()) / np.ptp(values)) ** 1.4
    expected = (powered - powered.mean()) / powered.std() * values.std() + values.mean()
    assert channel.numpy() == pytest.approx(expected, abs=1e-4)


def test_inverted_gamma_is_gamma_of_the_negative(channel: torch.Tensor) -> None:
    negative = -channel
    intensity.change_gamma(channel, 0.8, inverted=True)
    intensity.change_gamma(negative, 0.8, inverted=False)
    assert channel.numpy() == pytest.approx(-negative.numpy(), abs=1e-4)


def test_gamma_leaves_a_constant_channel_as_it_is() -> None:
    constant = torch.full((4, 4, 4), 2.0)
    intensity.change_gamma(constant, 0.7, inverted=False)
    assert constant.numpy() == pytest.approx(np.full((4, 4, 4), 2.0), abs=1e-5)


def test_occupied_is_where_some_channel_is_not_zero(image: torch.Tensor) -> None:
    image[0, 0] = 0.0
    image[1, :3] = 0.0
    image[1, 2, 0, 0] = 6e-8  # the smallest that a store holds
    image[0, 2, 0, 0] = 0.0
    inside = intensity.occupied(image)
    assert not inside[0].any()
    assert (inside[1:] == 1.0).all()

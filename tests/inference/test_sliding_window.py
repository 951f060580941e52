"""Whole volumes by windows: MONAI's result, full coverage, nothing lost by skipping background."""

import numpy as np
import pytest
import torch
from torch import nn

from medexp.errors import ConfigurationError
from medexp.inference.sliding_window import SlidingWindow

SIZES = [
    pytest.param((24, 24, 24), (16, 16, 16), id="several windows"),
    pytest.param((23, 17, 31), (16, 8, 12), id="odd sizes"),
    pytest.param((16, 16, 16), (16, 16, 16), id="one window"),
    pytest.param((9, 20, 7), (16, 16, 16), id="smaller than the window"),
    pytest.param((50, 37), (16, 20), id="two dimensions"),
    pytest.param((5, 40), (16, 16), id="two dimensions, one too small"),
]


def window(*, overlap=0.5, batch_size=1, skip_background=False) -> SlidingWindow:
    return SlidingWindow(overlap=overlap, batch_size=batch_size, skip_background=skip_background)


def network(axes: int) -> nn.Module:
    torch.manual_seed(0)
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[axes]
    return nn.Sequential(convolution(2, 4, 3, padding=1), nn.ReLU(), convolution(4, 3, 3, padding=1)).eval()


def with_hole(size=(40, 24, 24)) -> torch.Tensor:
    """An image whose foreground is a ball in one corner, with a zero inside."""
    torch.manual_seed(1)
    axes = torch.meshgrid(*(torch.arange(side) for side in size), indexing="ij")
    ball = sum((axis - 8) ** 2 for axis in axes) < 36
    image = torch.randn(2, *size) * ball
    image[:, 8, 8, 8] = 0
    return image


@pytest.mark.parametrize(("size", "side"), SIZES)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.7])
def test_equals_monai(size, side, overlap):
    from monai.inferers import sliding_window_inference

    image, net = torch.randn(2, *size), network(len(size))
    with torch.no_grad():
        wanted = sliding_window_inference(image[None], side, 1, net, overlap=overlap, mode="gaussian")[0]
    assert torch.allclose(window(overlap=overlap)(net, image, patch_size=side), wanted, atol=1e-5)


@pytest.mark.parametrize(("size", "side"), SIZES)
def test_identity_network_returns_the_image(size, side):
    image = torch.randn(2, *size)
    assert torch.allclose(window()(nn.Identity(), image, patch_size=side), image, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(16,), (17,), (100,), (129,)])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.9])
def test_windows_reach_both_ends_and_leave_no_gap(size, overlap):
    covered = torch.zeros(size)
    for place in window(overlap=overlap).places(size, (16,)):
        assert place[0].stop - place[0].start == 16
        covered[place] += 1
    assert covered.min() >= 1


def test_batches_of_windows_give_the_same():
    image, net = torch.randn(2, 24, 30, 20), network(3)
    one, four = (window(batch_size=size)(net, image, patch_size=(16, 16, 16)) for size in (1, 4))
    assert torch.allclose(one, four, atol=1e-6)


def test_skipping_background_changes_nothing_in_the_foreground():
    image, net = with_hole(), network(3)
    plain, skipping = (window(skip_background=skip)(net, image, patch_size=(16, 16, 16)) for skip in (False, True))
    foreground = (image != 0).any(0)
    assert foreground.any()
    assert torch.equal(plain[:, foreground], skipping[:, foreground])


def test_windows_without_foreground_are_not_run():
    ran = []

    def counted(batch):
        ran.append(bool((batch != 0).any()))
        return batch

    image = with_hole()
    window(skip_background=True)(counted, image, patch_size=(16, 16, 16))
    assert all(ran)
    assert len(ran) < len(list(window().places(image.shape[1:], (16, 16, 16))))


def test_single_foreground_voxel_keeps_its_windows():
    image = torch.zeros(1, 48, 16, 16)
    image[0, 21, 3, 5] = -2.0  # off the coarse grid that is looked at first
    found = window(skip_background=True)(nn.Identity(), image, patch_size=(16, 16, 16))
    assert torch.allclose(found, image)


def test_voxels_without_windows_get_the_backgrounds_output():
    found = window(skip_background=True)(network(3), with_hole(), patch_size=(16, 16, 16), background=(20.0, 0.0, -1.5))
    assert found[:, -1, -1, -1].tolist() == [20.0, 0.0, -1.5]


def test_backgrounds_output_does_not_leak_into_windows():
    image, net = with_hole(), network(3)
    plain, told = (
        window(skip_background=True)(net, image, patch_size=(16, 16, 16), background=background)
        for background in ((), (20.0, 0.0, 0.0))
    )
    ran = (plain != 0).any(0)
    assert torch.equal(plain[:, ran], told[:, ran])


def test_image_of_background_alone_still_has_an_output():
    image = torch.zeros(1, 40, 16, 16)
    found = window(skip_background=True)(lambda batch: batch + 3, image, patch_size=(16, 16, 16), background=(7.0,))
    assert found.shape == image.shape
    assert found[0, 0, 0, 0] == 3
    assert found[0, -1, 0, 0] == 7


def test_half_precision_outputs_are_blended_in_float32():
    image = torch.rand(1, 24, 16, 16)
    found = window()(lambda batch: batch.half(), image, patch_size=(16, 16, 16))
    assert found.dtype == torch.float32
    assert torch.allclose(found, image, atol=1e-3)


def test_image_is_left_as_it_was_and_no_gradient_is_kept():
    image, net = torch.randn(2, 20, 20, 20), network(3)
    before = image.clone()
    assert not window()(net, image, patch_size=(16, 16, 16)).requires_grad
    assert torch.equal(image, before)


def test_importance_is_computed_once():
    one = window()
    assert one.importance((8, 8), torch.device("cpu")) is one.importance((8, 8), torch.device("cpu"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"overlap": 1.0}, "overlap"), ({"overlap": -0.1}, "overlap"), ({"batch_size": 0}, "batch_size")],
)
def test_refuses_values_out_of_range(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        window(**changes)


def test_refuses_a_patch_of_another_dimension():
    with pytest.raises(ConfigurationError, match=r"dataset\.patch_size: expected 3 sides"):
        window()(nn.Identity(), torch.randn(1, 8, 8, 8), patch_size=(4, 4))


@pytest.mark.parametrize("size", [(5, 40), (3, 3), (1, 9), (33, 70)])
def test_reflection_pads_as_numpy_does(size):
    image = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
    seen = []

    def network(batch):
        seen.append(batch.clone())
        return batch

    window = SlidingWindow(overlap=0.25, batch_size=1, skip_background=False, padding="reflect")
    assert torch.allclose(window(network, image, patch_size=(32, 32)), image, atol=1e-6)
    missing = [max(32 - side, 0) for side in size]
    margins = [(0, 0), *((total // 2, total - total // 2) for total in missing)]
    expected = np.pad(image.numpy(), margins, mode="reflect")
    assert np.array_equal(seen[0][0].numpy(), expected[:, :32, :32])


def test_a_well_takes_eighty_tiles_and_no_more():
    window = SlidingWindow(overlap=0.25, batch_size=1, skip_background=False)
    places = list(window.places((1440, 1920), (256, 256)))
    assert len(places) == 8 * 10  # the fewest that cover it with a quarter in common
    assert len(set(map(str, places))) == len(places)
    assert places[-1] == (slice(1184, 1440), slice(1664, 1920))

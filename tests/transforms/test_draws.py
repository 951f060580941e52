import numpy as np
import pytest
import torch

from medexp.transforms.draws import Draw, augmented, change_intensities
from medexp.transforms.spatial import rotation_matrix

EVERY_INTENSITY = Draw(
    noise=0.1,
    noise_seed=5,
    blur=((0.8, 0.8, 0.8), None),
    brightness=(1.2, 0.8),
    shift=(0.1, -0.1),
    contrast=(1.2, 0.8),
    low_resolution=((0.6, 0.6, 0.6), None),
    inverted_gamma=(0.8, 1.2),
    gamma=(1.3, 0.9),
)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.standard_normal((2, 2, 10, 10, 10)).astype(np.float32))
    return image, torch.from_numpy(rng.integers(0, 4, (2, 10, 10, 10)).astype(np.uint8))


def test_nothing_drawn_is_the_identity(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, label = augmented(*batch, [Draw(), Draw()])
    assert torch.equal(image, batch[0])
    assert torch.equal(label, batch[1])


def test_the_arguments_stay_as_they_are(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    before = batch[0].clone(), batch[1].clone()
    augmented(*batch, [EVERY_INTENSITY, Draw(flips=(0,), gamma=(1.2, 1.2))])
    assert torch.equal(batch[0], before[0])
    assert torch.equal(batch[1], before[1])


def test_flips_move_image_and_label_together(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, label = augmented(*batch, [Draw(flips=(0, 2)), Draw()])
    assert torch.equal(image[0], batch[0][0].flip(1, 3))
    assert torch.equal(label[0], batch[1][0].flip(0, 2))
    assert torch.equal(image[1], batch[0][1])


def test_rotation_moves_image_and_label_together() -> None:
    label = torch.zeros(1, 16, 16, 16, dtype=torch.uint8)
    label[0, 5:11, 4:12, 6:9] = 1
    image, turned = augmented(label[:, None].float(), label, [Draw(matrix=rotation_matrix([20.0, 10.0, 30.0]))])
    agreement = ((image[0, 0] > 0.5) == (turned[0] == 1)).float().mean()
    assert agreement > 0.98
    assert int((turned != label).sum()) > 0


def test_intensities_never_touch_labels(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, label = augmented(*batch, [EVERY_INTENSITY, EVERY_INTENSITY])
    assert torch.equal(label, batch[1])
    assert not torch.equal(image, batch[0])


def test_the_same_draw_gives_the_same_bytes(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    first, again = (augmented(*batch, [EVERY_INTENSITY, EVERY_INTENSITY])[0] for _ in range(2))
    assert torch.equal(first, again)


def test_every_change_alone_changes_something(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    for name in ("noise", "blur", "brightness", "shift", "contrast", "low_resolution", "inverted_gamma", "gamma"):
        image = batch[0][0].clone()
        change_intensities(image, Draw(**{name: getattr(EVERY_INTENSITY, name)}))
        assert not torch.equal(image, batch[0][0]), name


def test_brightness_and_shift_change_their_channels_only(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    before, image = batch[0][0].clone(), batch[0][0]
    change_intensities(image, Draw(brightness=(2.0, None), shift=(None, 0.5)))
    assert torch.equal(image[0], before[0] * 2.0)
    assert torch.equal(image[1], before[1] + 0.5)


def test_channels_get_different_noise() -> None:
    image = torch.zeros(2, 5, 5, 5)
    change_intensities(image, Draw(noise=1.0, noise_seed=1))
    assert not torch.equal(image[0], image[1])


def test_background_stays_zero_when_asked(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    image = batch[0][0]
    image[:, :4] = 0.0
    image[0, 5] = 0.0
    change_intensities(image, Draw(noise=0.3, shift=(1.0, 1.0), keep_background=True))
    assert not image[:, :4].any()
    assert image[0, 5].all()


def test_planes_work_too() -> None:
    image, label = torch.rand(1, 3, 12, 12), torch.ones(1, 12, 12, dtype=torch.uint8)
    drawn = Draw(
        matrix=rotation_matrix([15.0]),
        blur=((0.7, 0.7),) * 3,
        low_resolution=((0.5, 0.5),) * 3,
        gamma=(1.2, 1.2, 1.2),
        noise=0.1,
    )
    new_image, new_label = augmented(image, label, [drawn])
    assert new_image.shape == image.shape
    assert torch.isfinite(new_image).all()
    assert new_label[0, 6, 6] == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_cuda_device_gives_what_the_processor_gives(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    drawn = [
        Draw(matrix=rotation_matrix([10.0, 20.0, 30.0]), gamma=(1.2, 0.9), blur=((0.7, 0.7, 0.7), None)),
        Draw(flips=(1,), contrast=(1.1, 0.9), low_resolution=((0.5, 0.5, 0.5), None)),
    ]
    image, label = augmented(*batch, drawn)
    there_image, there_label = augmented(batch[0].cuda(), batch[1].cuda(), drawn)
    assert there_image.cpu().numpy() == pytest.approx(image.numpy(), abs=1e-3)
    assert (there_label.cpu() == label).float().mean() > 0.999

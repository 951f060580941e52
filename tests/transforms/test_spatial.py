import numpy as np
import pytest
import torch
from scipy import ndimage

from medexp.transforms.spatial import centered_offset, resample_image, resample_label, rotation_matrix, source_box

SIZE = (9, 9, 9)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, *SIZE)).astype(np.float32))


@pytest.fixture(scope="module")
def label() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 4, SIZE).astype(np.uint8))


def moved(image: torch.Tensor, label: torch.Tensor, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    offset = centered_offset(matrix, start=[0] * label.ndim, size=label.shape)
    new_image, new_label = torch.empty_like(image), torch.empty_like(label)
    resample_image(image, new_image, matrix=matrix, offset=offset)
    resample_label(label, new_label, matrix=matrix, offset=offset)
    return new_image.numpy(), new_label.numpy()


def test_identity_changes_nothing(image: torch.Tensor, label: torch.Tensor) -> None:
    new_image, new_label = moved(image, label, np.eye(3))
    assert new_image == pytest.approx(image.numpy(), abs=1e-6)
    assert np.array_equal(new_label, label)


@pytest.mark.parametrize(("axis", "plane"), [(0, (1, 2)), (1, (0, 2)), (2, (0, 1))])
def test_a_quarter_turn_is_rot90(image: torch.Tensor, label: torch.Tensor, axis: int, plane: tuple[int, int]) -> None:
    matrix = rotation_matrix([90.0 if index == axis else 0.0 for index in range(3)])
    new_image, new_label = moved(image, label, matrix)
    assert new_image == pytest.approx(np.rot90(image.numpy(), axes=[side + 1 for side in plane]), abs=1e-4)
    assert np.array_equal(new_label, np.rot90(label.numpy(), axes=plane))


def test_a_quarter_turn_of_a_plane_is_rot90(image: torch.Tensor, label: torch.Tensor) -> None:
    new_image, new_label = moved(image[:, 0], label[0], rotation_matrix([90.0]))
    assert new_image == pytest.approx(np.rot90(image[:, 0].numpy(), axes=(1, 2)), abs=1e-4)
    assert np.array_equal(new_label, np.rot90(label[0].numpy()))


def test_a_negative_scale_is_a_flip(image: torch.Tensor, label: torch.Tensor) -> None:
    new_image, new_label = moved(image, label, np.diag([1.0, -1.0, 1.0]))
    assert new_image == pytest.approx(image.flip(2).numpy(), abs=1e-5)
    assert np.array_equal(new_label, label.flip(1))


def inner(array: np.ndarray) -> np.ndarray:
    return array[..., 2:-2, 2:-2, 2:-2]


@pytest.mark.parametrize(
    "matrix",
    [
        pytest.param(np.diag([0.8, 0.8, 0.8]), id="scaling"),
        pytest.param(rotation_matrix([20.0, -10.0, 15.0]) @ np.diag([0.8, -0.8, 0.8]), id="rotation, scaling and flip"),
    ],
)
def test_linear_interpolation_agrees_with_scipy(image: torch.Tensor, label: torch.Tensor, matrix: np.ndarray) -> None:
    offset = centered_offset(matrix, start=[0, 0, 0], size=SIZE)
    new_image, new_label = moved(image, label, matrix)
    for found, channel in zip(new_image, image.numpy(), strict=True):
        expected = ndimage.affine_transform(channel, matrix, offset, order=1, mode="grid-constant")
        assert found == pytest.approx(expected, abs=1e-4)
    expected = ndimage.affine_transform(label.numpy(), matrix, offset, order=0, mode="constant")
    assert np.array_equal(inner(new_label), inner(expected))


def test_scaling_alone_and_with_a_tiny_rotation_agree(image: torch.Tensor, label: torch.Tensor) -> None:
    scaled = np.diag([1.3, 1.3, 1.3])
    separate_image, separate_label = moved(image, label, scaled)
    general_image, general_label = moved(image, label, rotation_matrix([1e-9, 0.0, 0.0]) @ scaled)
    assert separate_image == pytest.approx(general_image, abs=1e-4)
    assert np.array_equal(separate_label, general_label)


def test_beyond_the_source_lie_zeros(image: torch.Tensor, label: torch.Tensor) -> None:
    new_image, new_label = moved(image, label, np.diag([3.0, 3.0, 3.0]))
    assert not new_image[:, 0].any()
    assert not new_label[0].any()


def test_a_patch_that_misses_the_source_is_empty() -> None:
    image, label = torch.ones(1, 4, 4, 4), torch.ones(4, 4, 4, dtype=torch.uint8)
    resample_image(torch.ones(1, 0, 3, 3), image, matrix=np.eye(3), offset=np.zeros(3))
    resample_label(torch.ones(0, 3, 3, dtype=torch.uint8), label, matrix=np.eye(3), offset=np.zeros(3))
    assert not image.any()
    assert not label.any()


@pytest.mark.parametrize("angle_deg", [0.0, 17.0, 45.0, 90.0, 170.0])
def test_the_source_box_is_enough_and_no_more_than_needed(angle_deg: float) -> None:
    rng = np.random.default_rng(3)
    volume = torch.from_numpy(rng.standard_normal((1, 24, 26, 28)).astype(np.float32))
    matrix = rotation_matrix([angle_deg, 10.0, 0.0])
    offset = centered_offset(matrix, start=[6, 7, 8], size=(8, 8, 8))
    box = source_box(matrix, offset, size=(8, 8, 8), shape=volume.shape[1:])
    region = volume[(slice(None), *(slice(*side) for side in box))]
    whole, part = torch.empty(1, 8, 8, 8), torch.empty(1, 8, 8, 8)
    resample_image(volume, whole, matrix=matrix, offset=offset)
    resample_image(region.contiguous(), part, matrix=matrix, offset=offset - [first for first, _ in box])
    assert part.numpy() == pytest.approx(whole.numpy(), abs=1e-4)
    assert all(stop - first <= 8 * np.sqrt(3) + 3 for first, stop in box)


def test_a_box_beside_the_volume_is_empty() -> None:
    box = source_box(np.eye(3), np.array([-20.0, 0.0, 40.0]), size=(8, 8, 8), shape=(10, 10, 10))
    assert [stop - first for first, stop in box] == [0, 9, 0]

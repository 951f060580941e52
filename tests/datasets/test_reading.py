import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from medexp.datasets.reading import VoxelReader
from medexp.errors import ManifestError
from medexp.io.prepared import ChannelStatistics, PreparedCohort, StoredCase
from medexp.transforms.draws import Draw
from medexp.transforms.spatial import rotation_matrix

READER = VoxelReader((0, 1), None)


@pytest.fixture(scope="module")
def case(prepared: Path) -> StoredCase:
    return PreparedCohort.open(prepared).case("case0")


def patch(
    case: StoredCase, start: tuple[int, ...], draw: Draw, reader: VoxelReader = READER
) -> tuple[np.ndarray, np.ndarray]:
    image, label = torch.full((2, 16, 16, 16), 7.0), torch.full((16, 16, 16), 7, dtype=torch.uint8)
    reader.read_patch(case, image, label, start=start, draw=draw)
    return image.numpy(), label.numpy()


def padded(case: StoredCase) -> tuple[np.ndarray, np.ndarray]:
    image = np.pad(np.asarray(case.image(), np.float32), [(0, 0), *[(30, 30)] * 3])
    return image, np.pad(np.asarray(case.label()), 30)


def window(start: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(first + 30, first + 46) for first in start)


@pytest.mark.parametrize("start", [(0, 0, 0), (4, 2, 6), (-5, 1, 3), (10, 12, 20)])
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_a_patch_is_the_padded_volume_mirrored(
    case: StoredCase, start: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    image, label = patch(case, start, Draw(flips=flips))
    whole_image, whole_label = padded(case)
    expected = whole_image[(slice(None), *window(start))]
    assert np.array_equal(image, np.flip(expected, [axis + 1 for axis in flips]))
    assert np.array_equal(label, np.flip(whole_label[window(start)], flips))


@pytest.mark.parametrize("start", [(4, 2, 6), (-5, 1, 3)])
def test_a_turned_patch_reads_what_lies_beyond_the_patch(case: StoredCase, start: tuple[int, ...]) -> None:
    image, label = patch(case, start, Draw(matrix=rotation_matrix([90.0, 0.0, 0.0])))
    straight_image, straight_label = patch(case, start, Draw())
    assert image == pytest.approx(np.rot90(straight_image, axes=(2, 3)), abs=1e-3)
    assert np.array_equal(label, np.rot90(straight_label, axes=(1, 2)))


def test_zooming_out_shows_more_of_the_volume_than_the_patch(case: StoredCase) -> None:
    image, _ = patch(case, (2, 1, 3), Draw(matrix=np.diag([1.2, 1.1, 1.3])))
    assert np.count_nonzero(image[:, :, 0]) > 0  # beyond the patch's own voxels, which end at index 1
    whole, _ = padded(case)
    assert image.min() >= whole.min()
    assert image.max() <= whole.max()


def test_a_turned_patch_beside_the_volume_is_empty(case: StoredCase) -> None:
    image, label = patch(case, (90, 0, 0), Draw(matrix=rotation_matrix([10.0, 0.0, 0.0])))
    assert not image.any()
    assert not label.any()


def test_channels_come_in_the_order_asked_for(case: StoredCase) -> None:
    swapped, _ = patch(case, (0, 0, 0), Draw(), VoxelReader((1, 0), None))
    straight, _ = patch(case, (0, 0, 0), Draw())
    assert np.array_equal(swapped, straight[::-1])


def test_native_intensities_are_normalized_on_reading(tmp_path: Path, write_prepared: Callable[..., Path]) -> None:
    cohort = PreparedCohort.open(write_prepared(tmp_path, schemes=("ct", "ct")))
    statistics = cohort.channel_statistics(0)
    assert statistics is not None
    case = cohort.case("case1")  # smaller than the patch
    reader = VoxelReader((1, 0), statistics)
    expected = statistics.apply(np.asarray(case.image()))[::-1]
    assert reader.volume(case).numpy() == pytest.approx(expected, abs=1e-5)
    image, _ = patch(case, (-2, 0, 0), Draw(), reader)
    assert image[:, 2:14] == pytest.approx(expected[:, :, :16, :16], abs=1e-5)
    assert not image[:, :2].any()  # padding is the background of the normalized image


def test_statistics_of_one_channel_do_not_touch_the_other(case: StoredCase) -> None:
    statistics = ChannelStatistics((-0.5, -np.inf), (0.5, np.inf), (0.1, 0.0), (2.0, 1.0))
    image, _ = patch(case, (0, 0, 0), Draw(), VoxelReader((0, 1), statistics))
    plain, _ = patch(case, (0, 0, 0), Draw())
    assert np.array_equal(image[1], plain[1])
    assert image[0] == pytest.approx((plain[0].clip(-0.5, 0.5) - 0.1) / 2.0, abs=1e-6)


def test_a_file_is_mapped_once(case: StoredCase) -> None:
    reader = VoxelReader((0, 1), None)
    assert reader._image(case) is reader._image(case)


def test_a_file_that_shrinks_while_it_is_mapped_is_noticed(tmp_path: Path, write_prepared: Callable[..., Path]) -> None:
    case = PreparedCohort.open(write_prepared(tmp_path)).case("case0")
    reader = VoxelReader((0, 1), None)
    reader.volume(case)
    image = case.folder / "image.npy"
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(ManifestError, match=r"case0: .*image\.npy has 200 bytes"):
        reader.volume(case)


def test_a_reader_travels_without_its_mapped_files(case: StoredCase) -> None:
    reader = VoxelReader((0, 1), None)
    before = reader.volume(case)
    copied = pickle.loads(pickle.dumps(reader))
    assert not len(copied.files)
    assert torch.equal(copied.volume(case), before)

from pathlib import Path

import numpy as np
import pytest

from medexp.datasets.mapped import MappedFiles, covers, filled, overlap


def save(path: Path, value: int) -> Path:
    np.save(path, np.full(5, value, np.int16))
    return path


@pytest.mark.parametrize("flips", [(), (0,), (1,), (0, 1)])
@pytest.mark.parametrize("start", [(0, 0), (-3, 2), (6, 5), (-2, -2)])
def test_a_patch_and_its_part_of_the_volume_lie_on_each_other(start: tuple[int, int], flips: tuple[int, ...]) -> None:
    volume = np.arange(1, 64).reshape(9, 7).astype(np.int16)
    source, target = overlap(start, shape=volume.shape, size=(8, 4), flips=flips)
    patch = np.zeros((8, 4), np.int16)
    patch[target] = filled(np.empty(patch[target].shape, np.int16), volume[source], flips).numpy()
    padded = np.pad(volume, 10)[start[0] + 10 : start[0] + 18, start[1] + 10 : start[1] + 14]
    assert np.array_equal(patch, np.flip(padded, flips))
    assert covers(target, (8, 4)) == bool(padded.all())


@pytest.mark.parametrize("dtype", [np.float16, np.int16, np.uint8, np.float32])
def test_lines_are_reversed_whatever_the_type(dtype: type) -> None:
    stored = np.arange(24).reshape(2, 3, 4).astype(dtype)
    assert np.array_equal(filled(np.empty(stored.shape, dtype), stored, (0, 2)).numpy(), stored[::-1, :, ::-1])


def test_a_file_is_mapped_once_and_anew_when_it_has_changed(tmp_path: Path) -> None:
    path, files, asked = save(tmp_path / "a.npy", 1), MappedFiles(), []

    def mapped() -> np.ndarray:
        asked.append(path)
        return np.load(path, mmap_mode="r")

    assert files.array(path, mapped) is files.array(path, mapped)
    assert len(asked) == 1
    path.unlink()
    assert files.array(save(path, 2), mapped)[0] == 2
    assert len(asked) == 2


def test_the_latest_files_stay_mapped(tmp_path: Path) -> None:
    files = MappedFiles(2)
    paths = [save(tmp_path / f"{number}.npy", number) for number in range(3)]
    arrays = [files.array(path, lambda path=path: np.load(path)) for path in paths]
    assert len(files) == 2
    assert files.array(paths[2], lambda: np.empty(0)) is arrays[2]
    assert files.array(paths[0], lambda: np.load(paths[0])) is not arrays[0]

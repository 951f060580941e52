import numpy as np
import pytest
from scipy import ndimage

from medexp.errors import ConfigurationError
from medexp.io.tiff import read_mask, read_tiff, read_tiff_header
from medexp.preparation.mock_spheroids import BASES, write_mock

SMALL = {"num_patients": 6, "seed": 0, "shape": (300, 360), "objects_per_image": 9}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mock")
    assert write_mock(folder, **SMALL)
    return folder


def test_names_are_those_of_the_real_set(root):
    assert {path.stem for path in (root / "images").iterdir()} == set(BASES)
    assert {path.stem for path in (root / "masks").iterdir()} == {f"{base}_mask" for base in BASES}


def test_files_are_of_every_kind(root):
    headers = [read_tiff_header(path) for path in sorted((root / "images").iterdir())]
    assert {(header.samples, header.bits) for header in headers} == {(1, 8), (1, 16), (3, 8)}
    assert all(header.pixel_size_um == (1.3, 1.3) for header in headers)
    masks = [read_tiff_header(path) for path in (root / "masks").iterdir()]
    assert {header.white_is_zero for header in masks} == {True, False}


def test_objects_are_as_large_as_the_real_ones_and_darker_than_their_surroundings(root):
    for path in (root / "masks").iterdir():
        mask = read_mask(path).array
        image = read_tiff(root / "images" / path.name.replace("_mask", "")).array
        gray = image.mean(axis=2) if image.ndim == 3 else image
        assert gray[mask == 1].mean() < 0.7 * gray[mask == 0].mean()
        assert 0.1 < mask.mean() < 0.6
        _, count = ndimage.label(mask, np.ones((3, 3)))
        assert 1 <= count <= 9


def test_a_whole_well_holds_about_a_hundred_objects(tmp_path):
    write_mock(tmp_path, num_patients=1, seed=0, shape=(1440, 1920), objects_per_image=100)
    mask = read_mask(tmp_path / "masks" / f"{BASES[0]}_mask.tif").array
    _, count = ndimage.label(ndimage.binary_erosion(mask, iterations=8))
    assert 85 <= count <= 110


def test_equal_arguments_give_equal_bytes_and_another_seed_others(root, tmp_path):
    assert not write_mock(root, **SMALL)
    for seed, same in ((0, True), (1, False)):
        write_mock(tmp_path / str(seed), **{**SMALL, "seed": seed})
        ours = (tmp_path / str(seed) / "images" / f"{BASES[1]}.tif").read_bytes()
        assert (ours == (root / "images" / f"{BASES[1]}.tif").read_bytes()) == same


@pytest.mark.parametrize("changes", [{"shape": (64, 64, 64)}, {"shape": (64, 64)}, {"num_patients": 0}])
def test_impossible_wells_are_refused(tmp_path, changes):
    with pytest.raises(ConfigurationError, match=r"mock\.shape"):
        write_mock(tmp_path, **{**SMALL, **changes})

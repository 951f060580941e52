"""NIfTI: what is read is what is there, and what must not pass does not."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from medexp.errors import CaseError, StorageError
from medexp.geometry.grids import Grid
from medexp.io.nifti import read_header, read_volume, write_nifti
from tests.synthetic.corrupt_nifti import CORPUS

SHAPE = (24, 28, 24)
AFFINE = np.array([[-1.0, 0, 0, 90], [0, 1.5, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1]])


def save(path, array=None, affine=AFFINE, kind=nib.Nifti1Image, **header):
    if array is None:
        array = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    image = kind(array, affine)
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, path)
    return path


@pytest.fixture
def good(tmp_path):
    return save(tmp_path / "good.nii.gz")


# Voxels are judged with the case they belong to: tests/preparation/test_verification.py.
OF_THE_FILE = {kind: entry for kind, entry in CORPUS.items() if not kind.startswith("voxel ")}


@pytest.mark.parametrize(("spoil", "words"), OF_THE_FILE.values(), ids=OF_THE_FILE.keys())
def test_a_corrupt_file_is_refused_with_its_name_and_reason(good, spoil, words):
    spoil(good)
    with pytest.raises(CaseError, match=words) as caught:
        read_volume(good)
    assert str(good) in str(caught.value)


def test_the_corpus_is_as_large_as_promised():
    assert len(CORPUS) >= 24


@pytest.mark.parametrize("dtype", ["<u1", "<i2", ">i2", "<u2", "<i4", "<f4", ">f4", "<f8"])
def test_every_type_and_byte_order_gives_the_values(tmp_path, dtype):
    array = np.random.default_rng(0).integers(0, 200, SHAPE)
    image = nib.Nifti1Image(array.astype(dtype), AFFINE, nib.Nifti1Header(endianness=dtype[0]))
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert (volume.array == array).all()
    assert volume.array.dtype.isnative


def test_scaling_is_applied(tmp_path):
    path = save(tmp_path / "a.nii")
    data = bytearray(path.read_bytes())
    struct.pack_into("<ff", data, 112, 0.5, -3.0)
    path.write_bytes(data)
    expected = np.asanyarray(nib.load(path).dataobj)
    assert np.allclose(read_volume(path).array, expected)


@pytest.mark.parametrize("slope", [0.0, float("nan")])
def test_a_slope_of_zero_or_nan_means_no_scaling(tmp_path, slope):
    path = save(tmp_path / "a.nii")
    data = bytearray(path.read_bytes())
    struct.pack_into("<ff", data, 112, slope, 5.0)
    path.write_bytes(data)
    assert read_volume(path).array.max() == np.prod(SHAPE) - 1


def test_the_q_form_is_used_where_there_is_no_s_form(tmp_path):
    path = save(tmp_path / "a.nii.gz", sform_code=0, qform_code=1)
    assert np.allclose(read_volume(path).header.affine, AFFINE)


def test_two_forms_that_disagree_are_a_warning_and_the_s_form_wins(tmp_path):
    image = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE)
    image.set_qform(AFFINE + np.diag([0, 0, 0, 0]) + np.array([[0, 0, 0, 10]] + [[0] * 4] * 3), code=1)
    nib.save(image, tmp_path / "a.nii.gz")
    header = read_header(tmp_path / "a.nii.gz")
    assert np.allclose(header.affine, AFFINE)
    assert any("10 mm apart" in warning for warning in header.warnings)


def test_nifti_2_and_a_header_extension_are_read(tmp_path):
    path = save(tmp_path / "two.nii.gz", kind=nib.Nifti2Image)
    image = nib.load(path)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a note"))
    nib.save(image, tmp_path / "extended.nii.gz")
    volume = read_volume(tmp_path / "extended.nii.gz")
    assert volume.header.offset > 544
    assert (volume.array == read_volume(path).array).all()
    assert volume.array.max() == np.prod(SHAPE) - 1


def test_gzip_in_several_members_is_read(good):
    data = gzip.decompress(good.read_bytes())
    good.write_bytes(gzip.compress(data[:3000]) + gzip.compress(data[3000:]))
    assert read_volume(good).array.max() == np.prod(SHAPE) - 1


def test_trailing_axes_of_one_are_dropped(tmp_path):
    save(tmp_path / "a.nii.gz", np.ones((*SHAPE, 1, 1), np.uint8))
    assert read_volume(tmp_path / "a.nii.gz").array.shape == SHAPE


def test_unusual_voxels_and_slanted_axes_are_warnings(tmp_path):
    slanted = AFFINE.copy()
    slanted[0, 1] = 0.2
    slanted[2, 2] = 30.0
    warnings = read_header(save(tmp_path / "a.nii.gz", affine=slanted)).warnings
    assert any("right angles" in warning for warning in warnings)
    assert any("unusual" in warning for warning in warnings)


def test_a_volume_with_its_own_header_round_trips(tmp_path):
    source = save(tmp_path / "a.nii.gz", descrip=b"scanner", qform_code=2, sform_code=4)
    volume = read_volume(source)
    label = (volume.array % 3).astype(np.uint8)
    write_nifti(tmp_path / "b.nii.gz", label, volume.grid)
    written, original = nib.load(tmp_path / "b.nii.gz"), nib.load(source)
    assert (np.asanyarray(written.dataobj) == label).all()
    assert (written.affine == original.affine).all()
    for field in ("qform_code", "sform_code", "descrip", "xyzt_units", "quatern_b", "qoffset_x"):
        assert written.header[field] == original.header[field]
    assert (written.header["pixdim"] == original.header["pixdim"]).all()


def test_the_header_of_a_big_endian_nifti_2_file_carries_over(tmp_path):
    array = np.zeros(SHAPE, np.int16)
    nib.save(nib.Nifti2Image(array, AFFINE, nib.Nifti2Header(endianness=">")), tmp_path / "a.nii.gz")
    write_nifti(tmp_path / "b.nii.gz", array.astype(np.uint8), read_volume(tmp_path / "a.nii.gz").grid)
    written = nib.load(tmp_path / "b.nii.gz")
    assert isinstance(written, nib.Nifti2Image)
    assert np.allclose(written.affine, AFFINE)


def test_equal_arrays_give_equal_bytes(tmp_path):
    grid = Grid.native(SHAPE, AFFINE)
    for name in ("a", "b"):
        write_nifti(tmp_path / f"{name}.nii.gz", np.ones(SHAPE, np.uint8), grid)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert np.allclose(nib.load(tmp_path / "a.nii.gz").affine, AFFINE)


def test_a_failed_write_names_the_path_and_leaves_the_earlier_file(good):
    before = good.read_bytes()
    grid = Grid.native(SHAPE, AFFINE)
    with pytest.raises(StorageError, match=r"good\.nii\.gz|not a directory"):
        write_nifti(good / "inside.nii.gz", np.ones(SHAPE, np.uint8), grid)
    assert good.read_bytes() == before


def test_real_volumes_equal_what_nibabel_reads(shared_data):
    paths = sorted((shared_data / "brats").rglob("*.nii.gz")) + sorted((shared_data / "hippocampus").rglob("*_0[0-2]*"))
    assert len(paths) > 20
    for path in paths:
        image, volume = nib.load(path), read_volume(path)
        assert (np.asanyarray(image.dataobj) == volume.array).all()
        assert (image.affine == volume.header.affine).all()

"""Header fields: the same as nibabel reads, in both versions and byte orders."""

import nibabel as nib
import numpy as np
import pytest

from medexp.io.nifti_header import HeaderError, RawHeader, header_for

SHAPE = (5, 6, 7)
KINDS = [(kind, order) for kind in (nib.Nifti1Header, nib.Nifti2Header) for order in "<>"]


def header_of(kind, order):
    random = np.random.default_rng(3)
    header = kind(endianness=order)
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.int32)
    turn, _ = np.linalg.qr(random.standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array([0.7, 1.1, 2.5])
    affine[:3, 3] = random.uniform(-90, 90, 3)
    header.set_qform(affine, code=2)
    affine[0, 3] += 5
    header.set_sform(affine, code=4)
    header.set_xyzt_units("mm", "sec")
    header["scl_slope"], header["scl_inter"], header["cal_max"] = 2.5, -7.0, 99.0
    header["magic"] = b"n+1" if kind is nib.Nifti1Header else b"n+2\0\r\n\x1a\n"
    header["vox_offset"] = 1024
    return header


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_every_field_is_what_nibabel_reads(kind, order):
    theirs = header_of(kind, order)
    ours = RawHeader.of(theirs.binaryblock)
    for name in ("dim", "pixdim", "datatype", "bitpix", "vox_offset", "scl_slope", "scl_inter", "xyzt_units"):
        assert np.array_equal(ours.values(name), np.atleast_1d(theirs[name]).astype(float)), name
    for name in ("qform_code", "sform_code", "cal_max", "cal_min"):
        assert ours.value(name) == float(theirs[name])
    assert ours.dtype == theirs.get_data_dtype()
    assert np.allclose(ours.s_form(), theirs.get_sform(), atol=0)
    assert np.allclose(ours.q_form(), theirs.get_qform(), atol=1e-6)


def test_both_hands_of_a_q_form_agree_with_nibabel():
    for sign in (1.0, -1.0):
        header = nib.Nifti1Header()
        header["magic"] = b"n+1"
        header.set_qform(np.diag([-1.0, 2.0, 3.0 * sign, 1.0]), code=1)
        assert np.allclose(RawHeader.of(header.binaryblock).q_form(), header.get_qform())


@pytest.mark.parametrize(("kind", "order"), KINDS)
def test_a_header_made_from_another_is_one_that_nibabel_accepts(kind, order):
    like = RawHeader.of(header_of(kind, order).binaryblock)
    made = header_for(np.dtype(np.uint8), np.eye(4), like=like, shape=(2, 3, 4))
    read = kind(made.content, endianness=order)
    assert read.get_data_shape() == (2, 3, 4)
    assert read.get_data_dtype() == np.uint8
    assert read.get_slope_inter() == (1.0, 0.0)
    assert np.array_equal(read.get_sform(), header_of(kind, order).get_sform())


def test_a_fresh_header_holds_the_affine():
    affine = np.array([[-1.5, 0, 0, 4], [0, 0, 2, 5], [0, 1, 0, 6], [0, 0, 0, 1]], float)
    made = header_for(np.dtype(np.float32), affine, like=None, shape=SHAPE)
    read = nib.Nifti1Header(made.content)
    assert np.allclose(read.get_best_affine(), affine)
    assert read.get_xyzt_units()[0] == "mm"
    assert np.allclose(read.get_zooms(), (1.5, 1.0, 2.0))


def test_a_type_that_the_format_lacks_is_refused():
    with pytest.raises(HeaderError, match="float16"):
        header_for(np.dtype(np.float16), np.eye(4), like=None, shape=SHAPE)


def test_a_field_takes_its_number_of_values():
    header = RawHeader.of(header_of(nib.Nifti1Header, "<").binaryblock)
    with pytest.raises(ValueError, match="expected 8 values"):
        header.replaced("dim", 3, 4, 5)


@pytest.mark.parametrize("data", [b"", b"abc", bytes(400), bytes([92, 1, 0, 0]) + bytes(100)])
def test_what_is_no_header_is_refused(data):
    with pytest.raises(HeaderError, match="NIfTI header"):
        RawHeader.of(data)

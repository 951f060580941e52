"""Whether a case can be used: geometry, labels, voxels; every reason names its files."""

import numpy as np
import pytest

from medexp.preparation.verification import read_content, verify
from tests.synthetic.brats import CHANNELS, LABELS, change, make_brats, path_of

CASE = "BraTS-GLI-00001-100"


@pytest.fixture
def root(tmp_path):
    return make_brats(tmp_path / "raw", num_patients=1)


def judged(root, case=CASE):
    images = {channel: path_of(root, case, channel) for channel in CHANNELS}
    return verify(read_content(images, path_of(root, case, "seg")), LABELS)


def test_a_good_case_passes_without_warnings(root):
    case, reasons = judged(root)
    assert reasons == ()
    assert case.warnings == ()
    assert list(case.images) == list(CHANNELS)


def shift(array, affine):
    affine[0, 3] += 10.0
    return array, affine


def flip(array, affine):
    affine[0, :] *= -1
    return array, affine


def widen(array, affine):
    affine[:3, :3] *= 1.001
    return array, affine


def turn(array, affine):
    angle = np.deg2rad(2.0)
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine[:3, :3] = turned @ affine[:3, :3]
    return array, affine


@pytest.mark.parametrize("kind", ["seg", "t2f"])
@pytest.mark.parametrize(
    ("edit", "difference"),
    [
        pytest.param(shift, "corners up to 10 mm apart", id="shifted by 10 mm"),
        pytest.param(flip, "orientations RAS and LAS", id="left-right flip"),
        pytest.param(widen, "voxel sizes", id="spacing + 1e-3"),
        pytest.param(turn, "corners up to", id="turned by 2 degrees"),
        pytest.param(lambda array, affine: (array[:, :, :-1], affine), "shapes", id="one slice less"),
    ],
)
def test_another_grid_is_an_error_that_names_both_files_and_the_difference(root, kind, edit, difference):
    change(path_of(root, CASE, kind), edit)
    case, reasons = judged(root)
    assert case is None
    assert len(reasons) == 1
    assert f"{CASE}-{kind}.nii.gz" in reasons[0]
    assert f"{CASE}-t1c.nii.gz" in reasons[0]
    assert difference in reasons[0]


def test_a_grid_within_the_tolerance_passes(root):
    def nudge(array, affine):
        affine[:3, 3] += 0.004
        affine[:3, :3] *= 1 + 1e-5
        return array, affine

    change(path_of(root, CASE, "seg"), nudge)
    assert judged(root)[1] == ()


def test_an_unknown_label_is_an_error_that_lists_it(root):
    def relabel(array, affine):
        array[0, 0, 0] = 7
        return array, affine

    change(path_of(root, CASE, "seg"), relabel)
    (reason,) = judged(root)[1]
    assert "[0, 1, 2, 3, 4], got [7]" in reason


def test_a_negative_label_is_an_error(root):
    def relabel(array, affine):
        array = array.astype(np.int16)
        array[0, 0, 0] = -1
        return array, affine

    change(path_of(root, CASE, "seg"), relabel)
    assert "got [-1]" in judged(root)[1][0]


def test_a_fraction_as_label_is_an_error(root):
    def relabel(array, affine):
        array = array.astype(np.float32)
        array[3, 3, 3] = 1.5
        return array, affine

    change(path_of(root, CASE, "seg"), relabel)
    assert "fractions such as 1.5" in judged(root)[1][0]


def test_whole_numbers_as_floats_pass_as_labels(root):
    expected = judged(root)[0].label.copy()
    change(path_of(root, CASE, "seg"), lambda array, affine: (array.astype(np.float64), affine))
    case, reasons = judged(root)
    assert reasons == ()
    assert case.label.dtype == np.uint8
    assert (case.label == expected).all()


def test_an_empty_label_is_a_warning(root):
    change(path_of(root, CASE, "seg"), lambda array, affine: (np.zeros_like(array), affine))
    case, reasons = judged(root)
    assert reasons == ()
    assert case.warnings == ("the label is empty",)


@pytest.mark.parametrize(("value", "words"), [(0, "t1n holds only zeros"), (7, "t1n holds only the value 7")])
def test_a_constant_image_is_a_warning(root, value, words):
    change(path_of(root, CASE, "t1n"), lambda array, affine: (np.full_like(array, value), affine))
    assert judged(root)[0].warnings == (words,)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_voxel_that_is_not_finite_is_an_error_with_a_count(root, value):
    def spoil(array, affine):
        array = array.astype(np.float32)
        array[1, 2, 3:5] = value
        return array, affine

    change(path_of(root, CASE, "t2w"), spoil)
    (reason,) = judged(root)[1]
    assert "t2w.nii.gz: expected finite voxels, got 2" in reason


def test_all_reasons_of_a_case_are_given_at_once(root):
    path_of(root, CASE, "t1n").write_bytes(b"")
    change(path_of(root, CASE, "t2w"), shift)
    change(path_of(root, CASE, "seg"), lambda array, affine: (array + np.uint8(9), affine))
    reasons = judged(root)[1]
    assert len(reasons) == 3
    assert [any(f"-{kind}.nii.gz" in reason for reason in reasons) for kind in ("t1n", "t2w", "seg")] == [True] * 3

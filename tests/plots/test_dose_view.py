"""Planes and lines of a dose case: the right place, the right way round, whatever the file's axes."""

from dataclasses import replace

import numpy as np
import pytest

from medexp.errors import GridMismatchError
from medexp.plots.dose_view import CUTS, DoseView
from tests.synthetic.doses import small_case

TARGETS = {"PTV56": 56.0, "PTV70": 70.0}
AXIAL, CORONAL, SAGITTAL = CUTS


def view_of(case, targets=TARGETS):
    return DoseView.of(case, case.dose_gy, targets_gy=targets)


def world_of(case, index):
    return (case.affine @ [*index, 1.0])[:3]


def test_everything_runs_through_the_target_of_the_highest_dose():
    case = small_case()
    view = view_of(case)
    assert list(view.targets) == ["PTV70", "PTV56"]
    assert view.structures["PTV70"][view.position]
    middle = world_of(case, np.argwhere(case.masks["PTV70"]).mean(axis=0))
    place = [view.world_mm(axis)[view.position[axis]] for axis in range(3)]
    assert np.abs(place - middle).max() <= max(case.spacing_mm)


def test_a_case_without_targets_is_cut_at_its_hottest_voxel():
    case = small_case()
    dose = case.dose_gy.copy()
    dose[3, 4, 5] = 80.0
    view = view_of(replace(case, dose_gy=dose), targets={})
    place = [view.world_mm(axis)[view.position[axis]] for axis in range(3)]
    assert place == pytest.approx(world_of(case, (3, 4, 5)).tolist())
    assert view.center == "hottest voxel of the reference"


@pytest.mark.parametrize(
    ("cut", "structure", "side", "axis"),
    [
        pytest.param(AXIAL, "Femur_R", "first", 1, id="right is on the left of an axial plane"),
        pytest.param(AXIAL, "Bladder", "first", 0, id="front is at the top of an axial plane"),
        pytest.param(CORONAL, "Femur_L", "last", 1, id="left is on the right of a coronal plane"),
        pytest.param(SAGITTAL, "Rectum", "last", 1, id="the back is on the right of a sagittal plane"),
        pytest.param(SAGITTAL, "Bowel", "first", 0, id="the head is at the top of a sagittal plane"),
    ],
)
def test_planes_are_turned_as_radiologists_read_them(cut, structure, side, axis):
    case = small_case()
    share = view_of(case).share_of(structure, cut)
    center = np.argwhere(share >= 0.5).mean(axis=0)[axis] / share.shape[axis]
    assert center < 0.5 if side == "first" else center > 0.5


def test_the_axes_of_the_file_do_not_matter():
    case = small_case()
    turned = np.eye(4)
    turned[:3, :3] = [[0, 1, 0], [1, 0, 0], [0, 0, -1]]  # j i -k
    turned[2, 3] = case.shape[2] - 1.0
    other = replace(
        case,
        ct_hu=case.ct_hu.transpose(1, 0, 2)[..., ::-1],
        dose_gy=case.dose_gy.transpose(1, 0, 2)[..., ::-1],
        possible_dose=None,
        masks={name: mask.transpose(1, 0, 2)[..., ::-1] for name, mask in case.masks.items()},
        coverage={},
        affine=case.affine @ turned,
    )
    first, second = view_of(case), view_of(other)
    assert first.position == second.position
    for cut in CUTS:
        assert first.title(cut) == second.title(cut)
        np.testing.assert_array_equal(
            first.slice_of(first.reference_gy, cut), second.slice_of(second.reference_gy, cut)
        )


def test_lines_are_the_voxels_through_the_position_at_their_place_in_the_world():
    case = small_case()
    view = view_of(case)
    x = view.world_mm(0)
    assert (np.diff(x) > 0).all()  # to the right
    i, j, k = np.rint(np.linalg.inv(case.affine) @ [x[2], view.world_mm(1)[view.position[1]], 0, 1]).astype(int)[:3]
    k = int(np.rint((np.linalg.inv(case.affine) @ [0, 0, view.world_mm(2)[view.position[2]], 1])[2]))
    assert view.along(view.reference_gy, 0)[2] == case.dose_gy[i, j, k]


def test_outlines_are_finer_than_voxels_where_coverage_is_known():
    case = small_case()
    coverage = {**case.coverage, "PTV70": (case.coverage["PTV70"] // 2 + 1).astype(np.uint8)}
    share = view_of(replace(case, coverage=coverage)).share_of("PTV70", AXIAL)
    assert share.max() == pytest.approx(128 / 255)


def test_a_prediction_on_another_grid_is_refused():
    case = small_case()
    with pytest.raises(GridMismatchError, match=r"expected a prediction on the grid \(24, 20, 16\), got shape"):
        DoseView.of(case, case.dose_gy[1:], targets_gy=TARGETS)
    with pytest.raises(GridMismatchError, match="expected a case with a dose"):
        DoseView.of(small_case(has_dose=False), case.dose_gy, targets_gy=TARGETS)

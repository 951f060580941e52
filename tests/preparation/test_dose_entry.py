"""An entry holds what the files hold: turned to RAS+, on one grid, nothing shifted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medexp.errors import ConfigurationError
from medexp.geometry.grids import Grid, to_canonical
from medexp.io.dose_case import DoseCase
from medexp.io.dose_npz import read_case_npz, write_case_npz
from medexp.metrics.clinical import constraint_vector
from medexp.preparation.dose_entry import DoseTransform
from medexp.preparation.dose_grid import AsStored, FixedGrid, NativeCrop
from medexp.preparation.verification import read_content
from tests.synthetic.doses import VMAT
from tests.synthetic.planning import planned, settings_for

TRANSFORM = settings_for(Path("unused"), format="npz").transform()


def content_of(case: DoseCase, folder):
    path = folder / f"{case.name}.npz"
    write_case_npz(path, case, structures=tuple(case.masks), distance_clip_mm=50.0)
    return read_content({"case": path}, path if case.dose_gy is not None else None)


def entry_of(case, folder, **changes):
    entry, reasons = replace(TRANSFORM, **changes).entry(content_of(case, folder))
    assert reasons == ()
    return entry


def reasons_of(case, folder, **changes):
    entry, reasons = replace(TRANSFORM, **changes).entry(content_of(case, folder))
    assert entry is None
    return reasons


def turned(array):
    """Return an array of the synthetic patients, which are stored as LPS, in RAS+."""
    return array[::-1, ::-1]


def test_the_arrays_are_the_files_in_ras(tmp_path):
    case = planned(3)
    entry = entry_of(case, tmp_path)
    shapes = {name: array.shape for name, array in entry.arrays.items()}
    spatial = (24, 20, 16)
    assert shapes.pop("foreground")[1] == 4
    assert shapes == {
        "image": (1, *spatial),
        "distances": (8, *spatial),
        "dose": (1, *spatial),
        "possible": spatial,
    }
    dtypes = {name: str(array.dtype) for name, array in entry.arrays.items()}
    assert dtypes == {
        "image": "int16",
        "distances": "float16",
        "dose": "float32",
        "possible": "uint8",
        "foreground": "int32",
    }
    assert np.array_equal(entry.arrays["image"][0], turned(case.ct_hu))
    np.testing.assert_allclose(entry.arrays["dose"][0], turned(case.dose_gy), rtol=1e-6)
    for index, name in enumerate(VMAT):
        assert np.array_equal(entry.arrays["distances"][index] < 0, turned(case.masks[name]))
    assert (entry.arrays["possible"] == 1).all()


def test_the_patients_left_is_where_axis_0_is_small(tmp_path):
    """RAS+: the first axis grows to the right, so the left femur has the smaller indices."""
    distances = entry_of(planned(0), tmp_path).arrays["distances"]
    left, right = (np.argwhere(distances[VMAT.index(f"Femur_{side}")] < 0)[:, 0].mean() for side in "LR")
    assert left < right
    grid = Grid.from_json(entry_of(planned(0), tmp_path).facts["grid"])
    assert np.all(np.diag(grid.stored_affine)[:3] > 0)


def test_distances_are_millimeters_over_the_clip(tmp_path):
    case = planned(1)
    found = entry_of(case, tmp_path, distance_clip_mm=30.0).arrays["distances"][0].astype(float) * 30.0
    inside = np.argwhere(turned(case.masks["PTV70"]))
    outside = np.argwhere(~turned(case.masks["PTV70"]))
    random = np.random.default_rng(0)
    for index in outside[random.choice(len(outside), 50)]:
        nearest = np.sqrt((((inside - index) * case.spacing_mm) ** 2).sum(axis=1)).min()
        assert found[tuple(index)] == pytest.approx(min(nearest, 30.0), rel=2e-3)
    for index in inside[random.choice(len(inside), 20)]:
        nearest = np.sqrt((((outside - index) * case.spacing_mm) ** 2).sum(axis=1)).min()
        assert -found[tuple(index)] == pytest.approx(min(nearest, 30.0), rel=2e-3)


def test_an_absent_structure_is_far_away_everywhere(tmp_path):
    case = planned(0)
    masks = {name: mask for name, mask in case.masks.items() if name != "Bowel"}
    entry = entry_of(replace(case, masks=masks), tmp_path)
    assert (entry.arrays["distances"][VMAT.index("Bowel")] == 1).all()
    assert entry.facts["label_voxels"]["Bowel"] == 0
    assert "nothing is drawn for Bowel: taken as absent" in entry.facts["warnings"]


def test_the_foreground_holds_more_than_a_tenth_of_the_prescription(tmp_path):
    entry = entry_of(planned(0), tmp_path)
    rows, dose = entry.arrays["foreground"], entry.arrays["dose"][0]
    assert (rows[:, 0] == 1).all()
    assert len(rows) == min((dose > 7.0).sum(), 10_000)
    assert (dose[tuple(rows[:, 1:].T)] > 7.0).all()


def test_where_dose_may_be_is_kept(tmp_path):
    case = planned(0)
    possible = case.ct_hu > -500
    entry = entry_of(replace(case, possible_dose=possible), tmp_path)
    assert np.array_equal(entry.arrays["possible"], turned(possible))


def test_a_case_without_a_dose_can_still_be_predicted(tmp_path):
    entry = entry_of(replace(planned(0), dose_gy=None), tmp_path)
    assert "dose" not in entry.arrays
    assert "foreground" not in entry.arrays
    assert entry.facts["label_sha256"] is None


def test_the_reference_file_is_the_case_on_the_stored_grid(tmp_path):
    case = planned(2)
    entry = entry_of(case, tmp_path, grid=NativeCrop(inplane_size=22, z_margin_mm=5.0, min_slices=8))
    entry.files["reference.npz"](tmp_path / "made.npz")
    found = read_case_npz(tmp_path / "made.npz")
    grid = Grid.from_json(entry.facts["grid"])
    assert found.shape == grid.shape == entry.arrays["dose"].shape[1:]
    assert np.allclose(found.affine, grid.affine)
    assert np.array_equal(to_canonical(found.dose_gy, grid), entry.arrays["dose"][0])
    for index, name in enumerate(VMAT):
        assert np.array_equal(to_canonical(found.masks[name], grid), entry.arrays["distances"][index] < 0)


def test_a_crop_moves_no_voxel_in_the_world(tmp_path):
    case = planned(2)
    entry = entry_of(case, tmp_path, grid=NativeCrop(inplane_size=22, z_margin_mm=5.0, min_slices=8))
    grid = Grid.from_json(entry.facts["grid"])
    index = np.array([7, 9, 5])
    world = grid.stored_affine[:3, :3] @ index + grid.stored_affine[:3, 3]
    source = np.rint(np.linalg.inv(case.affine[:3, :3]) @ (world - case.affine[:3, 3])).astype(int)
    assert entry.arrays["image"][0][tuple(index)] == case.ct_hu[tuple(source)]


def test_what_the_patient_lacks_is_named_with_what_is_there(tmp_path):
    case = planned(0)
    masks = {name: mask for name, mask in case.masks.items() if name != "PTV70"}
    [reason] = reasons_of(replace(case, masks={**masks, "Body": masks["Rectum"]}), tmp_path)
    assert reason.startswith("expected PTV70 among the structures, found PTV56, Prostate")
    assert "'Body'" in reason
    assert "dataset.aliases" in reason


def test_other_names_are_taken_for_the_structure_and_united(tmp_path):
    case = planned(0)
    masks = dict(case.masks)
    ptv = masks.pop("PTV70")
    half = ptv.copy()
    half[12:] = False
    entry = entry_of(replace(case, masks={**masks, "ptv_high": half, "PTV70 Gy": ptv & ~half}), tmp_path)
    assert np.array_equal(entry.arrays["distances"][0] < 0, turned(ptv))


def test_a_failed_check_is_a_warning_unless_validation_is_strict(tmp_path):
    case = planned(0)
    cold = replace(case, dose_gy=case.dose_gy * np.float32(0.9))
    [warning] = entry_of(cold, tmp_path).facts["warnings"]
    assert "D95 of at least 64.0 Gy in PTV70, got 63.0 Gy" in warning
    assert reasons_of(cold, tmp_path, is_strict=True) == (warning,)


def test_what_a_crop_cuts_off_is_critical(tmp_path):
    reasons = reasons_of(planned(0), tmp_path, grid=NativeCrop(inplane_size=14, z_margin_mm=5.0, min_slices=8))
    assert [reason for reason in reasons if "all of Femur_L on the grid" in reason]
    assert not [reason for reason in reasons if "PTV70" in reason]


def test_equal_cases_have_equal_hashes_and_others_do_not(tmp_path):
    first, second = (entry_of(planned(0), tmp_path).facts for _ in range(2))
    other = entry_of(planned(1), tmp_path).facts
    for name in ("voxel_sha256", "label_sha256", "channel_sha256"):
        assert first[name] == second[name] != other[name]


def test_the_same_ct_is_known_again_in_another_crop(tmp_path):
    whole = entry_of(planned(0), tmp_path)
    cropped = entry_of(planned(0), tmp_path, grid=NativeCrop(inplane_size=22, z_margin_mm=5.0, min_slices=8))
    assert whole.facts["channel_sha256"] == cropped.facts["channel_sha256"]
    assert whole.facts["voxel_sha256"] != cropped.facts["voxel_sha256"]


def test_constraints_are_kept_and_zero_where_there_are_none(tmp_path):
    told = constraint_vector(VMAT)
    assert entry_of(planned(0), tmp_path).facts["constraints"] == [0.0] * 13
    assert entry_of(replace(planned(0), constraints=told), tmp_path).facts["constraints"] == pytest.approx(list(told))


def test_facts_are_plain(tmp_path):
    facts = entry_of(planned(0), tmp_path).facts
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_the_picture_is_a_png_of_two_rows_of_four(tmp_path):
    from PIL import Image

    (tmp_path / "picture.png").write_bytes(TRANSFORM.picture(entry_of(planned(0), tmp_path)))
    with Image.open(tmp_path / "picture.png") as image:
        assert image.size[0] == 2 * image.size[1]


def test_a_transform_comes_back_from_json():
    assert DoseTransform.from_json(json.loads(json.dumps(TRANSFORM.to_json()))).to_json() == TRANSFORM.to_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"required": ("PTV60",)}, "dataset.required: expected dataset.structures, got PTV60"),
        ({"distance_clip_mm": 0.0}, "dataset.distance_clip_mm: expected a length, got 0"),
        ({"grid": FixedGrid([4, 4, 4], [1.0, 1.0, 1.0])}, "dataset.grid: expected voxels of the files' own"),
        ({"structures": ()}, "dataset.structures: expected different names"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        replace(TRANSFORM, **changes)


def test_the_grid_of_the_files_is_taken_whole(tmp_path):
    assert entry_of(planned(0), tmp_path, grid=AsStored()).facts["grid"]["shape"] == [24, 20, 16]

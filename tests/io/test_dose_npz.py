import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from medexp.errors import CaseError
from medexp.io.dose_metadata import json_array
from medexp.io.dose_npz import read_case_npz, write_case_npz
from tests.synthetic.corrupt_npz import (
    flip_byte,
    lying_header,
    members_of,
    remove_key,
    replace_array,
    write_members,
)
from tests.synthetic.doses import OPENKBP, VMAT, small_case

SPACING_MM = (4.0, 3.0, 5.0)  # x, y, z


def full_case():
    leaves = np.linspace(-100.0, 100.0, 12, dtype=np.float32).reshape(4, 3)
    return replace(
        small_case(spacing_mm=SPACING_MM),
        constraints=np.linspace(0.0, 1.0, 13, dtype=np.float32),
        mlc={"beam1_mlc_a": leaves, "beam1_mlc_b": -leaves},
        warnings=("look at the bladder",),
    )


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "small_0.npz"
    write_case_npz(target, full_case(), structures=VMAT, distance_clip_mm=50.0, durable=False)
    return target


def assert_equal_cases(after, before):
    assert (after.name, after.prescription_gy, after.warnings) == (before.name, before.prescription_gy, before.warnings)
    assert after.metadata == before.metadata
    assert np.array_equal(after.affine, before.affine)
    assert np.array_equal(after.ct_hu, np.clip(before.ct_hu, -1000, 3000))
    assert np.abs(after.dose_gy - before.dose_gy).max() < 1e-5
    for name in ("possible_dose", "constraints"):
        assert np.array_equal(getattr(after, name), getattr(before, name))
    for name in ("masks", "coverage", "mlc"):
        found, expected = getattr(after, name), getattr(before, name)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[key], expected[key]) for key in expected), name


def test_a_case_is_read_back_equal(path):
    assert_equal_cases(read_case_npz(path), full_case())


def test_a_case_with_other_structures_and_neither_dose_nor_coverage_is_read_back(tmp_path):
    case = replace(small_case(structures=OPENKBP, has_dose=False), coverage={}, possible_dose=None)
    write_case_npz(tmp_path / "a.npz", case, structures=OPENKBP, distance_clip_mm=50.0)
    after = read_case_npz(tmp_path / "a.npz")
    assert (after.dose_gy, after.possible_dose, after.constraints) == (None, None, None)
    assert after.coverage == {}
    assert set(after.masks) == set(OPENKBP)


def test_numpy_reads_the_documented_keys_in_y_x_z(path):
    case = full_case()
    i, j, k = case.shape
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    assert arrays["ct"].shape == arrays["dose"].shape == (j, i, k)
    assert arrays["masks"].shape == arrays["masks_sdf"].shape == (8, j, i, k)
    assert {key: arrays[key].dtype.name for key in ("ct", "dose", "masks", "masks_sdf", "constraints")} == {
        "ct": "float32",
        "dose": "float32",
        "masks": "uint8",
        "masks_sdf": "float32",
        "constraints": "float32",
    }
    assert arrays["dose"][3, 5, 7] == pytest.approx(case.dose_gy[5, 3, 7] / 70.0)
    assert arrays["ct"][3, 5, 7] == pytest.approx(max(int(case.ct_hu[5, 3, 7]), -1000) / 4000.0 + 0.5)
    assert arrays["masks"].max() == 1
    assert arrays["beam1_mlc_a"].shape == (4, 3)


def test_distances_are_those_of_scipy_as_fractions_of_the_clip(path):
    with np.load(path, allow_pickle=False) as file:
        distances, masks = file["masks_sdf"], file["masks"].astype(bool)
    x, y, z = SPACING_MM
    inside = ndimage.distance_transform_edt(masks[3], sampling=(y, x, z))
    outside = ndimage.distance_transform_edt(~masks[3], sampling=(y, x, z))
    assert np.allclose(distances[3], np.clip((outside - inside) / 50.0, -1, 1), atol=1e-5)
    assert np.array_equal(distances < 0, masks)


def test_an_absent_structure_is_far_away_everywhere(tmp_path):
    masks = {name: mask for name, mask in small_case().masks.items() if name != "PTV56"}
    case = replace(small_case(), masks=masks, coverage={})
    write_case_npz(tmp_path / "a.npz", case, structures=VMAT, distance_clip_mm=50.0)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert (file["masks_sdf"][1] == 1.0).all()
        assert not file["masks"][1].any()
    assert "PTV56" not in read_case_npz(tmp_path / "a.npz").masks


def test_given_distances_are_written_as_they_are(tmp_path):
    case = replace(small_case(), masks={"PTV70": small_case().masks["PTV70"]}, coverage={})
    distances = np.where(case.masks["PTV70"], -7.0, 20.0).astype(np.float32)[None]
    write_case_npz(tmp_path / "a.npz", case, structures=["PTV70"], distance_clip_mm=10.0, distances_mm=distances)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert np.unique(file["masks_sdf"]).tolist() == pytest.approx([-0.7, 1.0])


def test_distances_that_do_not_fit_the_masks_are_not_written(tmp_path):
    distances = np.ones((8, *small_case().shape), np.float32)
    with pytest.raises(CaseError, match="PTV70: expected distances below 0"):
        write_case_npz(tmp_path / "a.npz", small_case(), structures=VMAT, distance_clip_mm=50.0, distances_mm=distances)


def test_a_structure_without_a_channel_is_not_dropped(tmp_path):
    with pytest.raises(CaseError, match="got also 'Bowel'"):
        write_case_npz(tmp_path / "a.npz", small_case(), structures=VMAT[:-1], distance_clip_mm=50.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1])
def test_a_dose_that_is_none_is_not_written(tmp_path, bad):
    dose = small_case().dose_gy.copy()
    dose[2, 2, 2] = bad
    with pytest.raises(CaseError, match=r"a\.npz: dose: expected"):
        write_case_npz(tmp_path / "a.npz", replace(small_case(), dose_gy=dose), structures=VMAT, distance_clip_mm=50.0)


def test_masks_are_taken_from_distances_where_they_are_missing(path):
    remove_key(path, "masks")
    assert_equal_cases(read_case_npz(path), full_case())


def test_distances_are_not_unpacked_where_masks_are_there(path):
    flip_byte(path, "masks_sdf")
    assert_equal_cases(read_case_npz(path), full_case())


def old_file(path, **arrays):
    """A file as the VMAT system leaves it: no names, no unit, pickled metadata."""
    case = small_case()
    masks = np.stack([mask.transpose(1, 0, 2) for mask in case.masks.values()]).astype(np.uint8)
    given = {
        "ct": (np.clip(case.ct_hu, -1000, 3000) / 4000 + 0.5).astype(np.float32).transpose(1, 0, 2),
        "dose": case.dose_gy.transpose(1, 0, 2) / 70.0,
        "masks": masks,
        "masks_sdf": np.where(masks, -0.1, 0.1).astype(np.float32),
        "constraints": np.zeros(13, np.float32),
        "metadata": np.array({"voxel_spacing_mm": (1.0, 1.0, 2.0)}, dtype=object),
    } | arrays
    np.savez(path, **{key: value for key, value in given.items() if value is not None})


def test_pickled_metadata_stays_closed_and_everything_else_is_read(tmp_path, monkeypatch):
    old_file(tmp_path / "old.npz")
    monkeypatch.setattr("pickle.load", lambda *_, **__: pytest.fail("a pickle was loaded"))
    monkeypatch.setattr("pickle.loads", lambda *_, **__: pytest.fail("a pickle was loaded"))
    case = read_case_npz(tmp_path / "old.npz")
    assert np.array_equal(case.ct_hu, np.maximum(small_case().ct_hu, -1000))
    assert np.abs(case.dose_gy - small_case().dose_gy).max() < 1e-4
    assert list(case.masks) == list(VMAT)
    assert case.spacing_mm == (1.0, 1.0, 2.0)
    for part in ("metadata is pickled", "json.dumps", "1 x 1 x 2 mm", "HU / 4000", "fractions", "70 Gy", "PTV70"):
        assert any(part in warning for warning in case.warnings), part


@pytest.mark.parametrize(
    ("ct", "dose"),
    [
        pytest.param(lambda hu: hu.astype(np.int16), lambda gy: gy, id="Hounsfield units and Gy"),
        pytest.param(lambda hu: hu.astype(np.float64), lambda gy: gy.astype(np.float64), id="in double precision"),
        pytest.param(lambda hu: ((hu + 1000.0) / 4000.0).astype(np.float32), lambda gy: gy / 70.0, id="0 to 1"),
    ],
)
def test_other_units_are_told_from_their_values(tmp_path, ct, dose):
    hounsfield = np.maximum(small_case().ct_hu, -1000).transpose(1, 0, 2)
    old_file(tmp_path / "old.npz", ct=ct(hounsfield), dose=dose(small_case().dose_gy.transpose(1, 0, 2)))
    case = read_case_npz(tmp_path / "old.npz")
    assert np.array_equal(case.ct_hu, np.maximum(small_case().ct_hu, -1000))
    assert np.abs(case.dose_gy - small_case().dose_gy).max() < 1e-4


def test_units_that_cannot_be_told_are_refused(tmp_path):
    old_file(tmp_path / "old.npz", dose=small_case().dose_gy.transpose(1, 0, 2) / 10.0)
    with pytest.raises(CaseError, match=r"old\.npz: dose: .*tells neither"):
        read_case_npz(tmp_path / "old.npz")


def test_units_in_json_metadata_hold_against_the_values(tmp_path):
    record = {"voxel_spacing_mm": [3, 4, 5], "dose": {"gy_per_unit": 10.0}, "prescription_gy": 60.0}
    dose = small_case().dose_gy.transpose(1, 0, 2) / 10.0
    old_file(tmp_path / "old.npz", dose=dose, metadata=json_array(record))
    case = read_case_npz(tmp_path / "old.npz")
    assert np.abs(case.dose_gy - small_case().dose_gy).max() < 1e-4
    assert (case.prescription_gy, case.spacing_mm) == (60.0, (4.0, 3.0, 5.0))


def test_names_of_channels_are_the_callers_where_the_file_has_none(tmp_path):
    old_file(tmp_path / "old.npz")
    names = [f"structure {number}" for number in range(8)]
    assert list(read_case_npz(tmp_path / "old.npz", structures=names).masks) == names
    with pytest.raises(CaseError, match="masks: expected a channel for each"):
        read_case_npz(tmp_path / "old.npz", structures=names[:3])


def test_three_channels_without_names_are_refused(tmp_path):
    old_file(tmp_path / "old.npz", masks=np.zeros((3, 20, 24, 16), np.uint8), masks_sdf=None)
    with pytest.raises(CaseError, match="8 or 9 channels"):
        read_case_npz(tmp_path / "old.npz")


SHAPE = (20, 24, 16)  # y, x, z


@pytest.mark.parametrize(
    ("key", "array", "reason"),
    [
        pytest.param("dose", np.zeros((20, 24, 15), np.float32), "dose on the grid of ct", id="dose on another grid"),
        pytest.param("dose", np.zeros((24, 20, 16), np.float32), "dose on the grid of ct", id="axes exchanged"),
        pytest.param("masks", np.zeros((8, 20, 24, 15), np.uint8), "masks on the grid of ct", id="masks on another"),
        pytest.param("masks", np.zeros((9, *SHAPE), np.uint8), "as many channels", id="one mask more"),
        pytest.param("masks", np.zeros((*SHAPE,), np.uint8), "masks on the grid", id="a label map"),
        pytest.param("masks", np.full((8, *SHAPE), 255, np.uint8), "expected 0 and 1", id="masks of 255"),
        pytest.param("masks", np.full((8, *SHAPE), 0.5, np.float32), "expected 0 and 1", id="masks of halves"),
        pytest.param("masks", np.full((8, *SHAPE), np.nan, np.float32), "finite", id="masks of NaN"),
        pytest.param("masks_sdf", np.ones((8, 20, 24, 15), np.float32), "masks_sdf on the grid", id="distances"),
        pytest.param("ct", np.zeros((20, 24), np.float32), "ct with three axes", id="a flat CT"),
        pytest.param("ct", np.full(SHAPE, np.nan, np.float32), "ct: expected finite", id="CT of NaN"),
        pytest.param("ct", np.full(SHAPE, "a"), "ct: expected real numbers", id="CT of text"),
        pytest.param("ct", np.full(SHAPE, 1j), "ct: expected real numbers", id="complex CT"),
        pytest.param("ct", np.zeros((0, 24, 16), np.float32), "ct with three axes", id="no voxel"),
        pytest.param("dose", np.full(SHAPE, np.inf, np.float32), "dose: expected finite", id="infinite dose"),
        pytest.param("dose", np.full(SHAPE, -0.1, np.float32), "got 7680 below", id="negative dose"),
        pytest.param("dose", np.full(SHAPE, 1e300), "dose: expected finite", id="dose beyond single precision"),
        pytest.param("constraints", np.zeros(12, np.float32), "expected 13 values", id="a constraint less"),
        pytest.param("constraints", np.full(13, np.nan, np.float32), "constraints: expected finite", id="NaN limits"),
        pytest.param("coverage", np.zeros((8, *SHAPE), np.uint8), "PTV70: expected masks", id="coverage of nothing"),
        pytest.param(
            "coverage", np.zeros((8, *SHAPE), np.float32), "coverage: expected bytes", id="coverage of floats"
        ),
        pytest.param("beam1_mlc_a", np.zeros(5, np.float32), "control points x leaves", id="leaves in a row"),
        pytest.param("metadata", np.array(3.0), "metadata: expected JSON", id="metadata is a number"),
        pytest.param("metadata", np.array("{"), "metadata: expected JSON", id="metadata is cut"),
        pytest.param("metadata", np.array('{"voxel_spacing_mm": 1}'), "metadata: expected entries", id="odd entries"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(path, key, array, reason):
    replace_array(path, key, array)
    with pytest.raises(CaseError, match=reason) as caught:
        read_case_npz(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("key", ["ct", "dose", "masks", "masks_sdf", "constraints", "beam1_mlc_a", "coverage"])
def test_a_pickled_array_is_refused_by_name(path, key):
    replace_array(path, key, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(CaseError, match=f"{key}: expected plain numbers, got pickled"):
        read_case_npz(path)


@pytest.mark.parametrize("keys", [("ct",), ("masks", "masks_sdf")])
def test_missing_keys_are_named(path, keys):
    for key in keys:
        remove_key(path, key)
    with pytest.raises(CaseError, match=keys[0]):
        read_case_npz(path)


@pytest.mark.parametrize("key", ["ct", "dose", "masks", "metadata"])
def test_a_changed_byte_is_refused(path, key):
    flip_byte(path, key)
    with pytest.raises(CaseError, match=key):
        read_case_npz(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CaseError, match=r"small_0\.npz"):
        read_case_npz(path)


def test_a_lying_header_takes_no_memory(path):
    members = members_of(path)
    for key in ("ct", "dose"):
        members[f"{key}.npy"] = lying_header((20_000, 20_000, 20_000))
    for key in ("masks", "masks_sdf", "coverage"):
        members[f"{key}.npy"] = lying_header((8, 20_000, 20_000, 20_000), descr="|u1")
    members["possible_dose.npy"] = lying_header((20_000, 20_000, 20_000), descr="|u1")
    write_members(path, members)
    tracemalloc.start()
    with pytest.raises(CaseError, match="the header does not fit the data"):
        read_case_npz(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_writing_and_reading_leave_the_case_as_it_was(tmp_path):
    case, untouched = small_case(), small_case()
    write_case_npz(tmp_path / "a.npz", case, structures=VMAT, distance_clip_mm=50.0)
    assert np.array_equal(case.ct_hu, untouched.ct_hu)
    assert np.array_equal(case.dose_gy, untouched.dose_gy)
    assert all(np.array_equal(case.masks[name], untouched.masks[name]) for name in VMAT)

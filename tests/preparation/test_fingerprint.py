"""The fingerprint: hand-worked numbers from two made-up cases."""

import numpy as np
import pytest

from medexp.preparation.fingerprint import header_spacings, make_fingerprint, median_spacing
from medexp.preparation.raw_cases import RawCase
from tests.synthetic.brats import make_brats, path_of


def case(key, shape, voxels, spacing=1.0):
    return {
        "patient": key,
        "store": key,
        "shape": list(shape),
        "affine": np.diag([spacing, spacing, 2.0, 1.0]).tolist(),
        "stored_shape": [size - 1 for size in shape],
        "stored_spacing_mm": [1.0, 1.0, 2.0],
        "label_voxels": voxels,
    }


@pytest.fixture
def fingerprint(tmp_path):
    for key, values in {"aa1": [[1.0, 3.0], [10.0, 10.0]], "bb2": [[5.0], [40.0]]}.items():
        folder = tmp_path / key[:2] / key
        folder.mkdir(parents=True)
        np.save(folder / "intensities.npy", np.array(values, np.float32))
    cases = [case("aa1", (10, 10, 10), {"x": 2, "y": 0}), case("bb2", (10, 20, 10), {"x": 1, "y": 0}, spacing=3.0)]
    return make_fingerprint(cases, channels=("T1", "T2"), labels={"x": 1, "y": 2}, store=tmp_path)


def test_shapes_and_spacing(fingerprint):
    assert fingerprint["stored_shape"] == {"minimum": [9, 9, 9], "median": [9.0, 14.0, 9.0], "maximum": [9, 19, 9]}
    assert fingerprint["spacing_mm"] == (2.0, 2.0, 2.0)
    assert fingerprint["num_cases"] == fingerprint["num_patients"] == 2


def test_labels_are_counted_over_all_voxels_of_the_files(fingerprint):
    assert fingerprint["labels"]["x"] == {"cases": 2, "voxels": 3, "share": pytest.approx(3 / 3000)}
    assert fingerprint["labels"]["y"] == {"cases": 0, "voxels": 0, "share": 0.0}


def test_intensities_are_those_of_the_foreground(fingerprint):
    statistics = fingerprint["foreground_intensity"]["T1"]
    assert statistics["mean"] == pytest.approx(3.0)
    assert statistics["deviation"] == pytest.approx(np.std([1, 3, 5]))
    assert statistics["median"] == 3.0
    assert (statistics["minimum"], statistics["maximum"]) == (1.0, 5.0)


def test_the_median_spacing_is_per_axis_and_free_of_rounding_noise():
    assert median_spacing([(1.0, 1.0, 5.0), (0.99999997, 2.0, 1.0), (3.0, 3.0, 3.0)]) == (1.0, 2.0, 3.0)


def test_headers_that_cannot_be_used_do_not_count(tmp_path):
    root = make_brats(tmp_path, num_patients=1)
    name = "BraTS-GLI-00001-100"
    good = RawCase(name, name, "train", {"t1c": path_of(root, name, "t1c")}, None, name)
    (tmp_path / "bad.nii.gz").write_bytes(b"")
    bad = RawCase("bad", "bad", "train", {"t1c": tmp_path / "bad.nii.gz"}, None, "bad")
    nothing = RawCase("no", "no", "train", {}, None, "no")
    assert header_spacings([bad, good, nothing]) == [(1.0, 1.0, 1.0)]

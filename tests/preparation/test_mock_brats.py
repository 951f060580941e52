"""The synthetic BraTS cohort: the challenge's format, and learnable."""

import nibabel as nib
import numpy as np
import pytest

from medexp.errors import ConfigurationError
from medexp.preparation.mock_brats import CHANNELS, LABELS, write_mock, write_mock_nnunet
from tests.synthetic.brats import path_of

SHAPE = (32, 36, 32)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("mock")
    write_mock(root, num_patients=4, shape=SHAPE, seed=0)
    return root


def load(root, case, kind):
    return nib.load(path_of(root, case, kind))


def cases_of(root):
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def test_folders_and_files_are_named_as_in_the_challenge(root):
    assert cases_of(root) == [
        "BraTS-GLI-00001-100",
        "BraTS-GLI-00001-101",
        "BraTS-GLI-00002-100",
        "BraTS-GLI-00003-100",
        "BraTS-GLI-00004-100",
    ]
    for case in cases_of(root):
        kinds = ("seg", "t1c", "t1n", "t2f", "t2w")
        assert sorted(path.name for path in (root / case).iterdir()) == [f"{case}-{kind}.nii.gz" for kind in kinds]


def test_all_files_share_a_1_mm_las_grid_and_types_are_mixed(root):
    images = [load(root, "BraTS-GLI-00001-100", kind) for kind in (*CHANNELS, "seg")]
    assert all(image.shape == SHAPE for image in images)
    assert all((image.affine == images[0].affine).all() for image in images)
    assert nib.aff2axcodes(images[0].affine) == ("L", "A", "S")
    assert [str(image.get_data_dtype()) for image in images] == ["float32", "int16", "float32", "int16", "uint8"]


def test_the_grid_has_the_challenges_origin_at_full_size():
    from medexp.preparation.mock_brats import _grid

    assert _grid((182, 218, 182)).affine[:3, 3].tolist() == [90.0, -126.0, -72.0]


def test_labels_are_nested_and_lie_in_the_brain(root):
    label = np.asanyarray(load(root, "BraTS-GLI-00001-100", "seg").dataobj)
    brain = np.asanyarray(load(root, "BraTS-GLI-00001-100", "t1c").dataobj) != 0
    assert set(np.unique(label)) == {0, 1, 2, 3, 4}
    assert brain[label > 0].mean() > 0.99
    around = np.argwhere(label == LABELS["NETC"])
    enhancing = np.argwhere(label == LABELS["ET"])
    assert (enhancing.min(axis=0) <= around.min(axis=0)).all()
    assert (enhancing.max(axis=0) >= around.max(axis=0)).all()


def test_one_case_lacks_et_and_one_label_is_empty(root):
    values = {case: set(np.unique(np.asanyarray(load(root, case, "seg").dataobj))) for case in cases_of(root)}
    assert values["BraTS-GLI-00002-100"] == {0, 1, 2, 4}
    assert [case for case, found in values.items() if found == {0}] == ["BraTS-GLI-00004-100"]


@pytest.mark.parametrize(
    ("channel", "brighter", "darker"),
    [("t1c", "ET", "NETC"), ("t2f", "SNFH", "NETC"), ("t2w", "RC", "ET"), ("t1n", "ET", "RC")],
)
def test_each_sequence_tells_its_tissues_apart(root, channel, brighter, darker):
    image = np.asanyarray(load(root, "BraTS-GLI-00001-100", channel).dataobj)
    label = np.asanyarray(load(root, "BraTS-GLI-00001-100", "seg").dataobj)
    high, low = image[label == LABELS[brighter]], image[label == LABELS[darker]]
    assert np.percentile(high, 10) > np.percentile(low, 90)


def test_visits_of_a_patient_differ_and_so_do_patients(root):
    volumes = [np.asanyarray(load(root, case, "t1c").dataobj) for case in cases_of(root)]
    assert len({volume.tobytes() for volume in volumes}) == len(volumes)


def test_equal_arguments_give_equal_bytes_and_another_seed_does_not(root, tmp_path):
    for seed in (0, 1):
        write_mock(tmp_path / str(seed), num_patients=1, shape=SHAPE, seed=seed)
    name = "BraTS-GLI-00001-100"
    first = path_of(root, name, "t2f").read_bytes()
    assert path_of(tmp_path / "0", name, "t2f").read_bytes() == first
    assert path_of(tmp_path / "1", name, "t2f").read_bytes() != first


def test_label_values_and_channels_follow_the_configuration(tmp_path):
    write_mock(
        tmp_path,
        num_patients=1,
        shape=SHAPE,
        seed=0,
        channels=("t2f",),
        labels={"ET": 1, "RC": 2, "NETC": 3, "SNFH": 4},
    )
    assert len(list(tmp_path.rglob("*.nii.gz"))) == 4
    label = np.asanyarray(load(tmp_path, "BraTS-GLI-00001-100", "seg").dataobj)
    image = np.asanyarray(load(tmp_path, "BraTS-GLI-00001-100", "t2f").dataobj)
    assert image[label == 4].mean() > image[label == 3].mean()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"num_patients": 0}, "mock.num_patients"),
        ({"shape": (8, 32, 32)}, "mock.shape"),
        ({"shape": (32, 32)}, "mock.shape"),
        ({"channels": ("t1c", "flair")}, "dataset.channels"),
        ({"labels": {"ET": 1}}, "dataset.labels"),
    ],
)
def test_an_impossible_argument_names_its_key(tmp_path, changes, key):
    with pytest.raises(ConfigurationError, match=key):
        write_mock(tmp_path, **{"num_patients": 1, "shape": SHAPE, "seed": 0, **changes})
    assert list(tmp_path.iterdir()) == []


def test_the_nnunet_layout_holds_the_same_voxels(root, tmp_path):
    write_mock_nnunet(tmp_path, num_patients=1, shape=SHAPE, seed=0)
    for number, channel in enumerate(CHANNELS):
        ours = path_of(root, "BraTS-GLI-00001-100", channel).read_bytes()
        assert (tmp_path / "imagesTr" / f"BraTS-GLI-00001-100_{number:04d}.nii.gz").read_bytes() == ours

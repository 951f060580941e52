"""Files find their cases, whatever they are called; nothing is left out without a word."""

from pathlib import Path

import pytest

from medexp.errors import CohortError, ConfigurationError, IncompletePredictionsError
from medexp.io.pairing import Pair, case_of, images_beside, label_maps, paired


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("suffix", ["", "-seg", "_seg", "_pred", "-pred", "_mask", "_pred_mask"])
@pytest.mark.parametrize("extension", [".nii.gz", ".nii", ".tif", ".tiff"])
def test_every_name_variation_is_the_same_case(tmp_path, suffix, extension):
    touch(tmp_path / f"BraTS-GLI-00001-100{suffix}{extension}")
    assert list(label_maps(tmp_path, key="evaluate.predictions")) == ["BraTS-GLI-00001-100"]


def test_a_suffix_alone_is_a_name():
    assert case_of("_seg.nii.gz") == ("_seg", False)
    assert case_of("we%20ird%20%282%29.x_pred_mask.tif") == case_of("we ird (2).x_mask.TIF") == ("we ird (2).x", True)


def test_raw_case_folders_give_their_label_maps_only(tmp_path):
    for case in ("A-1", "A-10"):
        touch(*(tmp_path / "site" / case / f"{case}-{kind}.nii.gz" for kind in ("seg", "t1c", "t1n", "t2f", "t2w")))
    maps = label_maps(tmp_path, key="evaluate.references")
    assert {case: path.name for case, path in maps.items()} == {"A-1": "A-1-seg.nii.gz", "A-10": "A-10-seg.nii.gz"}


def test_a_probability_map_beside_its_mask_is_no_label_map(tmp_path):
    touch(tmp_path / "W_1_pred_mask.tif", tmp_path / "W_1_pred_prob.tif")
    assert {case: path.name for case, path in label_maps(tmp_path, key="evaluate.predictions").items()} == {
        "W_1": "W_1_pred_mask.tif"
    }


def test_marked_and_plain_names_may_be_mixed(tmp_path):
    touch(tmp_path / "A_pred.nii.gz", tmp_path / "B.nii.gz", tmp_path / "C-seg.nii")
    assert list(label_maps(tmp_path, key="evaluate.predictions")) == ["A", "B", "C"]


def test_hidden_and_other_files_are_not_looked_at(tmp_path):
    touch(tmp_path / "A.nii.gz", tmp_path / "._A.nii.gz", tmp_path / "A.npz", tmp_path / ".cache" / "B.nii.gz")
    assert list(label_maps(tmp_path, key="evaluate.predictions")) == ["A"]


def test_two_files_of_one_case_are_refused(tmp_path):
    touch(tmp_path / "one" / "A.nii.gz", tmp_path / "two" / "A-seg.nii.gz")
    with pytest.raises(CohortError, match=r"several of 1 cases(.|\n)*one/A.nii.gz, two/A-seg.nii.gz"):
        label_maps(tmp_path, key="evaluate.references")


def test_a_folder_without_label_maps_is_refused(tmp_path):
    with pytest.raises(CohortError, match=r"evaluate\.references: expected label maps"):
        label_maps(tmp_path, key="evaluate.references")


def test_no_folder_is_refused_by_its_key(tmp_path):
    with pytest.raises(ConfigurationError, match=r"evaluate\.predictions: expected a folder"):
        label_maps(tmp_path / "nowhere", key="evaluate.predictions")


def test_pairs_are_sorted_by_case():
    files = {"B": Path("b"), "A": Path("a")}
    assert paired(files, dict(files), where="here") == [
        Pair("A", Path("a"), Path("a")),
        Pair("B", Path("b"), Path("b")),
    ]


def test_missing_and_extra_predictions_are_listed_together():
    predictions, references = {"A": Path("a"), "X": Path("x")}, {name: Path(name) for name in ("A", "B", "C")}
    with pytest.raises(IncompletePredictionsError) as caught:
        paired(predictions, references, where="evaluate.predictions")
    assert "2 without a prediction:\n  B\n  C" in str(caught.value)
    assert "1 without a reference:\n  X" in str(caught.value)


def test_images_stand_beside_a_marked_label_map(tmp_path):
    touch(*(tmp_path / f"A-{kind}.nii.gz" for kind in ("seg", "t1c", "t2f")), tmp_path / "AB-t1c.nii.gz")
    assert [channel for channel, _ in images_beside(tmp_path / "A-seg.nii.gz")] == ["t1c", "t2f"]


def test_no_images_are_guessed_beside_a_plain_label_map(tmp_path):
    touch(tmp_path / "A.nii.gz", tmp_path / "A-t1c.nii.gz")
    assert images_beside(tmp_path / "A.nii.gz") == ()

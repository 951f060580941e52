import csv
import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import tifffile

from medexp.datasets.labelled_images import LabelledImages
from medexp.errors import CohortError, ConfigurationError, LeakageError
from medexp.io.prepared import PreparedCohort
from medexp.io.tiff import read_tiff
from medexp.preparation.image_cohort import ImageCohortSettings, patch_side
from medexp.preparation.paired_images import find_cases
from medexp.sampling.splits import Fold
from tests.synthetic.wells import disks, image_of, write_image, write_mask

PAIRS = ({"image": r"images/(?P<base>[^/]+)", "mask": "masks/{base}_mask"},)
FIND = partial(find_cases, pairs=PAIRS, manifest=None, exclude=(), confirmed_empty=(), corrections=())


def settings(root, **changes) -> ImageCohortSettings:
    values = {
        "name": "wells",
        "find_cases": FIND,
        "roots": (root,),
        "test_roots": (),
        "group_pattern": r"(?:.*/)?(?P<group>.+)",
        "channels": ("brightfield",),
        "labels": {"spheroid": 1},
        "gray": "mean",
        "normalization": "type_range",
        "pixel_size_um": None,
        "min_object_px": 50,
        "split": "leave_one_out",
        "holdout_shares": (0.6, 0.2, 0.2),
        "coverage_edges": (0.0, 0.01, 0.1, 0.5, 1.0),
        "num_folds": None,
        "split_seed": 42,
        "splits_file": None,
        "patch_size": None,
    }
    return ImageCohortSettings(**{**values, **changes})


def prepare(root, folder, **changes) -> PreparedCohort:
    return settings(root, **changes).prepare(folder=folder / "run", store=folder / "store", num_workers=1)


def write_well(root, base, *circles, seed=0) -> None:
    mask = disks(*circles)
    write_image(root / f"images/{base}.tif", mask, seed=seed)
    write_mask(root / f"masks/{base}_mask.tif", mask)


@pytest.fixture
def wells(tmp_path):
    root = tmp_path / "raw"
    for number in range(6):
        write_well(root, f"w{number}", (30, 40, 8 + 2 * number), (60, 100, 9), seed=number)
    return root


def folds(folder) -> list[Fold]:
    return json.loads((folder / "run" / "splits_final.json").read_text())


def rows(folder) -> list[dict[str, str]]:
    with (folder / "run" / "images.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_store_holds_what_the_files_hold(wells, tmp_path):
    cohort = prepare(wells, tmp_path)
    case = cohort.case("w2")
    gray = read_tiff(wells / "images/w2.tif").array
    assert case.image().shape == (1, 96, 128)
    np.testing.assert_allclose(case.image()[0], gray / 255.0, atol=5e-4)
    assert np.array_equal(case.label(), disks((30, 40, 12), (60, 100, 9)))
    rows_of = case.foreground()
    assert (case.label()[rows_of[:, 1], rows_of[:, 2]] == 1).all()
    assert len(rows_of) == case.label().sum()
    assert case.grid.shape == (96, 128)


def test_the_table_of_images_has_segoids_columns(wells, tmp_path):
    prepare(wells, tmp_path)
    row = rows(tmp_path)[2]
    expected = [
        "basename",
        "image_path",
        "mask_path",
        "mask_coverage",
        "object_count",
        "mean_diameter",
        "empty_confirmed",
    ]
    assert list(row)[:7] == expected
    assert {"date", "batch", "operator", "notes"} <= set(row)
    mask = disks((30, 40, 12), (60, 100, 9))
    assert float(row["mask_coverage"]) == pytest.approx(mask.mean())
    assert int(row["object_count"]) == 2
    areas = [disks((30, 40, 12)).sum(), disks((60, 100, 9)).sum()]
    assert float(row["mean_diameter"]) == pytest.approx(np.mean(np.sqrt(4 * np.array(areas) / np.pi)))


def test_objects_that_touch_by_a_corner_are_one_and_specks_do_not_count(tmp_path):
    mask = np.zeros((96, 128), np.uint8)
    mask[10:20, 10:20] = mask[20:30, 20:30] = 1  # one corner
    mask[50, 50] = 1
    for base in ("a", "b"):
        write_image(tmp_path / f"images/{base}.tif", mask, seed=ord(base))
        write_mask(tmp_path / f"masks/{base}_mask.tif", mask)
    record = prepare(tmp_path, tmp_path / "out").case("a").record
    assert record["object_count"] == 1
    assert record["mean_diameter_px"] == pytest.approx(np.sqrt(4 * 200 / np.pi))


@pytest.mark.parametrize(
    ("diameter", "side"),
    [(None, 256), (60.3, 256), (102.4, 256), (102.5, 384), (153.6, 384), (160.0, 512), (900.0, 512)],
)
def test_patch_side(diameter, side):
    assert patch_side(diameter) == side


def test_the_plan_follows_from_the_objects_unless_a_patch_is_configured(wells, tmp_path):
    assert prepare(wells, tmp_path).plan.patch_size == (256, 256)
    assert prepare(wells, tmp_path / "b", patch_size=(64, 96)).plan.patch_size == (64, 96)


def test_gray_and_deep_and_colored_twins_give_the_same_input(tmp_path):
    mask = disks((30, 40, 12))
    gray = image_of(mask)
    twins = {"gray": gray, "deep": gray.astype(np.uint16) * 257, "color": np.repeat(gray[..., None], 3, axis=2)}
    stored = {}
    for name, pixels in twins.items():
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "x.tif", pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
        cohort = _cohort_with(tmp_path / f"{name}_cohort")
        [case] = settings(tmp_path).prepare_unseen(tmp_path / name, prepared=cohort, num_workers=1)
        stored[name] = case.image()[0]
    assert np.array_equal(stored["gray"], stored["deep"])
    assert np.array_equal(stored["gray"], stored["color"])


def _cohort_with(folder) -> PreparedCohort:
    for number in range(2):
        write_well(folder / "raw", f"w{number}", (30, 40, 10 + number), seed=9 + number)
    return prepare(folder / "raw", folder)


def test_leave_one_out_has_as_many_folds_as_groups(wells, tmp_path):
    assert len(prepare(wells, tmp_path).splits) == 6
    by_pair = prepare(wells, tmp_path / "b", group_pattern=r".*/(?P<group>w[0-2]|w[3-5])")
    assert len(by_pair.splits) == 6


def test_groups_stay_together(tmp_path):
    for plate in "ABC":
        for well in range(2):
            write_well(tmp_path, f"{plate}_{well}", (30, 40, 10), seed=10 * ord(plate) + well)
    prepare(tmp_path, tmp_path / "out", group_pattern=r".*/(?P<group>[A-C])_\d")
    for fold in folds(tmp_path / "out"):
        assert len({name[0] for name in fold["val"]}) == 1
        assert not {name[0] for name in fold["val"]} & {name[0] for name in fold["train"]}


def test_holdout_sets_test_images_aside_before_anything_is_measured(wells, tmp_path):
    cohort = prepare(wells, tmp_path, split="holdout")
    [fold] = folds(tmp_path)
    assert (len(fold["train"]), len(fold["val"]), len(cohort.test_cases)) == (3, 1, 2)
    assert cohort.fingerprint["num_cases"] == 4
    assert {row["basename"] for row in rows(tmp_path) if row["role"] == "test"} == {c.case for c in cohort.test_cases}


def test_folds_need_their_number(wells, tmp_path):
    assert len(prepare(wells, tmp_path, split="folds", num_folds=3).splits) == 3
    with pytest.raises(ConfigurationError, match=r"dataset\.num_folds"):
        prepare(wells, tmp_path / "b", split="folds")


def test_the_split_depends_on_the_seed_alone(wells, tmp_path):
    first = [prepare(wells, tmp_path / name, split="holdout").splits for name in "ab"]
    assert first[0] == first[1]
    others = {prepare(wells, tmp_path / str(s), split="holdout", split_seed=s).splits for s in range(5)}
    assert len(others) > 1


# What cannot be used, and what is odd


def refusal(root, folder, error=CohortError, **changes) -> str:
    with pytest.raises(error) as caught:
        prepare(root, folder, **changes)
    return str(caught.value)


def test_every_bad_file_is_named_at_once(wells, tmp_path):
    (wells / "images/w0.tif").write_bytes(b"II*\0")
    write_mask(wells / "masks/w1_mask.tif", disks((10, 10, 5), shape=(96, 120)))
    tifffile.imwrite(wells / "masks/w2_mask.tif", image_of(disks((30, 40, 12))))
    (wells / "masks/w3_mask.tif").unlink()
    message = refusal(wells, tmp_path)
    assert "expected 6 usable cases, but 4 cannot be used" in message
    assert f"{wells / 'images/w0.tif'}: expected an intact TIFF image" in message
    assert "expected an image and a mask of one size, got 96 x 128 and 96 x 120 pixels" in message
    assert f"{wells / 'masks/w2_mask.tif'}: expected a mask of two values" in message
    assert f"{wells / 'images/w3.tif'}: expected a mask, found none" in message
    page = (tmp_path / "run/qc.html").read_text()
    assert page.count("left out") >= 4


def test_bad_images_can_be_skipped(wells, tmp_path):
    (wells / "images/w0.tif").write_bytes(b"II*\0")
    made = settings(wells).prepare(
        folder=tmp_path / "run", store=tmp_path / "store", skip_bad_cases=True, num_workers=1
    )
    assert [case.case for case in made.cases] == ["w1", "w2", "w3", "w4", "w5"]


def test_duplicate_basenames_are_refused(wells, tmp_path):
    shutil.copytree(wells, tmp_path / "copy")
    message = refusal(wells, tmp_path, roots=(wells, tmp_path / "copy"))
    assert "w0" in message
    assert "found 2 times" in message


def test_masks_without_any_object_are_refused(wells, tmp_path):
    for number in range(6):
        write_mask(wells / f"masks/w{number}_mask.tif", np.zeros((96, 128), np.uint8))
    message = refusal(wells, tmp_path)
    assert "expected objects in the masks of the training images, but all 6 are empty" in message


def test_odd_masks_are_warned_of(wells, tmp_path):
    write_mask(wells / "masks/w0_mask.tif", np.zeros((96, 128), np.uint8))
    write_mask(wells / "masks/w1_mask.tif", np.zeros((96, 128), np.uint8))
    write_mask(wells / "masks/w2_mask.tif", disks((30, 40, 3)))
    write_mask(wells / "masks/w3_mask.tif", 1 - disks((30, 40, 8)))
    tifffile.imwrite(wells / "masks/w4_mask.tif", disks((30, 40, 16)) == 1, photometric="miniswhite")
    find = partial(find_cases, pairs=PAIRS, manifest=None, exclude=(), confirmed_empty=["w1"], corrections=())
    cohort = prepare(wells, tmp_path, find_cases=find)
    warnings = {case.case: "; ".join(case.record["warnings"]) for case in cohort.cases}
    assert "the mask is empty, and nobody has confirmed that" in warnings["w0"]
    assert warnings["w1"] == ""
    assert "covers only 0." in warnings["w2"]
    assert "is it inverted?" in warnings["w3"]
    assert "stored as WhiteIsZero" in warnings["w4"]
    assert "is it inverted? (stored as WhiteIsZero: is that tag right?)" in warnings["w4"]
    assert "inverted" in (tmp_path / "run/qc.html").read_text()
    assert {row["basename"]: row["empty_confirmed"] for row in rows(tmp_path)}["w1"] == "true"


def test_the_same_pixels_under_two_names_are_leakage(wells, tmp_path):
    shutil.copy(wells / "images/w0.tif", wells / "images/w5.tif")
    assert "w0 and w5 hold the same voxels" in refusal(wells, tmp_path, LeakageError)


def test_the_same_pixels_in_another_file_are_leakage_between_training_and_test(wells, tmp_path):
    other = tmp_path / "other"
    write_well(other, "x0", (30, 40, 9), seed=77)
    pixels = read_tiff(wells / "images/w1.tif").array
    tifffile.imwrite(other / "images/x0.tif", pixels, photometric="minisblack", compression="deflate")
    message = refusal(wells, tmp_path, LeakageError, test_roots=(other,))
    assert "w1 and x0 hold the same voxels" in message


def test_the_image_that_stands_in_both_real_sets_is_refused(shared_data, tmp_path):
    from tests.preparation.test_paired_images import REAL

    find = partial(
        find_cases, pairs=REAL, manifest=None, confirmed_empty=(), corrections=(), exclude=["[!5]_*", "5_day0*"]
    )
    message = refusal(
        shared_data / "spheroids",
        tmp_path,
        LeakageError,
        find_cases=find,
        group_pattern=r"(?P<group>.+/\d+)_day\d_.*",
    )
    assert "5_day2_10x_CH1_8bit_18S%282%29 and 5_day2_10x_CH1_8bit_18D%282%29 hold the same voxels" in message


def test_a_group_with_training_and_test_images_is_leakage(wells, tmp_path):
    other = tmp_path / "other"
    write_well(other, "w0_again", (30, 40, 9), seed=77)
    message = refusal(wells, tmp_path, LeakageError, test_roots=(other,), group_pattern=r".*/(?P<group>w\d).*")
    assert "are of patient w0" in message


def test_no_images_at_all(tmp_path):
    (tmp_path / "raw").mkdir()
    assert "found none; check dataset.find_cases.pairs" in refusal(tmp_path / "raw", tmp_path)


def test_several_labels_or_channels_are_refused(wells, tmp_path):
    with pytest.raises(ConfigurationError, match=r"dataset\.labels"):
        prepare(wells, tmp_path, labels={"a": 1, "b": 2})
    with pytest.raises(ConfigurationError, match=r"dataset\.channels"):
        prepare(wells, tmp_path, channels=("a", "b"))


def test_images_of_a_folder_are_stored_without_masks(wells, tmp_path, caplog):
    cohort = prepare(wells, tmp_path)
    new = tmp_path / "new"
    write_image(new / "n1.tif", disks((20, 20, 9)), seed=50)
    shutil.copy(wells / "images/w3.tif", new / "n2.tif")
    cases = settings(wells).prepare_unseen(new, prepared=cohort, num_workers=1)
    assert [(case.case, case.has_label) for case in cases] == [("n1", False), ("n2", False)]
    assert "n2 holds the same pixels as the training image w3" in caplog.text
    (new / "n3.tif").write_bytes(b"nothing")
    with pytest.raises(CohortError, match="n3: .*expected an intact TIFF"):
        settings(wells).prepare_unseen(new, prepared=cohort, num_workers=1)


def test_a_damaged_entry_is_made_anew(wells, tmp_path, caplog):
    from medexp.preparation.store import Rebuilder

    cohort = prepare(wells, tmp_path)
    case = replace(cohort.case("w1"), rebuild=Rebuilder.of(cohort.manifest))
    before = np.array(case.image())
    (case.folder / "image.npy").write_bytes(b"")
    assert np.array_equal(case.image(), before)
    assert "w1: the store entry is damaged" in caplog.text


def test_normalizations(wells, tmp_path):
    stored = {
        name: np.asarray(prepare(wells, tmp_path / name, normalization=name).case("w1").image(), np.float32)
        for name in ("type_range", "percentiles", "zscore")
    }
    assert 0.2 < stored["type_range"].min() < stored["type_range"].max() < 0.9
    assert stored["percentiles"].min() == 0.0
    assert stored["percentiles"].max() == 1.0
    assert abs(stored["zscore"].mean()) < 1e-2
    assert stored["zscore"].std() == pytest.approx(1.0, abs=1e-2)


def test_labelled_images_say_what_the_settings_need():
    assert set(ImageCohortSettings.__dataclass_fields__) - {"has_nnunet_layout"} <= set(
        LabelledImages.__init__.__annotations__
    )

import csv

import numpy as np
import pytest

from medexp.errors import CohortError, ConfigurationError, ManifestError
from medexp.preparation.paired_images import find_cases, find_images
from medexp.runs.files import sha256_of, write_json
from tests.synthetic.wells import disks, write_image, write_mask

PLAIN = ({"image": r"images/(?P<base>[^/]+)", "mask": "masks/{base}_mask"},)
REAL = (
    {"image": r"3D static/(?P<n>\d+)_day0_.*", "mask": "3D static - BW corrected/{n}_BW_E18_static"},
    {"image": r"3D static/(?P<n>\d+)_day2_.*", "mask": "3D static - BW corrected/{n}_BW2_E18_static"},
    {
        "image": r"3D dynamic/(?P<n>\d+)_day(?P<day>\d)_.*",
        "mask": "3D dynamic - BW corrected/{n}_day{day}_10x_cBW_18D",
        "role": "test",
    },
)
MASK = disks((30, 40, 12))


def find(*roots, **changes):
    given = {
        "channels": ["brightfield"],
        "labels": {"spheroid": 1},
        "patient_pattern": r"(?:.*/)?(?P<group>.+?)(?:_\d+)?",
        "pairs": PLAIN,
        "manifest": None,
        "exclude": [],
        "confirmed_empty": [],
        "corrections": [],
    }
    return find_cases(list(roots), **{**given, **changes}).cases


@pytest.fixture
def root(tmp_path):
    for base in ("dECM_1_1", "dECM_1_2", "Matri_1_1"):
        write_image(tmp_path / f"images/{base}.tif", MASK)
        write_mask(tmp_path / f"masks/{base}_mask.tif", MASK)
    return tmp_path


def write_manifest(path, *rows):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(base="dECM_1_1", **changes):
    values = {"basename": base, "image_path": f"images/{base}.tif", "mask_path": f"masks/{base}_mask.tif"}
    return {**values, **changes}


def test_images_find_their_masks_and_groups(root):
    cases = find(root)
    assert [(case.case, case.patient, case.role) for case in cases] == [
        ("Matri_1_1", "Matri_1", "train"), ("dECM_1_1", "dECM_1", "train"), ("dECM_1_2", "dECM_1", "train"),
    ]  # fmt: skip
    assert all(case.label is not None and case.label.stem == f"{case.case}_mask" for case in cases)


def test_the_names_of_the_real_set_pair(shared_data):
    cases = find(shared_data / "spheroids", pairs=REAL, patient_pattern=r"(?P<group>.+/\d+)_day\d_.*")
    assert len(cases) == 18
    assert all(case.label is not None and not case.problems for case in cases)
    assert sum(case.role == "test" for case in cases) == 8
    masks = {case.name: case.label.name for case in cases}
    assert masks["6_day0_10x_CH1_8bit_18S"] == "6_BW_E18_static.tiff"
    assert masks["6_day2_10x_CH1_8bit_18S(2)"] == "6_BW2_E18_static.tiff"
    assert masks["9_day2_10x_CH1_8bit_18D(2)"] == "9_day2_10x_cBW_18D.tif"
    assert len({case.patient for case in cases}) == 9


def test_an_image_without_mask_has_none(root):
    (root / "masks/dECM_1_2_mask.tif").unlink()
    assert [case.label is None for case in find(root)] == [False, False, True]


def test_a_folder_of_images_alone_needs_no_pattern(tmp_path):
    for name in ("a.tif", "b.TIFF", "b_mask.tif", "a_pred_prob.tif", ".hidden.tif"):
        write_image(tmp_path / name, MASK)
    cases = find(tmp_path)
    assert [(case.case, case.label, case.role) for case in cases] == [("a", None, "test"), ("b", None, "test")]


def test_excluded_images_are_left_out_and_a_pattern_that_fits_nothing_is_an_error(root):
    assert [case.case for case in find(root, exclude=["dECM_1_*"])] == ["Matri_1_1"]
    with pytest.raises(CohortError, match="exclude: expected names of images, got 'dECN"):
        find(root, exclude=["dECN_*"])


def test_duplicate_basenames_are_problems_of_both(root, tmp_path):
    other = tmp_path / "other"
    write_image(other / "images/dECM_1_1.tif", MASK, seed=5)
    write_mask(other / "masks/dECM_1_1_mask.tif", MASK)
    twice = [case for case in find(root, other) if case.case == "dECM_1_1"]
    assert len(twice) == 2
    assert all("found 2 times" in case.problems[0] and "other" in case.problems[0] for case in twice)


@pytest.mark.parametrize("twin", ["images/dECM_1_1.tiff", "masks/dECM_1_1_mask.TIF"])
def test_two_files_that_differ_in_their_ending_only_are_refused(root, twin):
    write_image(root / twin, MASK, seed=5)
    with pytest.raises(CohortError, match=r"expected one TIFF file per name") as caught:
        find(root)
    assert str(root / twin) in str(caught.value)


def test_two_images_to_predict_that_differ_in_their_ending_only_are_refused(tmp_path):
    for name in ("a.tif", "a.tiff", "b.tif"):
        write_image(tmp_path / name, MASK)
    with pytest.raises(CohortError, match=r"a: .*a\.tif, .*a\.tiff"):
        find_images(tmp_path)


def test_two_corrected_masks_that_differ_in_their_ending_only_are_refused(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corrected")
    for name in ("dECM_1_1_mask.tif", "dECM_1_1_mask.tiff"):
        write_mask(folder / name, MASK)
    with pytest.raises(CohortError, match=r"one mask per image, got dECM_1_1_mask\.tif and dECM_1_1_mask\.tiff"):
        find(root, corrections=[folder])


def test_a_pattern_of_empty_images_that_fits_nothing_is_an_error(root):
    with pytest.raises(CohortError, match="confirmed_empty: expected names of images, got 'dECN"):
        find(root, confirmed_empty=["dECN_*"])


def test_a_mask_outside_of_the_root_is_refused(root):
    cases = find(root / "images", pairs=({"image": r"(?P<base>[^/]+)", "mask": "../masks/{base}_mask"},))
    assert all(case.label is None and "leads out of it" in case.problems[0] for case in cases)


def test_a_manifest_names_files_roles_and_notes(root):
    (root / "all.csv").unlink(missing_ok=True)
    table = write_manifest(
        root / "all.csv",
        row(date="2026-01-02", operator="A", notes="blurred", empty_confirmed="True"),
        row("Matri_1_1", role="test", group="plate 7", mask_path=""),
    )
    second, first = find(root, manifest=table)
    assert first.notes == {"date": "2026-01-02", "operator": "A", "notes": "blurred", "empty_confirmed": True}
    assert (second.role, second.patient, second.label) == ("test", "plate 7", None)


@pytest.mark.parametrize("written", ["../secret.tif", "/etc/passwd", "images/../../secret.tif"])
def test_a_manifest_path_outside_of_the_data_root_is_refused(root, written):
    write_image(root.parent / "secret.tif", MASK)
    for column in ("image_path", "mask_path"):
        [case] = find(root, manifest=write_manifest(root / "all.csv", row(**{column: written})))
        assert any("expected paths below the data root" in problem and written in problem for problem in case.problems)


def test_a_link_that_leads_out_of_the_root_is_refused(root, tmp_path_factory):
    outside = write_image(tmp_path_factory.mktemp("outside") / "secret.tif", MASK)
    (root / "images/link.tif").symlink_to(outside)
    [case] = find(root, manifest=write_manifest(root / "all.csv", row(image_path="images/link.tif")))
    assert "leads out of it" in case.problems[0]


def test_a_manifest_with_a_missing_file_or_column_says_so(root):
    [case] = find(root, manifest=write_manifest(root / "all.csv", row(image_path="images/gone.tif")))
    assert "found none at images/gone.tif" in case.problems[0]
    with pytest.raises(ManifestError, match="got no image_path"):
        find(root, manifest=write_manifest(root / "all.csv", {"basename": "a", "mask_path": "b"}))
    with pytest.raises(ManifestError, match="expected the role train or test, got 'tset'"):
        find(root, manifest=write_manifest(root / "all.csv", row(role="tset")))


HEADER = "basename,image_path,mask_path,empty_confirmed"
CELLS = "dECM_1_1,images/dECM_1_1.tif"


def test_a_manifest_of_a_spreadsheet_is_read(root):
    (root / "all.csv").write_text(f"{HEADER}\r\n{CELLS}\r\n", encoding="utf-8-sig")  # with a mark, cells left out
    [case] = find(root, manifest=root / "all.csv")
    assert (case.case, case.label, case.notes) == ("dECM_1_1", None, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}\n{CELLS},,,more\n", "line 2: expected 4 cells as in the header, got 5"),
        (f"{HEADER}\n{CELLS}\n ,images/a.tif\n", "line 3: expected basename, got nothing"),
        (f"{HEADER}\ndECM_1_1\n", "line 2: expected image_path, got nothing"),
        (f"{HEADER}\n{CELLS}\n".replace(",", ";"), "separated by semicolons"),
    ],
)
def test_rows_of_a_manifest_that_cannot_be_used_are_named(root, text, message):
    (root / "all.csv").write_text(text)
    with pytest.raises(ManifestError, match=message):
        find(root, manifest=root / "all.csv")


def test_corrected_masks_replace_others_and_the_manifest_remembers(root, tmp_path):
    corrected = write_mask(tmp_path / "corrected/dECM_1_1_mask.tif", np.zeros_like(MASK))
    case = next(case for case in find(root, corrections=[corrected.parent]) if case.case == "dECM_1_1")
    assert case.label == corrected
    assert case.notes["corrected_from"].endswith("masks/dECM_1_1_mask.tif")
    write_mask(tmp_path / "corrected/stranger_mask.tif", MASK)
    with pytest.raises(CohortError, match="got masks of stranger"):
        find(root, corrections=[corrected.parent])


def test_imported_corrections_come_with_who_and_when_and_must_be_unchanged(root, tmp_path):
    corrected = write_mask(tmp_path / "corrected/dECM_1_1_mask.tif", MASK)
    entry = {
        "name": "dECM_1_1",
        "sha256": sha256_of(corrected),
        "reviewer": "ada",
        "imported_at": "now",
        "from_run": "f",
    }
    write_json(corrected.parent / "corrections.json", {"masks": [entry]})
    case = next(case for case in find(root, corrections=[corrected.parent]) if case.case == "dECM_1_1")
    assert {name: case.notes[name] for name in ("corrected_by", "corrected_at", "corrected_run")} == {
        "corrected_by": "ada",
        "corrected_at": "now",
        "corrected_run": "f",
    }
    write_mask(corrected, np.zeros_like(MASK))
    with pytest.raises(CohortError, match=r"find_cases\.corrections: .*(.|\n)*dECM_1_1_mask\.tif has changed"):
        find(root, corrections=[corrected.parent])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": ({"image": "("},)}, "expected image, mask"),
        ({"pairs": ({"image": "(", "mask": "a"},)}, "expected a regular expression"),
        ({"pairs": ({"image": "(?P<a>.*)", "mask": "{b}"},)}, "got ..b.."),
        ({"pairs": ({"image": ".*", "mask": "a", "role": "trian"},)}, "expected train or test"),
        ({"patient_pattern": "(?P<patient>.*)"}, "expected a group"),
    ],
)
def test_wrong_patterns_are_named(root, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        find(root, **changes)


def test_an_image_without_group_is_a_problem(root):
    cases = find(root, patient_pattern="(?P<group>plate\\d+)_.*")
    assert all("finds no group" in case.problems[0] for case in cases)

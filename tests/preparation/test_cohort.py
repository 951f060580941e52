"""A whole cohort: everything is judged, listed and written; nothing leaks; repeating is cheap."""

import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medexp.errors import CohortError, ConfigurationError, LeakageError, ManifestError
from medexp.io.nifti import read_volume
from medexp.io.prepared import to_native
from medexp.preparation.cohort import prepare_cohort, prepare_unseen
from medexp.preparation.decathlon import find_cases as find_decathlon
from medexp.preparation.mock_hippocampus import write_mock as write_hippocampus
from tests.synthetic.brats import CHANNELS, change, copy_case, make_brats, path_of, settings_for
from tests.synthetic.corrupt_nifti import CORPUS

FIRST, SECOND, THIRD = "BraTS-GLI-00001-100", "BraTS-GLI-00002-100", "BraTS-GLI-00003-100"


@pytest.fixture
def root(tmp_path):
    return make_brats(tmp_path / "raw")


@pytest.fixture
def prepare(root, tmp_path):
    def run(*, folder="run", skip_bad_cases=False, **changes):
        settings = settings_for(root, **changes)
        return prepare_cohort(
            settings,
            folder=tmp_path / folder,
            store=tmp_path / "store",
            skip_bad_cases=skip_bad_cases,
            num_workers=1,
        )

    return run


def manifest_of(tmp_path, folder="run"):
    return json.loads((tmp_path / folder / "manifest.json").read_text())


def test_a_cohort_is_prepared_with_all_its_records(prepare, tmp_path):
    cohort = prepare()
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "manifest.json", "splits_final.json", "fingerprint.json", "plan.json", "qc.json", "qc.csv", "qc.html",
    }  # fmt: skip
    assert [case.case for case in cohort.cases] == [FIRST, "BraTS-GLI-00001-101", SECOND, THIRD]
    assert cohort.channels == CHANNELS
    assert len(cohort.splits) == 2
    case = cohort.case(FIRST)
    assert case.image().shape == (4, *case.shape)
    assert case.label().shape == case.shape


def test_every_label_comes_back_exactly(prepare):
    for case in prepare().cases:
        native = read_volume(case.label_path).array
        assert (to_native(np.asarray(case.label()), case.grid) == native).all()


def test_an_empty_label_and_a_missing_et_are_told(prepare, tmp_path):
    prepare()
    cases = {case["case"]: case for case in manifest_of(tmp_path)["cases"]}
    assert cases[THIRD]["warnings"] == ["the label is empty"]
    assert cases[SECOND]["label_voxels"]["ET"] == 0
    assert cases[FIRST]["label_voxels"]["ET"] > 0


def test_repeating_reuses_every_entry_and_gives_the_same_records(prepare, tmp_path, caplog):
    first = prepare()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        second = prepare(folder="again")
    assert "stored" not in caplog.text
    assert second.digest == first.digest
    for name in ("manifest.json", "splits_final.json", "fingerprint.json", "plan.json", "qc.html"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_digest_does_not_depend_on_where_the_files_are(prepare, root, tmp_path):
    first = prepare()
    (root / FIRST).rename(tmp_path / FIRST)
    (root / "deeper").mkdir()
    (tmp_path / FIRST).rename(root / "deeper" / FIRST)
    assert prepare(folder="again").digest == first.digest


def test_the_digest_changes_with_one_voxel(prepare, root):
    first = prepare()

    def edit(array, affine):
        array[12, 14, 12] += 50
        return array, affine

    change(path_of(root, FIRST, "t1n"), edit)
    assert prepare(folder="again").digest != first.digest


def spoil_three(root):
    path_of(root, FIRST, "t2f").unlink()
    path_of(root, SECOND, "t1n").write_bytes(b"")
    change(path_of(root, SECOND, "seg"), lambda array, affine: (array + np.uint8(7), affine))
    path_of(root, "BraTS-GLI-00001-101", "seg").unlink()


def test_all_bad_cases_are_listed_with_all_reasons_and_the_way_on(prepare, root):
    spoil_three(root)
    with pytest.raises(CohortError) as caught:
        prepare()
    message = str(caught.value)
    assert "expected 4 usable cases, but 3 cannot be used" in message
    for words in ("-t2f.nii.gz, found none", "t1n.nii.gz: expected", "got [7, 8", "a training case needs one"):
        assert words in message
    assert "prepare.skip_bad_cases=true" in message


def test_bad_cases_stop_the_run_but_the_good_ones_are_stored_and_the_report_is_there(prepare, root, tmp_path):
    spoil_three(root)
    with pytest.raises(CohortError):
        prepare()
    assert len(list((tmp_path / "store").rglob("case.json"))) == 1
    assert not (tmp_path / "run" / "manifest.json").exists()
    rows = json.loads((tmp_path / "run" / "qc.json").read_text())["cases"]
    assert [row["status"] for row in rows] == ["left out", "left out", "left out", "warning"]


def test_bad_cases_can_be_left_out_on_request(prepare, root, tmp_path):
    path_of(root, FIRST, "t2f").unlink()
    cohort = prepare(skip_bad_cases=True)
    assert FIRST not in [case.case for case in cohort.cases]
    (excluded,) = manifest_of(tmp_path)["excluded"]
    assert excluded["case"] == FIRST
    assert "t2f" in excluded["reasons"][0]
    assert FIRST in (tmp_path / "run" / "qc.html").read_text()


def test_a_cohort_of_bad_cases_only_cannot_be_left_out(prepare, root):
    for path in root.rglob("*-t1c.nii.gz"):
        path.write_bytes(b"")
    with pytest.raises(CohortError, match="none of 4 cases is a usable one"):
        prepare(skip_bad_cases=True)


def test_a_folder_without_cases_names_the_key(prepare, root):
    for folder in root.iterdir():
        if folder.is_dir():
            for file in folder.iterdir():
                file.rename(root / f".{file.name}")
            folder.rmdir()
    with pytest.raises(CohortError, match=r"dataset\.roots"):
        prepare()


def test_too_many_folds_name_the_key(prepare):
    with pytest.raises(ConfigurationError, match=r"dataset\.num_folds: expected at least 2 and at most 3"):
        prepare(num_folds=4)


def test_the_same_voxels_under_another_patient_are_leakage(prepare, root):
    copy_case(root, FIRST, "BraTS-GLI-00042-100")
    with pytest.raises(LeakageError, match=f"{FIRST} and BraTS-GLI-00042-100 hold the same voxels"):
        prepare()


def test_one_image_of_another_patient_is_leakage(prepare, root):
    path_of(root, SECOND, "t2w").write_bytes(path_of(root, THIRD, "t2w").read_bytes())
    with pytest.raises(LeakageError, match=f"{SECOND} and {THIRD} hold the same voxels"):
        prepare()


def test_the_label_of_another_patient_is_a_warning(prepare, root, tmp_path):
    path_of(root, SECOND, "seg").write_bytes(path_of(root, FIRST, "seg").read_bytes())
    prepare()
    cases = {case["case"]: case for case in manifest_of(tmp_path)["cases"]}
    assert any(FIRST in warning for warning in cases[SECOND]["warnings"])


def test_a_patient_with_training_and_test_cases_is_leakage(prepare, root, tmp_path):
    (tmp_path / "test").mkdir()
    (root / "BraTS-GLI-00001-101").rename(tmp_path / "test" / "BraTS-GLI-00001-101")
    with pytest.raises(LeakageError, match="are of patient BraTS-GLI-00001"):
        prepare(test_roots=(tmp_path / "test",))


def test_the_voxels_of_a_test_case_in_training_are_leakage(prepare, root, tmp_path):
    copy_case(root, FIRST, "BraTS-GLI-00050-100", to=tmp_path / "test")
    with pytest.raises(LeakageError, match="test cases"):
        prepare(test_roots=(tmp_path / "test",))


def test_test_cases_are_set_aside_and_need_no_label(prepare, root, tmp_path):
    make_brats(tmp_path / "test", num_patients=1, seed=5)
    for folder in list((tmp_path / "test").iterdir()):
        if folder.is_dir():
            name = folder.name.replace("00001", "00088")
            copy_case(tmp_path / "test", folder.name, name)
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    path_of(tmp_path / "test", "BraTS-GLI-00088-100", "seg").unlink()
    cohort = prepare(test_roots=(tmp_path / "test",))
    assert [case.has_label for case in cohort.test_cases] == [False, True]
    assert not {case for fold in cohort.splits for side in fold for case in side} & {
        case.case for case in cohort.test_cases
    }
    assert cohort.fingerprint["num_cases"] == 4
    with pytest.raises(CohortError, match=r"dataset\.require_test_labels"):
        prepare(test_roots=(tmp_path / "test",), require_test_labels=True)


def test_an_existing_split_file_is_used(prepare, tmp_path):
    splits = [{"train": [FIRST, "BraTS-GLI-00001-101", THIRD], "val": [SECOND]}]
    (tmp_path / "mine.json").write_text(json.dumps(splits))
    cohort = prepare(splits_file=tmp_path / "mine.json")
    assert cohort.splits == ((tuple(splits[0]["train"]), (SECOND,)),)


def test_a_split_file_with_a_patient_on_both_sides_is_leakage(prepare, tmp_path):
    splits = [{"train": [FIRST, SECOND], "val": ["BraTS-GLI-00001-101", THIRD]}]
    (tmp_path / "mine.json").write_text(json.dumps(splits))
    with pytest.raises(LeakageError, match=f"{FIRST} and BraTS-GLI-00001-101"):
        prepare(splits_file=tmp_path / "mine.json")


def test_a_split_file_with_unknown_cases_is_refused(prepare, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps([{"train": [FIRST], "val": ["stranger"]}]))
    with pytest.raises(ManifestError, match="stranger"):
        prepare(splits_file=tmp_path / "mine.json")


def test_the_median_spacing_is_the_cohorts_and_others_are_resampled(prepare, root):
    def coarse(array, affine):
        return array, affine @ np.diag([1.0, 1.0, 2.0, 1.0])

    for kind in (*CHANNELS, "seg"):
        change(path_of(root, THIRD, kind), coarse)
    cohort = prepare()
    assert cohort.plan.spacing_mm == (1.0, 1.0, 1.0)
    case = cohort.case(THIRD)
    assert case.shape[2] == pytest.approx(2 * (case.grid.box[2][1] - case.grid.box[2][0]), abs=1)


def test_a_configured_spacing_and_patch_are_kept(prepare):
    cohort = prepare(spacing_mm=(2.0, 2.0, 2.0), patch_size=(16, 16, 8))
    assert cohort.plan.spacing_mm == (2.0, 2.0, 2.0)
    assert cohort.plan.patch_size == (16, 16, 8)
    assert max(max(case.shape) for case in cohort.cases) <= 14


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.0, 1.0, 1.0), (float("inf"), 1.0, 1.0)])
def test_an_impossible_spacing_names_the_key(prepare, spacing):
    with pytest.raises(ConfigurationError, match=r"dataset\.spacing_mm"):
        prepare(spacing_mm=spacing)


def test_a_bad_case_does_not_set_the_spacing(prepare, root):
    def fine(array, affine):
        return array, affine @ np.diag([0.5, 0.5, 0.5, 1.0])

    for case in (FIRST, "BraTS-GLI-00001-101"):
        for kind in (*CHANNELS, "seg"):
            change(path_of(root, case, kind), fine)
        change(path_of(root, case, "seg"), lambda array, affine: (array + np.uint8(9), affine))
    cohort = prepare(skip_bad_cases=True)
    assert [case.case for case in cohort.cases] == [SECOND, THIRD]
    assert cohort.plan.spacing_mm == (1.0, 1.0, 1.0)  # 0.75 with the bad ones


def test_two_processes_give_what_one_gives(root, tmp_path, monkeypatch):
    monkeypatch.setattr("medexp.preparation.workers._WORTHWHILE_SECONDS", 0.0)
    digests = [
        prepare_cohort(
            settings_for(root), folder=tmp_path / f"run{workers}", store=tmp_path / f"s{workers}", num_workers=workers
        ).digest
        for workers in (1, 2)
    ]
    assert digests[0] == digests[1]


def test_a_killed_run_is_completed_by_the_next(root, tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from medexp.preparation.cohort import prepare_cohort\n"
        "from tests.synthetic.brats import settings_for\n"
        "root, folder = map(Path, sys.argv[1:])\n"
        "prepare_cohort(settings_for(root), folder=folder / 'run', store=folder / 'store', num_workers=1)\n"
    )
    job = subprocess.Popen([sys.executable, "-c", code, str(root), str(tmp_path)])
    while job.poll() is None and not list(tmp_path.glob("store/??/[0-9a-f]*/case.json")):
        time.sleep(0.001)
    job.kill()
    job.wait()
    done = set(tmp_path.glob("store/??/[0-9a-f]*/case.json"))
    assert done
    times = {path: path.stat().st_mtime_ns for path in done}
    settings = settings_for(root)
    again = prepare_cohort(settings, folder=tmp_path / "run", store=tmp_path / "store", num_workers=1)
    whole = prepare_cohort(settings, folder=tmp_path / "other", store=tmp_path / "fresh", num_workers=1)
    assert again.digest == whole.digest
    assert {path: path.stat().st_mtime_ns for path in done} == times


def test_the_folds_ignore_the_order_of_the_directory(prepare, root, monkeypatch):
    first = prepare().splits
    real = os.scandir

    class Backwards(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", lambda path: Backwards(reversed(list(real(path)))))
    assert prepare(folder="again").splits == first


def test_unseen_cases_are_stored_as_the_cohort_was(prepare, tmp_path):
    cohort = prepare()
    unseen = make_brats(tmp_path / "unseen", num_patients=1, seed=3)
    path_of(unseen, FIRST, "seg").unlink()
    first, second = prepare_unseen(unseen, settings_for(tmp_path), prepared=cohort, num_workers=1)
    assert first.image().dtype == np.float16
    assert not first.has_label
    assert second.has_label
    assert first.grid.shape == (24, 28, 24)


def test_unseen_cases_that_cannot_be_used_are_all_listed(prepare, tmp_path):
    cohort = prepare()
    unseen = make_brats(tmp_path / "unseen", num_patients=1, seed=3)
    for case in (FIRST, "BraTS-GLI-00001-101"):
        path_of(unseen, case, "t1c").write_bytes(b"")
    with pytest.raises(CohortError, match=r"(?s)2 cannot be used.*00001-100.*00001-101"):
        prepare_unseen(unseen, settings_for(tmp_path), prepared=cohort, num_workers=1)


def test_each_case_is_normalized_by_itself_whatever_its_scale(tmp_path):
    write_hippocampus(tmp_path / "raw", num_patients=4, shape=(18, 20, 18), seed=0)
    settings = settings_for(
        tmp_path / "raw",
        find_cases=find_decathlon,
        channels=("T1",),
        labels={"anterior": 1, "posterior": 2},
        patient_pattern="(?P<patient>.+)",
        normalization="zscore",
    )
    cohort = prepare_cohort(settings, folder=tmp_path / "run", store=tmp_path / "store", num_workers=1)
    for case in cohort.cases:
        values = np.asarray(case.image(), np.float64)
        assert abs(values.mean()) < 1e-2
        assert values.std() == pytest.approx(1.0, abs=1e-2)


def test_ct_statistics_come_from_the_folds_training_cases_only(root, tmp_path):
    settings = settings_for(root, channels=("t1n",), normalization="auto")

    def as_ct(*args, **kwargs):
        raw = settings_for(root).find_cases(*args, **{**kwargs, "channels": ("t1n",)})
        cases = [replace(case, images={"CT": case.images["t1n"]}) for case in raw.cases]
        return replace(raw, cases=tuple(cases), channels=("CT",))

    settings = replace(settings, find_cases=as_ct)
    cohort = prepare_cohort(settings, folder=tmp_path / "run", store=tmp_path / "store", num_workers=1)
    assert cohort.cases[0].image().dtype == np.int16
    for fold in (0, 1):
        train, _ = cohort.fold(fold)
        values = np.concatenate([np.load(case.folder / "intensities.npy")[0] for case in train])
        statistics = cohort.channel_statistics(fold)
        assert statistics.mean == pytest.approx((values.mean(),), rel=1e-5)
        assert statistics.lower == pytest.approx((np.percentile(values, 0.5),))
    assert cohort.channel_statistics(0) != cohort.channel_statistics(1)


def test_one_run_names_every_corrupt_file_and_stays_small(root, tmp_path):
    """T21: a copy of a good case per kind of damage, in its own process to see what it needs."""
    for number, (spoil, _) in enumerate(CORPUS.values()):
        name = f"BraTS-GLI-{number + 100:05d}-100"
        copy_case(root, FIRST, name)
        spoil(path_of(root, name, "t1c"))
    code = (
        "import resource, sys, time\n"
        "from pathlib import Path\n"
        "from medexp.errors import CohortError\n"
        "from medexp.preparation.cohort import prepare_cohort\n"
        "from tests.synthetic.brats import settings_for\n"
        "root, folder = map(Path, sys.argv[1:])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "started = time.perf_counter()\n"
        "try:\n"
        "    prepare_cohort(settings_for(root), folder=folder / 'run', store=folder / 'store', num_workers=1)\n"
        "except CohortError as error:\n"
        "    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "    print(grown // 1024, time.perf_counter() - started)\n"
        "    print(error)\n"
        "    sys.exit(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    grown_mb, seconds = map(float, done.stdout.splitlines()[0].split())
    assert grown_mb < 200
    assert seconds < 10 * len(CORPUS)
    for number, (kind, (_, words)) in enumerate(CORPUS.items()):
        name = f"BraTS-GLI-{number + 100:05d}-100"
        words = "found none" if kind == "folder" else words  # the search tells files from folders
        reason = done.stdout.split(f"\n  {name}\n")[1].split("\n  BraTS")[0]
        assert words in reason, (name, reason)
    assert f"\n  {FIRST}\n" not in done.stdout
    assert len(list((tmp_path / "store").rglob("case.json"))) == 4


def _share_of_the_box(case: Path) -> float:
    """Measure, from the raw files alone, how much of a case lies in the box of what is not 0."""
    occupied = sum(np.asarray(nib.load(path).dataobj) != 0 for path in case.glob("*.nii.gz") if "seg" not in path.name)
    sides = [np.flatnonzero(occupied.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return float(np.prod([side[-1] - side[0] + 1 for side in sides]) / occupied.size)


def test_auto_masks_as_nnunet_does_by_what_cropping_leaves(prepare, root, tmp_path):
    cases = [path for path in root.iterdir() if path.is_dir()]
    assert np.median([_share_of_the_box(case) for case in cases]) < 0.75
    prepare(folder="masked", normalization="auto")
    assert set(manifest_of(tmp_path, "masked")["channel_normalization"]) == {"zscore_nonzero"}
    for path in root.rglob("*t1c.nii.gz"):  # now the corners are not 0, and nothing is cropped
        image = nib.load(path)
        array = np.asarray(image.dataobj).copy()
        array[0, 0, 0] = array[-1, -1, -1] = 1
        nib.save(nib.Nifti1Image(array, image.affine, image.header), path)
    assert np.median([_share_of_the_box(case) for case in cases]) == 1.0
    prepare(folder="whole", normalization="auto")
    assert set(manifest_of(tmp_path, "whole")["channel_normalization"]) == {"zscore"}

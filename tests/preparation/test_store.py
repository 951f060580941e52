"""The store: never stale, never half, rebuilt where damaged."""

import logging
import multiprocessing
import os
import time
from dataclasses import replace

import numpy as np
import pytest

from medexp.errors import ManifestError, StorageError
from medexp.io import nifti
from medexp.io.prepared import StoredCase, entry_folder
from medexp.preparation.entry import Transform
from medexp.preparation.entry_code import code_version
from medexp.preparation.manifest import case_record
from medexp.preparation.store import Rebuilder, remove_leftovers, store_case
from tests.synthetic.brats import CHANNELS, LABELS, change, make_brats, path_of, settings_for

CASE = "BraTS-GLI-00001-100"
TRANSFORM = Transform(CHANNELS, LABELS, ("zscore_nonzero",) * 4, (1.0, 1.0, 1.0))


@pytest.fixture
def raw(tmp_path):
    root = make_brats(tmp_path / "raw", num_patients=1)
    settings = settings_for(root)
    return settings.find_cases(
        [root], channels=CHANNELS, labels=LABELS, patient_pattern=settings.patient_pattern
    ).cases[0]


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def brighten(array, affine):
    array[tuple(np.argwhere(array)[0])] += 1
    return array, affine


def test_an_entry_is_made_once_and_found_again(raw, store):
    first, second = store_case(raw, TRANSFORM, store), store_case(raw, TRANSFORM, store)
    assert not first.reused
    assert second.reused
    assert second.key == first.key
    assert dict(second.facts) == dict(first.facts)
    assert dict(second.sizes) == dict(first.sizes)


def test_the_entry_holds_these_files(raw, store):
    outcome = store_case(raw, TRANSFORM, store)
    names = {"image.npy", "label.npy", "foreground.npy", "intensities.npy", "picture.png", "case.json"}
    assert set(files_of(entry_folder(store, outcome.key))) == names
    assert [path for path in store.rglob("*") if path.name.startswith(".")] == []


@pytest.mark.parametrize("kind", ["t1c", "seg"])
def test_one_changed_voxel_makes_another_entry(raw, store, kind):
    before = store_case(raw, TRANSFORM, store).key
    change(raw.label if kind == "seg" else raw.images[kind], brighten if kind != "seg" else lambda a, m: (a * 0, m))
    after = store_case(raw, TRANSFORM, store)
    assert not after.reused
    assert after.key != before


@pytest.mark.parametrize(
    "changes",
    [
        {"schemes": ("zscore",) * 4},
        {"spacing_mm": (1.0, 1.0, 2.0)},
        {"channels": CHANNELS[::-1]},
        {"labels": {"ET": 1, "NETC": 2, "SNFH": 3, "RC": 4}},
    ],
)
def test_another_transform_makes_another_entry(raw, store, changes):
    before = store_case(raw, TRANSFORM, store).key
    assert store_case(raw, replace(TRANSFORM, **changes), store).key != before


def test_another_library_version_makes_another_entry(raw, store, monkeypatch):
    before = store_case(raw, TRANSFORM, store).key
    monkeypatch.setattr(nifti, "reader_versions", lambda: {"numpy": "99"})
    code_version.cache_clear()
    try:
        assert store_case(raw, TRANSFORM, store).key != before
    finally:
        code_version.cache_clear()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "foreground.npy", "intensities.npy", "case.json"])
@pytest.mark.parametrize("damage", [truncate, flip_bit, lambda path: path.unlink()], ids=["cut", "bit", "gone"])
def test_a_damaged_entry_is_made_anew_with_a_warning(raw, store, name, damage, caplog):
    first = store_case(raw, TRANSFORM, store)
    folder = entry_folder(store, first.key)
    before = files_of(folder)
    damage(folder / name)
    with caplog.at_level(logging.WARNING):
        again = store_case(raw, TRANSFORM, store)
    assert not again.reused
    assert "damaged" in again.warnings[0]
    assert CASE in caplog.text
    assert files_of(folder) == before


def test_bad_cases_have_reasons_and_no_entry(raw, store):
    raw.images["t2w"].write_bytes(b"")
    outcome = store_case(raw, TRANSFORM, store)
    assert outcome.key is None
    assert "empty file" in outcome.reasons[0]
    assert not list(store.rglob("*.npy"))


def test_problems_of_the_search_and_of_the_files_come_together(raw, store):
    raw.images["t2w"].write_bytes(b"")
    outcome = store_case(replace(raw, problems=("no patient",)), TRANSFORM, store)
    assert outcome.reasons[0] == "no patient"
    assert "t2w" in outcome.reasons[1]


def test_a_store_that_cannot_be_written_says_so(raw, tmp_path):
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StorageError, match="store"):
        store_case(raw, TRANSFORM, tmp_path / "store")


def test_a_full_disk_leaves_no_entry_and_the_next_run_completes(raw, store, monkeypatch):
    real = np.save

    def full(stream, array, **options):
        if "label" in str(stream.name):
            raise OSError(28, "No space left on device")
        real(stream, array, **options)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(StorageError, match="No space left"):
        store_case(raw, TRANSFORM, store)
    assert [path for path in store.rglob("*") if path.is_file()] == []
    monkeypatch.undo()
    assert store_case(raw, TRANSFORM, store).key is not None


def test_leftovers_of_killed_writers_go_after_a_day(store):
    for name, age in ((".making-old", 90_000), (".damaged-old", 90_000), (".making-new", 10)):
        folder = store / "ab" / name
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age,) * 2)
    remove_leftovers(store)
    assert [path.name for path in (store / "ab").iterdir()] == [".making-new"]


def _store(arguments):
    return store_case(*arguments).key


def test_two_writers_make_one_intact_entry(raw, store):
    with multiprocessing.get_context("forkserver").Pool(2) as pool:
        keys = pool.map(_store, [(raw, TRANSFORM, store)] * 4)
    assert len(set(keys)) == 1
    assert store_case(raw, TRANSFORM, store).reused
    assert len(list(store.rglob("case.json"))) == 1
    assert [path for path in store.rglob("*") if path.name.startswith(".")] == []


def stored(raw, store):
    outcome = store_case(raw, TRANSFORM, store)
    return StoredCase.of(case_record(outcome), store, Rebuilder(TRANSFORM))


def test_reading_a_damaged_array_rebuilds_it_with_a_warning(raw, store, caplog):
    case = stored(raw, store)
    expected = np.array(case.image())
    (case.folder / "image.npy").write_bytes(b"gone")
    with caplog.at_level(logging.WARNING):
        assert (case.image() == expected).all()
    assert "rebuilt" in caplog.text


def test_a_lost_entry_is_rebuilt_on_reading(raw, store):
    case = stored(raw, store)
    expected = np.array(case.label())
    for path in case.folder.iterdir():
        path.unlink()
    case.folder.rmdir()
    assert (case.label() == expected).all()


def test_changed_raw_files_are_not_passed_off_as_the_prepared_ones(raw, store):
    case = stored(raw, store)
    change(path_of(raw.label.parent.parent, CASE, "t1c"), brighten)
    (case.folder / "image.npy").unlink()
    with pytest.raises(ManifestError, match=r"BraTS-GLI-00001-100.*changed.*stage=prepare"):
        case.image()


def test_the_store_is_the_same_from_every_orientation_of_the_file(raw, store):
    import nibabel as nib

    before = store_case(raw, TRANSFORM, store)
    for path in (*raw.images.values(), raw.label):
        image = nib.load(path)
        turned = nib.as_closest_canonical(image).as_reoriented(nib.orientations.axcodes2ornt("PIR"))
        array, affine = np.asanyarray(turned.dataobj).copy(), turned.affine
        changed = nib.Nifti1Image(array, affine)
        nib.save(changed, path)
    after = store_case(raw, TRANSFORM, store)
    assert after.facts["voxel_sha256"] == before.facts["voxel_sha256"]
    assert after.facts["label_sha256"] == before.facts["label_sha256"]

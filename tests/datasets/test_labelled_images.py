import hashlib
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from medexp.datasets.labelled_images import LabelledImages
from medexp.errors import ConfigurationError, ManifestError, UnknownOptionError
from medexp.keys import CASE, IMAGE, LABEL
from medexp.preparation.mock_spheroids import write_mock
from medexp.preparation.paired_images import find_cases
from medexp.transforms.augmentation import Augmentation

PAIRS = ({"image": r"images/(?P<base>[^/]+)", "mask": "masks/{base}_mask"},)
PLAIN = Augmentation(flip_axes=[])
TURNED = Augmentation(
    flip_axes=[0, 1], quarter_turn_probability=0.5, shift_probability=0.5, shift=[-0.1, 0.1],
    contrast_probability=0.5, contrast=[0.9, 1.1],
)  # fmt: skip


def make(root, **changes) -> LabelledImages:
    values = {
        "name": "wells",
        "find_cases": partial(find_cases, pairs=PAIRS, manifest=None, exclude=(), confirmed_empty=(), corrections=()),
        "write_mock": partial(write_mock, shape=[160, 192], objects_per_image=4),
        "roots": [root],
        "test_roots": [],
        "group_pattern": r"(?:.*/)?(?P<group>.+?)(?:_\d+)?",
        "channels": ["brightfield"],
        "labels": {"spheroid": 1},
        "regions": {},
        "label_weights": {},
        "lesions": None,
        "gray": "mean",
        "normalization": "type_range",
        "pixel_size_um": None,
        "min_object_px": 100,
        "split": "leave_one_out",
        "holdout_shares": [0.6, 0.2, 0.2],
        "coverage_edges": [0.0, 0.01, 0.1, 0.5, 1.0],
        "num_folds": None,
        "split_seed": 42,
        "splits_file": None,
        "patch_size": [64, 64],
        "batch_size": 3,
        "steps_per_epoch": None,
        "patches_per_image": 5,
        "foreground_fraction": 0.7,
        "jitter": 0.25,
        "negative_coverage": 0.05,
        "negative_tries": 50,
        "augmentation": TURNED,
    }
    return LabelledImages(**{**values, **changes})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    make(folder / "raw").write_mock_cohort(folder / "raw", num_patients=4, shape=None, seed=0)
    make(folder / "raw").cohort().prepare(folder=folder / "prepare", store=folder / "store", num_workers=1)
    return folder


def opened(place, *, fold=0, num_workers=0, seed=0, **changes):
    data = make(place / "raw", **changes)
    data.open(place / "prepare", fold=fold, num_workers=num_workers, seed=seed)
    return data


def digests(loader):
    found = []
    for batch in loader:
        content = hashlib.sha256(batch[IMAGE].numpy().tobytes() + batch[LABEL].numpy().tobytes())
        found.append((content.hexdigest(), tuple(batch[CASE])))
    return found


def test_batches_are_what_the_keys_say(place):
    loader = opened(place).train_dataloader()
    batches = list(loader)
    assert len(batches) == 4  # two images of the other plate, five patches each, three in a batch
    assert batches[0][IMAGE].shape == (3, 1, 64, 64)
    assert batches[0][IMAGE].dtype == torch.float32
    assert batches[0][LABEL].shape == (3, 64, 64)
    assert set(torch.cat([batch[LABEL].flatten() for batch in batches]).tolist()) == {0, 1}


def test_every_image_gives_as_many_patches_as_were_asked_for(place):
    data = opened(place)
    cases = [case for batch in data.train_dataloader() for case in batch[CASE]]
    train = {case.case for case in data._opened.train}
    assert {case: cases.count(case) for case in train} == dict.fromkeys(train, 5)


def test_workers_do_not_change_a_batch_and_a_seed_does(place):
    alone = digests(opened(place).train_dataloader())
    two = opened(place, num_workers=2).train_dataloader()
    assert digests(two) == alone
    two.close()
    assert digests(opened(place, seed=1).train_dataloader()) != alone


def test_epochs_differ_and_come_back(place):
    loader = opened(place).train_dataloader()
    first, second = digests(loader), digests(loader)
    assert first != second
    loader.batch_sampler.sampler.set_epoch(0)
    assert digests(loader) == first


def test_image_and_label_move_together(place):
    """What is dark is object: whatever was turned and mirrored."""
    moved = Augmentation(flip_axes=[0, 1], quarter_turn_probability=1.0)
    for batch in opened(place, augmentation=moved).train_dataloader():
        for image, label in zip(batch[IMAGE][:, 0], batch[LABEL], strict=True):
            if 0 < label.sum() < label.numel():
                assert image[label == 1].mean() < 0.8 * image[label == 0].mean()


def test_quarter_turns_are_exact(place):
    plain = opened(place, augmentation=PLAIN, foreground_fraction=1.0).train_dataloader()
    turned = opened(
        place, augmentation=Augmentation(flip_axes=[], quarter_turn_probability=1.0), foreground_fraction=1.0
    ).train_dataloader()
    for ours, theirs in zip(plain, turned, strict=True):
        for image, label, other, mask in zip(ours[IMAGE], ours[LABEL], theirs[IMAGE], theirs[LABEL], strict=True):
            [turns] = [turns for turns in (1, 2, 3) if torch.equal(torch.rot90(image, turns, (1, 2)), other)]
            assert torch.equal(torch.rot90(label, turns, (0, 1)), mask)


def test_only_squares_can_be_turned(place):
    with pytest.raises(ConfigurationError, match="only squares can be turned"):
        list(opened(place, patch_size=[64, 96]).train_dataloader())


def test_validation_shows_whole_images_in_a_fixed_order(place):
    data = opened(place)
    batches = list(data.val_dataloader())
    assert [batch[CASE] for batch in batches] == [["dECM_1_1"], ["dECM_1_2"]]
    assert all(batch[IMAGE].shape == (1, 1, 160, 192) for batch in batches)
    assert torch.equal(batches[0][IMAGE], next(iter(data.val_dataloader()))[IMAGE])


def test_training_reads_patches_and_never_a_whole_image(place, monkeypatch):
    """Of each image no more is copied than the patches hold."""
    from medexp.datasets import reading

    data = opened(place, augmentation=PLAIN)
    copied = []
    copy = np.copyto
    monkeypatch.setattr(reading.np, "copyto", lambda to, source: copied.append(source.size) or copy(to, source))
    monkeypatch.setattr(data._opened.reader, "volume", lambda case: pytest.fail("a whole image was read"))
    list(data.train_dataloader())
    assert max(copied) <= 64 * 64


def test_few_files_stay_mapped(place):
    data = opened(place)
    reader = data._opened.reader
    reader.files.most = 2
    list(data.train_dataloader())
    assert len(reader.files) <= 2
    assert np.isfinite(reader.volume(data._opened.train[0]).numpy()).all()


def test_mistakes_are_named(place):
    with pytest.raises(ConfigurationError, match="dataset.patch_size: expected height and width"):
        make(place, patch_size=[64, 64, 64])
    with pytest.raises(ConfigurationError, match="dataset.pixel_size_um"):
        make(place, pixel_size_um=[1.3])
    with pytest.raises(ConfigurationError, match="dataset.regions"):
        make(place, regions={"all": ["spheroid"]})
    with pytest.raises(UnknownOptionError, match="dataset.label_weights"):
        make(place, label_weights={"spheroids": 2.0})
    with pytest.raises(ManifestError, match="expected an opened dataset"):
        make(place).train_dataloader()
    with pytest.raises(ConfigurationError, match="fold: expected 0 to 1, got 7"):
        opened(place, fold=7)


def test_images_are_trained_without_the_libraries_of_volumes():
    parts = "medexp.datasets.labelled_images, medexp.models.segmentation, medexp.stages.fit, medexp.stages.predict"
    check = "sorted({'monai', 'nibabel', 'segmentation_models_pytorch'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", f"import sys, {parts}; print({check})"], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"

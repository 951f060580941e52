import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medexp.datasets.labelled_volumes import LabelledVolumes
from medexp.errors import CohortError, ConfigurationError, ManifestError, UnknownOptionError
from medexp.keys import CASE, IMAGE, LABEL
from medexp.preparation import brats, mock_brats
from medexp.preparation.cohort import prepare_cohort
from medexp.transforms.augmentation import Augmentation

SETTINGS: dict[str, Any] = {
    "name": "synthetic",
    "find_cases": brats.find_cases,
    "write_mock": mock_brats.write_mock,
    "roots": ["nowhere"],
    "test_roots": [],
    "require_test_labels": False,
    "patient_pattern": r"(?P<patient>.+?)(-\d{3})?$",
    "channels": ["t1c", "t2f"],
    "labels": {"NETC": 1, "SNFH": 2},
    "regions": {"both": ["NETC", "SNFH"]},
    "label_weights": {"background": 0.5},
    "lesions": None,
    "normalization": "zscore_nonzero",
    "spacing_mm": None,
    "num_folds": 2,
    "split_seed": 1,
    "splits_file": None,
    "patch_size": None,
    "batch_size": 2,
    "steps_per_epoch": None,
    "foreground_fraction": 0.5,
    "augmentation": Augmentation(flip_axes=[]),
}


def make(**more: Any) -> LabelledVolumes:
    return LabelledVolumes(**{**SETTINGS, **more})


def opened(prepared: Path, *, fold: int = 0, **more: Any) -> LabelledVolumes:
    datamodule = make(**more)
    datamodule.open(prepared, fold=fold, seed=0, num_workers=0)
    return datamodule


def test_contract_says_what_configuration_and_cohort_agree_on(prepared: Path) -> None:
    contract = opened(prepared).contract
    assert contract.channels == ("t1c", "t2f")
    assert contract.labels == {"NETC": 1, "SNFH": 2}
    assert contract.region_values() == {"both": (1, 2)}
    assert contract.ordered_label_weights() == (0.5, 1.0, 1.0)
    assert contract.patch_size == contract.plan.patch_size == (16, 16, 16)


def test_null_channels_and_labels_are_the_cohorts(prepared: Path) -> None:
    contract = opened(prepared, channels=None, labels=None).contract
    assert contract.channels == ("t1c", "t2f")
    assert contract.labels == {"NETC": 1, "SNFH": 2}


def test_a_configured_patch_size_replaces_the_plans(prepared: Path) -> None:
    batch = next(iter(opened(prepared, patch_size=[8, 12, 10]).train_dataloader()))
    assert batch[IMAGE].shape == (2, 2, 8, 12, 10)


def test_channels_are_permuted_by_name(prepared: Path) -> None:
    straight, swapped = opened(prepared), opened(prepared, channels=["t2f", "t1c"])
    case = straight.cases("validation")[0]
    assert swapped.contract.channels == ("t2f", "t1c")
    assert torch.equal(swapped.volume(case), straight.volume(case).flip(0))
    first, second = (next(iter(datamodule.train_dataloader()))[IMAGE] for datamodule in (straight, swapped))
    assert torch.equal(first, second.flip(1))


@pytest.mark.parametrize("channels", [["t1c"], ["t1c", "t1n"], ["t1c", "t2f", "t2w"], ["t1c", "t1c"]])
def test_other_channels_than_the_cohorts_are_refused(prepared: Path, channels: list[str]) -> None:
    with pytest.raises(ManifestError, match=r"dataset\.channels: expected .*\['t1c', 't2f'\].*got"):
        opened(prepared, channels=channels)


@pytest.mark.parametrize("labels", [{"NETC": 1}, {"NETC": 2, "SNFH": 1}, {"ET": 1, "SNFH": 2}])
def test_other_labels_than_the_cohorts_are_refused(prepared: Path, labels: dict[str, int]) -> None:
    with pytest.raises(ManifestError, match=r"dataset\.labels: expected .*'SNFH': 2.*got"):
        opened(prepared, labels=labels, regions={})


def test_a_region_of_an_unknown_label_names_the_nearest() -> None:
    with pytest.raises(UnknownOptionError, match=r"dataset\.regions\.both: .*'NETCC'; did you mean 'NETC'"):
        make(regions={"both": ["NETCC"]})


def test_a_weight_of_an_unknown_label_names_the_nearest() -> None:
    with pytest.raises(UnknownOptionError, match=r"dataset\.label_weights: .*'backgrund'; did you mean 'background'"):
        make(label_weights={"backgrund": 1.0})


def test_names_are_checked_against_the_cohort_where_the_configuration_has_no_labels(prepared: Path) -> None:
    with pytest.raises(UnknownOptionError, match=r"dataset\.regions\.tumor: expected names of labels, got 'ET'"):
        opened(prepared, labels=None, regions={"tumor": ["ET"]})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0),
        ("steps_per_epoch", 0),
        ("foreground_fraction", 1.5),
        ("patch_size", [0, 8, 8]),
        ("patch_size", []),
        ("label_weights", {"NETC": -1.0}),
    ],
)
def test_values_out_of_range_are_refused_by_key(key: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"dataset\.{key}: expected"):
        make(**{key: value})


def test_a_patch_with_other_axes_than_the_cohort_is_refused(prepared: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"dataset\.patch_size: expected 3 sizes"):
        opened(prepared, patch_size=[8, 8])


def test_a_fold_out_of_range_names_the_key(prepared: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"fold: expected 0 to 1, got 2.*dataset\.num_folds"):
        opened(prepared, fold=2)


def test_an_empty_validation_set_is_an_error(tmp_path: Path, write_prepared: Callable[..., Path]) -> None:
    prepared = write_prepared(tmp_path)
    splits = prepared / "splits_final.json"
    splits.write_text('[{"train": ["case0", "case1"], "val": []}]')
    with pytest.raises(CohortError, match="expected labelled validation cases, got none"):
        opened(prepared)


def test_asking_before_opening_says_what_to_do() -> None:
    with pytest.raises(ManifestError, match="call open"):
        make().train_dataloader()


def test_training_and_validation_follow_the_fold(prepared: Path) -> None:
    for fold, (train, validation) in enumerate([("2345", "01"), ("01", "2345")]):
        datamodule = opened(prepared, fold=fold)
        seen = {name for batch in datamodule.train_dataloader() for name in batch[CASE]}
        assert seen == {f"case{number}" for number in train}
        assert [batch[CASE] for batch in datamodule.val_dataloader()] == [[f"case{number}"] for number in validation]


def test_steps_per_epoch_sets_the_length(prepared: Path) -> None:
    assert len(opened(prepared).train_dataloader()) == 2
    assert len(opened(prepared, steps_per_epoch=7).train_dataloader()) == 7


def test_test_cases_are_those_of_the_manifest(prepared: Path) -> None:
    assert [case.case for case in opened(prepared).cases("test")] == ["case6", "case7"]


def test_no_test_cases_is_an_error(tmp_path: Path, write_prepared: Callable[..., Path]) -> None:
    datamodule = opened(write_prepared(tmp_path, num_test=0))
    with pytest.raises(CohortError, match=r"predict\.source=test"):
        datamodule.cases("test")


def test_a_source_that_is_not_there_is_an_error(prepared: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"predict\.source: expected .*'valdation'"):
        opened(prepared).cases("valdation")


def test_references_are_the_raw_labels(prepared: Path) -> None:
    assert [case.label_path for case in opened(prepared).cases("validation")] == [
        Path("case0_label.nii.gz"),
        Path("case1_label.nii.gz"),
    ]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    make_brats(root).write_mock_cohort(root, num_patients=4, shape=(32, 36, 32), seed=0)
    return root


def make_brats(root: Path, **more: Any) -> LabelledVolumes:
    channels, labels = list(mock_brats.CHANNELS), dict(mock_brats.LABELS)
    return make(roots=[root], channels=channels, labels=labels, regions={"TC": ["NETC", "ET"]}, **more)


@pytest.fixture(scope="module")
def brats_prepared(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("brats")
    prepare_cohort(make_brats(raw).cohort(), folder=place / "prepare", store=place / "store", num_workers=1)
    return place / "prepare"


def test_mock_prepare_and_batches_fit_together(raw: Path, brats_prepared: Path) -> None:
    datamodule = make_brats(raw, patch_size=[16, 16, 16])
    datamodule.open(brats_prepared, fold=0, num_workers=0)
    batch = next(iter(datamodule.train_dataloader()))
    assert batch[IMAGE].shape == (2, 4, 16, 16, 16)
    assert torch.isfinite(batch[IMAGE]).all()
    assert set(np.unique(batch[LABEL])) <= {0, 1, 2, 3, 4}
    assert len(datamodule.val_dataloader()) > 0


def test_a_damaged_entry_is_rebuilt_with_a_warning(
    raw: Path, brats_prepared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    datamodule = make_brats(raw, patch_size=[16, 16, 16])
    datamodule.open(brats_prepared, fold=0, num_workers=0)
    case = datamodule.cases("validation")[0]
    before = datamodule.volume(case)
    damaged = case.folder / "image.npy"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(datamodule.volume(case), before)
    assert f"{case.case}: the store entry is damaged" in caplog.text


def test_a_folder_is_predicted_with_the_cohorts_preparation(raw: Path, brats_prepared: Path, tmp_path: Path) -> None:
    datamodule = make_brats(raw)
    datamodule.open(brats_prepared, fold=0, num_workers=0)
    known = datamodule.cases("validation")[0]
    (tmp_path / known.case).symlink_to(next(iter(known.image_paths.values())).parent)
    cases = datamodule.cases(str(tmp_path))
    assert [case.case for case in cases] == [known.case]
    assert torch.equal(datamodule.volume(cases[0]), datamodule.volume(known))

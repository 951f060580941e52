from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medexp.datasets.doses import PlannedDoses
from medexp.errors import CohortError, ConfigurationError, ManifestError, UnknownOptionError
from medexp.io.prepared import StoredCase
from medexp.keys import CASE, CONSTRAINTS, DOSE, IMAGE, POSSIBLE
from medexp.preparation.dose_grid import AsStored
from medexp.transforms.dose_augmentation import DoseAugmentation

STRUCTURES = ["PTV70", "Femur_L", "Femur_R"]
PLAIN = DoseAugmentation(
    flip_probability=0.0,
    translation_probability=0.0,
    translation_voxels=0,
    rotation_probability=0.0,
    rotation_deg=0.0,
    noise_probability=0.0,
    noise_deviation=0.0,
)


def nowhere(*_: Any, **__: Any) -> Any:
    raise AssertionError("a datamodule that is built or opened touches no raw file")


SETTINGS: dict[str, Any] = {
    "name": "synthetic",
    "find_cases": nowhere,
    "write_mock": nowhere,
    "roots": ["nowhere"],
    "test_roots": [],
    "patient_pattern": None,
    "format": "npz",
    "structures": STRUCTURES,
    "aliases": {},
    "required": ["PTV70"],
    "targets": {"PTV70": 70.0},
    "mirrored": [["Femur_L", "Femur_R"]],
    "grid": AsStored(),
    "dose_interpolation": "linear",
    "distance_clip_mm": 50.0,
    "prescription_gy": 70.0,
    "strict_validation": False,
    "split": "folds",
    "holdout_shares": [0.8, 0.1, 0.1],
    "num_folds": 2,
    "split_seed": 1,
    "splits_file": None,
    "patch_size": None,
    "batch_size": 2,
    "steps_per_epoch": None,
    "patches_per_case": 4,
    "high_dose_fraction": 0.5,
    "augmentation": PLAIN,
}


def make(**more: Any) -> PlannedDoses:
    return PlannedDoses(**{**SETTINGS, **more})


def opened(planned: Path, *, fold: int = 0, **more: Any) -> PlannedDoses:
    datamodule = make(**more)
    datamodule.open(planned, fold=fold, seed=0, num_workers=0)
    return datamodule


def test_contract_says_what_configuration_and_cohort_agree_on(planned: Path) -> None:
    contract = opened(planned).contract
    assert contract.channels == ("ct", *STRUCTURES)
    assert contract.targets == {"PTV70": 70.0}
    assert contract.mirrored == (("Femur_L", "Femur_R"),)
    assert (contract.num_constraints, contract.prescription_gy, contract.distance_clip_mm) == (13, 70.0, 50.0)
    assert contract.patch_size == contract.plan.patch_size == (16, 16, 16)


def test_a_training_batch_has_the_keys_shapes_and_types_of_the_contract(planned: Path) -> None:
    batch = next(iter(opened(planned, patch_size=[8, 12, 10]).train_dataloader()))
    assert {key: (tuple(batch[key].shape), batch[key].dtype) for key in (IMAGE, DOSE, CONSTRAINTS)} == {
        IMAGE: ((2, 4, 8, 12, 10), torch.float32),
        DOSE: ((2, 1, 8, 12, 10), torch.float32),
        CONSTRAINTS: ((2, 13), torch.float32),
    }
    assert batch[CONSTRAINTS][:, 0].tolist() == [float(name.removeprefix("patient")) for name in batch[CASE]]


def test_an_epoch_shows_four_patches_of_every_training_case(planned: Path) -> None:
    seen = [name for batch in opened(planned).train_dataloader() for name in batch[CASE]]
    assert sorted(seen) == sorted(4 * [f"patient{number}" for number in range(2, 6)])
    assert len(opened(planned, steps_per_epoch=7).train_dataloader()) == 7


def test_validation_shows_the_folds_whole_cases_in_order(planned: Path) -> None:
    for fold, names in enumerate([["patient0", "patient1"], [f"patient{number}" for number in range(2, 6)]]):
        batches = list(opened(planned, fold=fold).val_dataloader())
        assert [batch[CASE] for batch in batches] == [[name] for name in names]
        assert all(batch[DOSE].shape == (1, 1, *batch[POSSIBLE].shape[1:]) for batch in batches)


def test_structures_are_permuted_by_name_in_patches_and_volumes(planned: Path) -> None:
    straight, swapped = opened(planned), opened(planned, structures=["Femur_R", "PTV70", "Femur_L"])
    order = [0, 3, 1, 2]  # CT, then where each of `swapped` stands among the stored ones
    case = straight.cases("validation")[0]
    assert torch.equal(swapped.inputs(case)[IMAGE], straight.inputs(case)[IMAGE][order])
    first, second = (next(iter(one.train_dataloader()))[IMAGE] for one in (straight, swapped))
    assert torch.equal(second, first[:, order])
    assert torch.equal(swapped.volume(case), swapped.inputs(case)[IMAGE])


def test_a_flip_exchanges_the_pairs_whatever_their_order(planned: Path) -> None:
    flipped = DoseAugmentation(**{**vars(PLAIN), "flip_probability": 1.0})
    for structures in (STRUCTURES, ["Femur_R", "PTV70", "Femur_L"]):
        settings = {"structures": structures, "patch_size": [24, 20, 18]}
        straight = next(iter(opened(planned, **settings).train_dataloader()))
        mirrored = next(iter(opened(planned, **settings, augmentation=flipped).train_dataloader()))
        exchange = {"Femur_L": "Femur_R", "Femur_R": "Femur_L"}
        order = [0, *(1 + structures.index(exchange.get(name, name)) for name in structures)]
        assert torch.equal(mirrored[IMAGE], straight[IMAGE][:, order].flip(2))
        assert torch.equal(mirrored[DOSE], straight[DOSE].flip(2))


@pytest.mark.parametrize("structures", [STRUCTURES[:1], [*STRUCTURES, "Rectum"], ["PTV70", "Femur_L", "Bladder"]])
def test_other_structures_than_the_cohorts_are_refused_by_name(planned: Path, structures: list[str]) -> None:
    with pytest.raises(ManifestError, match=r"dataset\.structures: expected .*'Femur_R'\] in any order, got"):
        opened(planned, structures=structures, mirrored=[])


def test_another_clip_of_the_distances_than_the_cohorts_is_refused(planned: Path) -> None:
    with pytest.raises(ManifestError, match=r"dataset\.distance_clip_mm: expected .* 50, got 30"):
        opened(planned, distance_clip_mm=30.0)


def test_a_cohort_of_labelled_volumes_is_refused(prepared: Path) -> None:
    with pytest.raises(ManifestError, match="expected prepared doses, got volumes"):
        opened(prepared)


def test_a_fold_with_a_case_that_has_no_dose_names_it(tmp_path: Path, write_planned: Callable[..., Path]) -> None:
    planned = write_planned(tmp_path, without_dose=(3, 6))
    with pytest.raises(CohortError, match=r"expected planned training cases, got \['patient3'\] without a dose"):
        opened(planned)
    with pytest.raises(CohortError, match=r"expected planned validation cases"):
        opened(planned, fold=1)


def test_a_case_without_a_dose_can_be_predicted(planned: Path) -> None:
    datamodule = opened(planned)
    (case,) = datamodule.cases("test")
    assert datamodule.inputs(case)[IMAGE].shape == (4, *case.shape)


def test_opening_touches_no_array(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: StoredCase, name: str) -> np.ndarray:
        raise AssertionError(name)

    monkeypatch.setattr(StoredCase, "_array", refuse)
    datamodule = opened(planned)
    assert len(datamodule.train_dataloader()) == 8
    with pytest.raises(AssertionError, match=r"image\.npy|foreground\.npy"):
        next(iter(datamodule.train_dataloader()))


@pytest.mark.parametrize(
    ("key", "value", "near"),
    [
        ("targets", {"PTV7": 70.0}, "PTV70"),
        ("required", ["Femur_l"], "Femur_L"),
        ("mirrored", [["Femur_L", "Femur_X"]], "Femur_"),
    ],
)
def test_a_name_that_is_no_structure_is_answered_with_the_nearest(key: str, value: object, near: str) -> None:
    with pytest.raises(UnknownOptionError, match=rf"dataset\.{key}: expected names of structures, .*'{near}"):
        make(**{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0),
        ("steps_per_epoch", 0),
        ("patches_per_case", 0),
        ("high_dose_fraction", 1.5),
        ("patch_size", [16, 16]),
        ("patch_size", [16, 0, 16]),
        ("prescription_gy", 0.0),
        ("targets", {"PTV70": 0.0}),
        ("structures", ["PTV70", "PTV70"]),
        ("structures", []),
        ("mirrored", [["Femur_L"]]),
        ("mirrored", [["Femur_L", "Femur_L"]]),
        ("mirrored", [["Femur_L", "Femur_R"], ["Femur_R", "PTV70"]]),
    ],
)
def test_values_out_of_range_are_refused_by_key(key: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"dataset\.{key}: expected"):
        make(**{key: value})


def test_preparation_gets_the_settings_under_their_own_names() -> None:
    datamodule = make()
    settings = datamodule.cohort()
    assert {name: getattr(settings, name) for name in vars(settings)} == {
        name: getattr(datamodule, name) for name in vars(settings)
    }
    assert settings.structures == tuple(STRUCTURES)


def test_a_mock_cohort_is_written_as_the_configuration_says(tmp_path: Path) -> None:
    asked: list[tuple[Any, dict[str, Any]]] = []

    def write_mock(root: Path, **given: Any) -> bool:
        asked.append((root, given))
        return True

    datamodule = make(write_mock=write_mock)
    assert datamodule.write_mock_cohort(tmp_path, num_patients=3, shape=None, seed=5)
    datamodule.write_mock_cohort(tmp_path, num_patients=3, shape=[32, 32, 16], seed=5)
    assert asked == [
        (tmp_path, {"num_patients": 3, "seed": 5}),
        (tmp_path, {"num_patients": 3, "seed": 5, "shape": (32, 32, 16)}),
    ]

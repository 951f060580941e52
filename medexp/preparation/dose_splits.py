"""How a cohort of doses is split: as its publishers did, into folds, or once; always whole patients."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from medexp.errors import ConfigurationError
from medexp.preparation.raw_cases import RawCase
from medexp.sampling.splits import Fold, make_splits, read_splits

DoseSplit: TypeAlias = Literal["official", "folds", "holdout"]

OFFICIAL = "official"  # the note of a case that tells its published side
_SIDES = ("train", "val", "test")
_ROUNDING = 1e-6


@dataclass(frozen=True)
class SplitSettings:
    """How to split.

    Attributes:
        split: `official` as published, `folds` of cross-validation, `holdout` once.
        shares: Of training, validation and test patients, with `holdout`.
        num_folds: With `folds`.
        seed: Another seed, another split.
        file: An existing splits_final.json to use instead.
    """

    split: DoseSplit
    shares: tuple[float, ...]
    num_folds: int | None
    seed: int
    file: Path | None


def official_role(case: RawCase, split: DoseSplit) -> RawCase:
    """Return the case with the role that the published split gives it, if that split is used."""
    if split != "official":
        return case
    side = case.notes.get(OFFICIAL)
    if side is None:
        problem = f"{case.name}: expected a side of the published split, found none; use dataset.split=folds or holdout"
        return replace(case, problems=(*case.problems, problem))
    return replace(case, role="test") if side == "test" else case


def split_cases(records: Sequence[Mapping[str, Any]], settings: SplitSettings) -> tuple[list[Fold], set[str]]:
    """Return the folds of the training cases, and those of them that are set aside for testing.

    Args:
        records: The manifest's entries of the training cases.
        settings: How to split.

    Raises:
        ConfigurationError: The cases cannot be split like this; names the key.
        ManifestError: The split file is missing or has another shape.
    """
    if settings.file is not None:
        return read_splits(settings.file), set()
    if settings.split != "folds" and settings.num_folds is not None:
        message = f"dataset.num_folds: expected null with dataset.split={settings.split}"
        raise ConfigurationError(f"{message}, got {settings.num_folds}; for cross-validation give dataset.split=folds")
    patient_of = {str(record["case"]): str(record["patient"]) for record in records}
    if settings.split == "folds":
        if settings.num_folds is None:
            raise ConfigurationError("dataset.num_folds: expected a number with dataset.split=folds, got null")
        return make_splits(patient_of, num_folds=settings.num_folds, seed=settings.seed), set()
    if settings.split == "official":
        side_of = {str(record["case"]): str(record[OFFICIAL]).removesuffix("idation") for record in records}
    else:
        sides = hold_out_patients(set(patient_of.values()), shares=settings.shares, seed=settings.seed)
        side_of = {case: sides[patient] for case, patient in patient_of.items()}
    members = {side: sorted(case for case, its in side_of.items() if its == side) for side in _SIDES}
    if not members["train"] or not members["val"]:
        found = f"{len(members['train'])} and {len(members['val'])}"
        message = f"dataset.split={settings.split}: expected training and validation cases, found {found}"
        raise ConfigurationError(f"{message}; add patients or use dataset.split=folds")
    return [{"train": members["train"], "val": members["val"]}], set(members["test"])


def hold_out_patients(patients: Collection[str], *, shares: Sequence[float], seed: int) -> dict[str, str]:
    """Return the side of each patient, "train", "val" or "test".

    Validation and test patients are drawn by a hash of seed and name: their shares of all, rounded, but at least one
    each where the share is above 0. The others train.

    Args:
        patients: Their names.
        shares: Of training, validation and test; they sum to 1.
        seed: Another seed, another split.

    Raises:
        ConfigurationError: The shares are none, or leave no patient to train on; names the key.
    """
    if len(shares) != len(_SIDES) or min(shares) < 0.0 or abs(sum(shares) - 1.0) > _ROUNDING:
        message = "dataset.holdout_shares: expected shares of training, validation and test that sum to 1"
        raise ConfigurationError(f"{message}, got {list(shares)}")
    drawn = sorted(patients, key=lambda patient: (_draw(seed, patient), patient))
    num_val, num_test = (max(1, round(len(drawn) * share)) if share > 0.0 else 0 for share in shares[1:])
    if num_val + num_test >= len(drawn):
        message = f"dataset.holdout_shares: expected patients for every side, got {len(drawn)}"
        raise ConfigurationError(f"{message}, of whom {num_val} validate and {num_test} test; add patients")
    numbers = {patient: number for number, patient in enumerate(drawn)}
    return {
        patient: "test" if number < num_test else "val" if number < num_test + num_val else "train"
        for patient, number in numbers.items()
    }


def _draw(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed}\0{patient}".encode("utf-8", "surrogateescape")).hexdigest()
